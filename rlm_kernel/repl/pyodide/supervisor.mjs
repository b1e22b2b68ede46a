// The main isolate of the sandbox: the only one that holds the pipe to the host, and the token of its frames.
//
// It reads the runtime's files, gives its one permission back, and only then makes the worker that guest code
// runs in. What the worker sends has the guest's authority and no more: it is passed on, marked as the guest's.
//
// Frames to the host:   u32 length, token (16 bytes), u32 number, u8 origin, u32 length of header, header, body.
// Frames from the host: u32 length, u32 length of header, header, body. All numbers are little-endian.

const SUPERVISOR = 0, GUEST = 1;
const FRAME_MAX = 72 * 2 ** 20;
const QUEUE_MAX = 96 * 2 ** 20;
const CHUNK = 2 ** 20;
// Fields of the shared control block, as in worker.mjs.
const STATE = 0, KIND = 1, LENGTH = 2, MORE = 3, CREDIT = 4, POKED = 5;

const utf8 = new TextEncoder();
const plain = new TextDecoder();
const stdin = Deno.stdin, stdout = Deno.stdout;

const control = new Int32Array(new SharedArrayBuffer(64));
const mailbox = new Uint8Array(new SharedArrayBuffer(CHUNK));
const interrupt = new Uint8Array(new SharedArrayBuffer(4));

let token, worker, running = 0;
let number = 0, queued = 0, writing = false;
const outgoing = [];
const incoming = [];
// A read is a trip to another thread: small frames are had in one.
const buffer = new Uint8Array(2 ** 16);
let ahead = buffer.subarray(0, 0);

async function readExactly(size) {
  const bytes = new Uint8Array(size);
  let at = 0;
  for (;;) {
    const ready = ahead.subarray(0, size - at);
    bytes.set(ready, at);
    at += ready.length;
    ahead = ahead.subarray(ready.length);
    if (at === size) return bytes;
    const large = size - at >= buffer.length;
    const count = await stdin.read(large ? bytes.subarray(at) : buffer);
    if (count === null) Deno.exit(0);
    if (large) at += count;
    else ahead = buffer.subarray(0, count);
  }
}

async function readFrame() {
  const length = new DataView((await readExactly(4)).buffer).getUint32(0, true);
  if (length > FRAME_MAX) Deno.exit(3);
  const bytes = await readExactly(length);
  const size = new DataView(bytes.buffer).getUint32(0, true);
  return [JSON.parse(plain.decode(bytes.subarray(4, 4 + size))), bytes.subarray(4 + size)];
}

function send(origin, header, body) {
  const head = utf8.encode(header);
  const size = body === undefined ? 0 : body.length;
  const frame = new Uint8Array(4 + 16 + 4 + 1 + 4 + head.length + size);
  const view = new DataView(frame.buffer);
  view.setUint32(0, frame.length - 4, true);
  frame.set(token, 4);
  view.setUint32(20, number++, true);
  view.setUint8(24, origin);
  view.setUint32(25, head.length, true);
  frame.set(head, 29);
  if (size) frame.set(body, 29 + head.length);
  queued += frame.length;
  // A guest that takes no notice of its credit.
  if (queued > QUEUE_MAX) Deno.exit(4);
  outgoing.push([frame, origin === GUEST ? header.length + size : 0]);
  if (!writing) write();
}

async function write() {
  writing = true;
  while (outgoing.length) {
    const [frame, credit] = outgoing.shift();
    for (let at = 0; at < frame.length;) at += await stdout.write(frame.subarray(at));
    queued -= frame.length;
    if (credit) {
      Atomics.add(control, CREDIT, credit);
      Atomics.notify(control, CREDIT);
    }
  }
  writing = false;
}

