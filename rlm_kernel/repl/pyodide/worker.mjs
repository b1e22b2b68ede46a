// The isolate that guest code runs in, which has no permission and no handle but messages to the supervisor.
//
// Taking names away here is depth, never the boundary: Deno's permissions and the host are that. Pyodide takes
// this worker for one of a browser, because nothing of Deno is left when it is loaded.

const STATE = 0, KIND = 1, LENGTH = 2, MORE = 3, CREDIT = 4, POKED = 5, NEVER = 6;
// What the guest may have sent before the host has taken it.
const WINDOW = 2 ** 20;
// Longer, and an interrupt would be noticed late where nothing wakes the wait.
const WAIT_MILLISECONDS = 100;

const post = self.postMessage.bind(self);
const utf8 = new TextEncoder();
let control, mailbox, interrupt, agent, python;
let sent = 0;
let awaited = 0;
let booted;
let held;
let pieces = [];
// What was written to descriptors 1 and 2, past Python's streams.
const written = { parts: [], size: 0 };

// The garbage of the start is larger than what stays.
const collect = globalThis.gc ?? (() => undefined);

function harden() {
  const Deno = globalThis.Deno;
  for (const stream of [Deno.stdin, Deno.stdout, Deno.stderr]) {
    try {
      stream.close();
    } catch {
      // Closed already.
    }
  }
  const names = [
    "Deno", "process", "Buffer", "global", "require", "Worker", "SharedWorker", "caches", "Cache", "CacheStorage",
    "localStorage", "sessionStorage", "Storage", "indexedDB", "BroadcastChannel", "fetch", "WebSocket",
    "WebSocketStream", "WebTransport", "EventSource", "XMLHttpRequest", "Request", "prompt", "alert", "confirm",
    "postMessage", "close", "onmessage", "onmessageerror", "onerror", "importScripts", "reportError", "navigator",
    "GPU", "location", "gc",
  ];
  for (const name of names) {
    for (let object = globalThis; object !== null; object = Object.getPrototypeOf(object)) {
      try {
        if (Object.hasOwn(object, name)) delete object[name];
      } catch {
        // Not to be deleted.
      }
    }
  }
  const silent = () => undefined;
  const console = Object.create(null);
  for (const name of ["log", "debug", "info", "warn", "error", "trace", "dir", "table", "assert", "group", "groupEnd"]) {
    console[name] = silent;
  }
  globalThis.console = Object.freeze(console);
}

// Sends a message to the host. False if the host is behind: try again, which lets an interrupt in.
function send(header, body, urgent) {
  const size = header.length + (body === undefined ? 0 : body.length);
  if (!urgent && ((sent - Atomics.load(control, CREDIT)) | 0) > WINDOW) {
    Atomics.wait(control, CREDIT, Atomics.load(control, CREDIT), WAIT_MILLISECONDS);
    if (((sent - Atomics.load(control, CREDIT)) | 0) > WINDOW) return false;
  }
  sent = (sent + size) | 0;
  post({ header, body });
  return true;
}

// Takes the next thing out of the mailbox, waiting so long for it: [kind, bytes], or undefined.
function poll(milliseconds) {
  if (Atomics.load(control, STATE) === 0 && milliseconds > 0) {
    Atomics.wait(control, STATE, 0, Math.min(milliseconds, WAIT_MILLISECONDS));
  }
  while (Atomics.load(control, STATE) === 1) {
    pieces.push(mailbox.slice(0, Atomics.load(control, LENGTH)));
    const kind = Atomics.load(control, KIND);
    const more = Atomics.load(control, MORE) === 1;
    Atomics.store(control, STATE, 0);
    Atomics.notify(control, STATE);
    if (more) {
      // The rest is on its way: what has begun is taken whole.
      Atomics.wait(control, STATE, 0, 10_000);
      continue;
    }
    const whole = pieces.length === 1 ? pieces[0] : joined(pieces);
    pieces = [];
    return [kind, whole];
  }
  return undefined;
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

async function boot(message) {
  ({ control, mailbox, interrupt } = message);
  const { Response, URL } = globalThis;
  const files = { "pyodide.asm.wasm": message.wasm, "python_stdlib.zip": message.stdlib };
  harden();
  // Pyodide asks for its files by fetch; there is no other use of it.
  globalThis.fetch = async (url) => {
    const bytes = files[String(url).split("/").pop()];
    return new Response(bytes, { headers: { "content-type": "application/wasm" } });
  };
  globalThis.location = new URL("https://pyodide.invalid/");
  const { loadPyodide } = await import(message.pyodide);
  const createPyodideModule = (await import(message.asm)).default;
  URL.revokeObjectURL(message.pyodide);
  URL.revokeObjectURL(message.asm);
  python = await loadPyodide({
    indexURL: "https://pyodide.invalid/",
    lockFileContents: { info: {abi_version: "2026_0", arch: "wasm32", platform: "emscripten_5_0_3", python: "3.14.2"}, packages: {} },
    packageBaseUrl: "https://pyodide.invalid/",
    createPyodideModule,
    checkAPIVersion: false,
    env: { HOME: "/home/pyodide", PYTHONHASHSEED: "0" },
    stdin: () => null,
    stdout: () => undefined,
    stderr: () => undefined,
    ...(message.make ? { _makeSnapshot: true } : {}),
    ...(message.snapshot === undefined ? {} : { _loadSnapshot: message.snapshot }),
  });
  delete globalThis.fetch;
  delete globalThis.location;
  if (message.snapshot === undefined) {
    const text = new TextDecoder();
    python.runPython(
      "def _load(sources, guest):\n" +
        "    import json, sys, types\n" +
        "    package = sys.modules['_rlm_agent'] = types.ModuleType('_rlm_agent')\n" +
        "    package.__path__ = []\n" +
        "    for name, source in json.loads(sources):\n" +
        "        module = sys.modules['_rlm_agent.' + name] = types.ModuleType('_rlm_agent.' + name)\n" +
        "        module.__package__ = '_rlm_agent'\n" +
        "        exec(compile(source, f'<rlm agent {name}>', 'exec', dont_inherit=True), module.__dict__)\n" +
        "        setattr(package, name, module)\n" +
        "    package.agent.warm(guest)\n",
    );
    const load = python.globals.get("_load");
    load(text.decode(message.agent), text.decode(message.guest));
    load.destroy();
    python.runPython("del _load");
  }
  if (message.make) {
    const snapshot = python.makeMemorySnapshot();
    post({ header: JSON.stringify({ op: "snapshot", size: snapshot.length }) });
    for (let at = 0; at < snapshot.length; at += 2 ** 22) {
      post({ header: '{"op":"snapshot"}', body: snapshot.slice(at, at + 2 ** 22) });
    }
    return;
  }
  agent = python.pyimport("_rlm_agent.agent");
  // Python looks at it, then empties it: an interrupt that comes between the two would be lost.
  python.setInterruptBuffer({
    get 0() {
      return Atomics.exchange(interrupt, 0, 0);
    },
    set 0(value) {},
  });
  const raw = (name) => ({
    write: (bytes) => {
      // Python has let go of its lock here: it takes them when it is back.
      if (written.size < WINDOW) written.parts.push([name, bytes.slice()]);
      written.size += bytes.length;
      return bytes.length;
    },
    isatty: false,
  });
  python.setStdout(raw("stdout"));
  python.setStderr(raw("stderr"));
  const takeWritten = () => {
    const parts = written.parts;
    written.parts = [];
    written.size = 0;
    return parts;
  };
  const nap = (milliseconds) => {
    Atomics.wait(control, NEVER, 0, Math.min(milliseconds, WAIT_MILLISECONDS));
  };
  agent.start(send, poll, nap, takeWritten, message.settings);
  for (const name of Object.keys(files)) delete files[name];
  for (const name of Object.keys(message)) delete message[name];
  setTimeout(collect, 0);
}

function keep(path, offset, total, body) {
  const { FS } = python;
  FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
  const file = FS.open(path, offset === 0 ? "w" : "r+");
  if (offset === 0) FS.ftruncate(file.fd, total);
  FS.write(file, body, 0, body.length, offset);
  FS.close(file);
}

// A file that is read once, from its beginning: what has been read is dropped, so that a large one is not held
// twice while Python makes a value of it.
function keepOnce(path, offset, total, body) {
  const { FS } = python;
  if (offset === 0) {
    FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
    FS.writeFile(path, new Uint8Array());
    const node = FS.lookupPath(path).node;
    node.usedBytes = total;
    node.pieces = [];
    node.stream_ops = {
      ...node.stream_ops,
      read(stream, buffer, at, length, position) {
        const pieces = stream.node.pieces;
        while (pieces.length && position >= pieces[0].start + pieces[0].body.length) pieces.shift();
        if (!pieces.length || length === 0) return 0;
        const { start, body } = pieces[0];
        if (position < start) throw new FS.ErrnoError(29);
        const part = body.subarray(position - start, position - start + length);
        buffer.set(part, at);
        return part.length;
      },
    };
  }
  FS.lookupPath(path).node.pieces.push({ start: offset, body });
}

// A text whose bytes are those of Python's own memory of it: they go straight there.
function hold(path, offset, total, text, body) {
  if (offset === 0) held = { path, at: agent.hold(path, text, total), total };
  if (held?.path !== path || offset + body.length > held.total) throw new Error("a piece of nothing that is held");
  python._module.HEAPU8.set(body, held.at + offset);
  if (offset + body.length === total) held = undefined;
}

async function execute({ cell, code, silent, count, stdin }) {
  try {
    const task = agent.execute(cell, code, silent, count, stdin);
    if (task !== undefined) {
      awaited = cell;
      await task;
      task.destroy();
    }
  } catch (error) {
    // The agent reports what code raises; what gets here has broken the agent, or the interpreter.
    const reason = String(error && error.message).slice(-2000);
    post({ header: JSON.stringify({ op: "fault", cell, reason }) });
  }
  awaited = 0;
  Atomics.store(interrupt, 0, 0);
  post({ header: JSON.stringify({ op: "done", cell }), ended: cell });
}

const handlers = {
  execute,
  poke() {
    Atomics.store(control, POKED, 0);
    agent.drain();
  },
  interrupt({ cell }) {
    if (awaited !== cell) return;
    // Where Python runs it sees the interrupt by itself; where it awaits, nothing else wakes it.
    Atomics.store(interrupt, 0, 0);
    agent.cancel(cell);
  },
  put({ path, offset, total, once, text, id, body }) {
    let error = "";
    try {
      if (text) hold(path, offset, total, text, body);
      else if (once) keepOnce(path, offset, total, body);
      else keep(path, offset, total, body);
    } catch (failure) {
      error = String(failure).slice(0, 500) || "it was refused";
    }
    post({ header: JSON.stringify({ op: "stored", id, error }) });
  },
  drop({ path }) {
    try {
      python.FS.unlink(path);
      setTimeout(collect, 0);
    } catch {
      // The guest has removed it.
    }
  },
  query({ id, what, code, position }) {
    const answer = agent.query(what, code, position);
    post({ header: JSON.stringify({ op: "answer", id }), body: utf8.encode(answer) });
  },
};

self.addEventListener("message", async (event) => {
  const message = event.data;
  try {
    if (message.op === "boot") await (booted = boot(message));
    else {
      await booted;
      await handlers[message.op](message);
    }
  } catch (error) {
    // An interrupt that came between two steps of Python's; but without a start there is nothing.
    if (message.op === "boot") throw error;
  }
});
// Deno would end the worker for a promise that guest code has left behind.
for (const kind of ["error", "unhandledrejection"]) {
  self.addEventListener(kind, (event) => {
    if (agent !== undefined) event.preventDefault();
  });
}