function deliver() {
  while (incoming.length && Atomics.load(control, STATE) === 0) {
    const item = incoming[0];
    const piece = item.body.subarray(item.at, item.at + CHUNK);
    mailbox.set(piece);
    item.at += piece.length;
    Atomics.store(control, KIND, item.kind);
    Atomics.store(control, LENGTH, piece.length);
    Atomics.store(control, MORE, item.at < item.body.length ? 1 : 0);
    if (item.at >= item.body.length) incoming.shift();
    Atomics.store(control, STATE, 1);
    Atomics.notify(control, STATE);
    // For a guest that awaits; one that waits in a call finds it without.
    if (Atomics.exchange(control, POKED, 1) === 0) worker.postMessage({ op: "poke" });
  }
  if (!incoming.length) return;
  const taken = Atomics.waitAsync(control, STATE, 1);
  if (taken.async) taken.value.then(deliver);
  else deliver();
}

function mail(kind, body) {
  incoming.push({ kind, body, at: 0 });
  if (incoming.length === 1) deliver();
}

const handlers = {
  execute(header) {
    running = header.cell;
    Atomics.store(interrupt, 0, 0);
    worker.postMessage(header);
  },
  interrupt() {
    if (!running) return;
    Atomics.store(interrupt, 0, 2);
    Atomics.notify(control, STATE);
    Atomics.notify(control, CREDIT);
    worker.postMessage({ op: "interrupt", cell: running });
  },
  stdin: (header, body) => mail(1, body),
  control: (header, body) => mail(2, body),
  put: (header, body) => worker.postMessage({ ...header, body }, [body.buffer]),
  drop: (header) => worker.postMessage(header),
  query: (header) => worker.postMessage(header),
};

function makeWorker(files, start) {
  const url = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
  worker = new Worker(url(files["worker.mjs"]), { type: "module", name: "guest" });
  worker.onerror = (event) => {
    event.preventDefault();
    send(SUPERVISOR, JSON.stringify({ op: "broken", reason: String(event.message).slice(0, 2000) }));
  };
  worker.onmessage = ({ data }) => {
    if (data === null || typeof data !== "object" || typeof data.header !== "string") Deno.exit(5);
    if (data.body !== undefined && !(data.body instanceof Uint8Array)) Deno.exit(5);
    if (data.ended === running) running = 0;
    send(GUEST, data.header, data.body);
  };
  const bytes = (name) => files[name] ?? new Uint8Array();
  const boot = {
    op: "boot",
    control,
    mailbox,
    interrupt,
    snapshot: start.snapshot ? bytes("snapshot.bin") : undefined,
    make: start.make === true,
    settings: start.settings,
    pyodide: url(files["pyodide.mjs"]),
    asm: url(files["pyodide.asm.mjs"]),
    wasm: bytes("pyodide.asm.wasm"),
    stdlib: bytes("python_stdlib.zip"),
    agent: bytes("agent.json"),
    guest: bytes("guest.json"),
  };
  // What is handed over is held once, and can be dropped over there.
  const handed = [boot.wasm, boot.stdlib, ...(start.snapshot ? [boot.snapshot] : [])];
  worker.postMessage(boot, handed.map((each) => each.buffer));
}

const [start] = await readFrame();
token = Uint8Array.from(start.token.match(/../g), (pair) => parseInt(pair, 16));
{
  const names = ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip"];
  names.push("worker.mjs", "agent.json", "guest.json", ...(start.snapshot ? ["snapshot.bin"] : []));
  const files = {};
  for (const name of names) files[name] = Deno.readFileSync(`${start.folder}/${name}`);
  Deno.permissions.revokeSync({ name: "read", path: start.folder });
  Deno.permissions.revokeSync({ name: "read" });
  for (const name of ["read", "write", "net", "env", "run", "ffi", "sys", "import"]) {
    if (Deno.permissions.querySync({ name }).state !== "denied") {
      // Nothing of the guest's has run; where a permission is left, nothing will.
      if (Deno.permissions.revokeSync({ name }).state === "granted") Deno.exit(6);
    }
  }
  makeWorker(files, start);
}
for (;;) {
  const [header, body] = await readFrame();
  const handler = Object.hasOwn(handlers, header.op) ? handlers[header.op] : undefined;
  if (handler === undefined) Deno.exit(3);
  handler(header, body);
}
