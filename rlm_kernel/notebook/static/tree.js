// A run's events as a tree that a person can read: fold, rows, detail, flame view.
//
// One ES module without imports: the notebook's widget and the JupyterLab extension render with this file.
// It takes events (those of rlm_kernel/events.py as JSON, whole, or short as rlm_kernel/notebook/feed.py
// sends them) and a DOM node. Whatever stands in an event was written by a model or by code that a model
// wrote: it gets into the page as text only, never as HTML.

const ROW_PX = 22;
const MAX_ROWS_SHOWN = 14;
const TAIL_CHARS = 200;
const SHOWN_CHARS = 20000;
const TITLE_CHARS = 2000;
const SLICE_MS = 12;
const MATCH_MS = 250;
const FETCHES = 8;
// A run is a handful of levels deep for each level of children. Beyond this, rows stand beside each other.
const MOST_LEVELS = 256;
// What the texts of a trajectory may come to when put together: a file can name one text a million times.
const MOST_CHARS = 2 ** 29;
// Without a prototype, here and below: words of a stranger are looked up.
export const WORDS = {
  __proto__: null,
  starting: "starting",
  running: "running",
  paused: "paused",
  stopping: "stopping",
  answered: "answered",
  exhausted: "out of turns",
  over_budget: "over budget",
  timed_out: "timed out",
  cancelled: "cancelled",
  failed: "failed",
};
const SAY = "Say something to the model, sent with its next turn";
const MARKS = { __proto__: null, queued: "\u25cb", running: "\u25d4", done: "\u25cf", failed: "\u2716", cancelled: "\u25fc", note: "\u2139" };

// Reading ------------------------------------------------------------------------------------------------

/**
 * Return the events in the lines of a trajectory (rlm_kernel/trace/jsonl.py), its texts put together.
 * A slice of a context, which the file only names, becomes a text that says so.
 * @param {object[]} lines
 * @returns {object[]}
 */
export function readTrajectory(lines) {
  const texts = new Map();
  const names = new Map();
  const points = new Map(); // of a text, what its slices count in
  let room = MOST_CHARS;
  const slice = (sha, start, end) => {
    if (!points.has(sha)) points.set(sha, /[\ud800-\udfff]/.test(texts.get(sha)) ? Array.from(texts.get(sha)) : texts.get(sha));
    const cut = points.get(sha).slice(start, end);
    return typeof cut === "string" ? cut : cut.join("");
  };
  const segment = (part) => {
    let text = part;
    if (typeof part !== "string") {
      const [sha, start, end] = part.s ?? [];
      if ("t" in part) text = texts.get(part.t) ?? "";
      else text = texts.has(sha) ? slice(sha, start, end) : `[slice of ${names.get(sha)}: ${start}:${end}]`;
    }
    room -= text.length;
    if (room < 0) throw new RangeError(`the texts come to more than ${MOST_CHARS} characters`);
    return text;
  };
  const unpacked = (value) => {
    if (Array.isArray(value)) return value.map(unpacked);
    if (value === null || typeof value !== "object") return value;
    if ("$text" in value) return value.$text.map(segment).join("");
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key.replace(/^\$/, ""), unpacked(each)]));
  };
  const events = [];
  for (const line of lines) {
    if (line.type === "text") texts.set(line.sha256, line.text);
    else if (line.type === "source") names.set(line.sha256, `${line.context}${line.where}`);
    else if (line.type !== "trajectory") events.push(unpacked(line));
  }
  return events;
}

/**
 * Return what finds the whole events behind a row, for events that are all here.
 * @param {object[]} events
 * @returns {(id: string) => Promise<object[]>}
 */
export function finder(events) {
  const found = new Map();
  const turns = new Map();
  const add = (id, event) => (found.has(id) ? found.get(id).push(event) : found.set(id, [event]));
  for (const event of events) {
    if (event.type === "call_started" && event.kind === "root") turns.set(event.call, turnId(event));
    const id = turns.get(event.call) ?? event.call ?? event.cell;
    if (id) add(id, event);
    else if (event.type === "message_added") add(turnId({ ...event, turn: nextTurn(event) }), event);
    else if (event.type === "run_started") add(event.parent_call ?? "root", event);
  }
  return (id) => Promise.resolve(found.get(id) ?? []);
}

const turnId = (event) => `${event.run}/${event.turn}`;
// What the user's side says in a turn is what the model reads in the next one.
const nextTurn = (event) => event.turn + (event.message.role === "assistant" ? 0 : 1);

/**
 * Return whole events as titled texts.
 * @param {object[]} events
 * @returns {{title: string, text: string, kind?: string, image?: string, note?: string}[]}
 */
export function sections(events) {
  const out = [];
  for (const event of events) {
    if (event.type === "run_started") {
      out.push({ title: "question", text: event.query });
      for (const each of event.contexts ?? []) {
        out.push({ title: `context ${each.name}`, text: each.description || `${each.type}, ${each.size} ${each.unit}` });
      }
    } else if (event.type === "call_started") {
      for (const each of event.messages ?? []) out.push(messageSection(each));
    } else if (event.type === "message_added") {
      if (event.message.role !== "assistant") out.push(messageSection(event.message));
    } else if (event.type === "call_finished") {
      const facts = [event.model, event.finish_reason && `ended by ${event.finish_reason}`];
      if (event.attempts > 1) facts.push(`${event.attempts} attempts`);
      const note = facts.filter(Boolean).join(" \u00b7 ");
      if (event.text || !event.error) out.push({ title: "reply", text: event.text ?? "", note });
      if (event.error) out.push({ title: "error", text: event.error, kind: "bad", note });
    } else if (event.type === "cell_started") {
      out.push({ title: "code", text: event.code, kind: "code" });
    } else if (event.type === "cell_finished") {
      for (const each of event.outputs ?? []) out.push(outputSection(each));
      if (event.lost) out.push({ title: "lost", text: event.lost, kind: "bad" });
    }
  }
  return out;
}

function messageSection(message) {
  const parts = typeof message.content === "string" ? [{ type: "text", text: message.content }] : message.content;
  const text = parts.map((part) => (part.type === "text" ? part.text : "[an image]")).join("\n");
  return { title: message.role === "user" ? "prompt" : message.role, text };
}

function outputSection(output) {
  const section = { title: output.kind, text: output.text ?? "", kind: output.kind === "error" ? "bad" : "" };
  if (output.dropped) section.note = `${output.dropped.toLocaleString("en")} characters were cut`;
  for (const type of ["image/png", "image/jpeg"]) {
    const data = output.data?.[type]?.replace(/\s/g, "");
    if (data && /^[A-Za-z0-9+/]+=*$/.test(data)) section.image = `data:${type};base64,${data}`;
  }
  return section;
}

// Folding ------------------------------------------------------------------------------------------------

const tally = () => ({ input: 0, output: 0, cached: 0, cost: 0, unknown: 0, calls: 0 });

/** The tree of one run, folded from its events; no DOM. Sums in `sum` are those of a node and all below. */
export class Fold {
  constructor() {
    this.root = this.node("root", "run", null, 0);
    this.nodes = new Map([["root", this.root]]);
    this.runs = new Map();
    this.turns = new Map(); // a root model's call -> its turn
    this.turnOf = new Map(); // a run -> the turn under way
    this.cells = [];
    this.flying = new Set(); // the calls that a model or a function of the user has yet to answer
    this.paused = false;
    this.info = null;
    this.end = null;
    this.kernel = "";
    this.now = 0;
    this.depth = 0;
    this.structure = 0; // counts what changes which rows there are
    this.texts = 0; // counts what changes what they say
    this.settled = 0; // counts the cells that have ended
  }

  node(id, kind, parent, began) {
    const level = parent ? parent.level + 1 : 0;
    return {
      id, kind, parent, level, began, ended: 0, state: "running", label: "", text: "", reply: "", tail: "",
      children: [], sum: tally(), open: kind !== "batch" && kind !== "call", index: 0, failed: 0, done: 0,
      error: "", model: "", value: "", words: "", below: 0,
    };
  }

  add(id, kind, below, event) {
    let parent = below;
    while (parent.level >= MOST_LEVELS) parent = parent.parent;
    const node = this.node(id, kind, parent, event.time);
    parent.children.push(node);
    this.nodes.set(id, node);
    this.structure += 1;
    return node;
  }

  /** @param {object} event */
  take(event) {
    this.now = Math.max(this.now, event.time ?? 0);
    this.root.began ||= event.time ?? 0;
    this[event.type]?.(event);
  }

  run_started(event) {
    const parent = this.nodes.get(event.parent_call) ?? this.root;
    this.runs.set(event.run, parent);
    this.depth = Math.max(this.depth, event.depth ?? 0);
    this.flying.delete(event.parent_call);
    if (!event.parent_run) {
      this.info = event;
      this.root.began = event.time;
    } else if (parent !== this.root) {
      parent.child = true;
      parent.text = oneLine(event.query);
      this.changed(parent);
      this.structure += 1;
    }
  }

  kernel_started(event) {
    const what = oneLine(`${event.backend} kernel, ${event.implementation}, ready in ${seconds(event.seconds)}`);
    if (this.runs.get(event.run) === this.root) this.kernel = what;
    if (event.again) this.note(event, `a fresh ${what}`);
  }

  kernel_lost(event) {
    this.note(event, `kernel lost: ${event.cause}`).error = event.cause;
  }

  notice(event) {
    if (event.state) this.paused = event.state === "paused";
    this.note(event, event.text);
  }

  compacted(event) {
    this.note(event, `the conversation of ${count(event.tokens ?? 0)} tokens was summarised; all of it is in ${event.variable}`);
  }

  note(event, text) {
    const parent = this.runs.get(event.run) ?? this.root;
    const node = this.add(`n${this.nodes.size}`, "note", parent, event);
    node.state = "note";
    node.ended = event.time;
    node.text = oneLine(text);
    node.brief = text;
    return node;
  }

  /** Forget what a row was searched by, since it says something else now. */
  changed(node) {
    node.words = "";
    this.texts += 1;
  }

  call_started(event) {
    const run = this.runs.get(event.run) ?? this.root;
    this.depth = Math.max(this.depth, event.depth ?? 0);
    this.flying.add(event.call);
    if (event.kind === "root") {
      const id = turnId(event);
      const before = this.turnOf.get(event.run);
      if (before && before.id !== id) this.close(before, event.time);
      const turn = this.nodes.get(id) ?? this.add(id, "turn", run, event);
      turn.label = `Turn ${event.turn}`;
      turn.model = oneLine(event.model);
      turn.state = "running";
      turn.asking = true;
      turn.index = event.turn;
      this.turnOf.set(event.run, turn);
      this.turns.set(event.call, turn);
      return;
    }
    let parent = this.nodes.get(event.cell) ?? run;
    if (event.batch) {
      const batch = this.nodes.get(event.batch) ?? this.add(event.batch, "batch", parent, event);
      batch.label = oneLine(event.tool || `${event.kind}_batched`);
      batch.model = oneLine(event.model);
      parent = batch;
    }
    const call = this.add(event.call, "call", parent, event);
    call.model = oneLine(event.model);
    call.index = event.index ?? 0;
    call.label = event.batch ? `#${call.index}` : oneLine(event.tool || event.kind);
    const message = event.messages?.[0];
    call.text = message ? oneLine(messageSection(message).text) : "";
  }

  call_delta(event) {
    const turn = this.turns.get(event.call);
    if (turn) turn.tail = event.tail ?? (turn.tail + event.text).slice(-TAIL_CHARS);
  }

  call_finished(event) {
    const turn = this.turns.get(event.call);
    const node = turn ?? this.nodes.get(event.call);
    this.flying.delete(event.call);
    if (!node) return;
    this.changed(node);
    this.count(node, event.usage, node.child ? 0 : 1);
    node.reply = oneLine(event.text ?? "");
    node.error = event.error ?? "";
    if (turn) {
      turn.asking = false;
      turn.tail = "";
      turn.asked = event.time;
      if (event.error) turn.state = "failed";
      return;
    }
    node.state = event.error ? (/^CancelledError/.test(event.error) ? "cancelled" : "failed") : "done";
    node.ended = event.time;
    const batch = node.parent;
    if (batch.kind !== "batch") return;
    batch.done += 1;
    if (event.error) batch.failed += 1;
    if (batch.done === batch.children.length) {
      // One that failed among many is said in words and in the strip; the batch itself did its work.
      batch.state = batch.failed === batch.done ? "failed" : "done";
      batch.ended = event.time;
    } else {
      batch.state = "running";
    }
  }

  count(node, usage, calls) {
    const used = usage ?? {};
    const known = used.cost_usd !== null;
    const cost = known ? Number(used.cost_usd ?? 0) : 0;
    for (let each = node; each; each = each.parent) {
      const sum = each.sum;
      sum.input += used.input_tokens ?? 0;
      sum.output += used.output_tokens ?? 0;
      sum.cached += used.cached_tokens ?? 0;
      sum.cost += cost;
      sum.unknown += known ? 0 : 1;
      sum.calls += calls;
    }
  }

  cell_started(event) {
    const parent = this.nodes.get(turnId(event)) ?? this.runs.get(event.run) ?? this.root;
    const cell = this.add(event.cell, "cell", parent, event);
    cell.label = `[${event.turn}${event.block > 1 ? `.${event.block}` : ""}]`;
    cell.text = oneLine(event.code);
    Object.assign(cell, { code: event.code, turn: event.turn, block: event.block, run: this.runs.get(event.run) });
    this.cells.push(cell);
  }

  cell_output(event) {
    const cell = this.nodes.get(event.cell);
    if (cell) cell.tail = event.tail ?? (cell.tail + (event.output?.text ?? "")).slice(-TAIL_CHARS);
  }

  cell_finished(event) {
    const cell = this.nodes.get(event.cell);
    if (!cell) return;
    const states = { __proto__: null, ok: "done", cancelled: "cancelled", interrupted: "cancelled" };
    cell.state = states[event.status] ?? "failed";
    cell.ended = event.time;
    cell.tail = "";
    this.settled += 1;
    this.changed(cell);
    const outputs = event.outputs ?? [];
    const bad = outputs.find((each) => each.kind === "error");
    const shown = bad ?? outputs.find((each) => each.text?.trim());
    cell.value = bad && bad.name ? oneLine(`${bad.name}: ${bad.value}`) : shown ? oneLine(shown.text) : "";
    if (cell.state === "failed") cell.error = cell.value || event.lost || event.status.replace("_", " ");
  }

  run_finished(event) {
    const turn = this.turnOf.get(event.run);
    if (turn) this.close(turn, event.time);
    if (event.run !== this.info?.run) return;
    this.end = event;
    for (const each of this.nodes.values()) {
      if (each.state === "running") this.close(each, event.time, "cancelled");
    }
    this.root.state = event.status;
    this.root.ended = event.time;
  }

  close(node, time, state = "done") {
    if (node.state === "running") node.state = state;
    if (!node.ended) node.ended = time;
  }

  /** Return the nodes whose ancestors are all open, in the order of the rows. */
  visible() {
    const rows = [];
    const walk = (node) => {
      let place = 0;
      for (const child of node.children) {
        place += 1;
        child.place = place;
        child.places = node.children.length;
        rows.push(child);
        if (child.open && child.children.length) walk(child);
      }
    };
    walk(this.root);
    return rows;
  }

  /**
   * Return the nodes whose texts hold all of `words`, in small letters, with those that they are under.
   * @param {string[]} words
   * @returns {{rows: object[], found: number}}
   */
  matching(words) {
    const rows = [];
    let found = 0;
    const walk = (node) => {
      const kept = [];
      for (const child of node.children) {
        const before = rows.push(child) - 1;
        child.below = walk(child);
        const matches = words.every((word) => searched(child).includes(word));
        if (matches) found += 1;
        if (matches || child.below) kept.push(child);
        else rows.length = before;
      }
      kept.forEach((child, at) => Object.assign(child, { place: at + 1, places: kept.length }));
      return kept.length;
    };
    walk(this.root);
    return { rows, found };
  }
}

function searched(node) {
  node.words ||= [node.label, node.text, node.reply, node.value, node.error, node.brief, node.model].join(" ").toLowerCase();
  return node.words;
}

/**
 * Return the code of a run's cells as one script. What child runs executed had a kernel of its own: it is there
 * as comments.
 * @param {object[]} cells
 * @param {(cell: object) => string} codeOf
 */
function script(cells, codeOf) {
  return cells.map((cell) => {
    const child = cell.run?.child ? `, of the child run "${cell.run.text}"` : "";
    const state = cell.state === "done" || cell.state === "running" ? "" : `, ${cell.state}`;
    const code = codeOf(cell).trim();
    const shown = child ? code.replace(/^/gm, "# ") : code;
    return `# %% turn ${cell.turn}, block ${cell.block}${child}${state}\n${shown}\n`;
  }).join("\n");
}

// Words and numbers --------------------------------------------------------------------------------------

// Marks of direction would turn round what stands beside a text as well; a terminal that
// a text is pasted into would obey the other control characters.
const TURNS = /[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

const oneLine = (text) => String(text ?? "").slice(0, 600).replace(TURNS, "").replace(/\s+/g, " ").trim().slice(0, 240);

function count(number) {
  if (number < 10000) return number.toLocaleString("en");
  if (number < 1e6) return `${(number / 1e3).toFixed(1)}k`;
  return `${(number / 1e6).toFixed(2)}M`;
}

export function seconds(value) {
  if (value < 9.995) return `${Math.max(0, value).toFixed(2)} s`;
  if (value < 99.95) return `${value.toFixed(1)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} m ${String(Math.floor(value % 60)).padStart(2, "0")} s`;
  return `${Math.floor(value / 3600)} h ${String(Math.floor((value % 3600) / 60)).padStart(2, "0")} m`;
}

const dollars = (value) => `$${value.toFixed(value < 10 ? 4 : 2)}`;

export function cost(sum) {
  if (!sum.unknown) return dollars(sum.cost);
  return sum.cost ? `\u2265 ${dollars(sum.cost)}` : "?";
}

const share = (sum) => (sum.input ? `${Math.round((100 * sum.cached) / sum.input)}%` : "");

/** Make an element; `text` is set as text. */
function make(tag, className, parent, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

/** Set text only where it differs: what doesn't change isn't laid out again. */
function put(element, text) {
  if (element.shown !== text) {
    element.shown = text;
    element.textContent = text;
  }
}

function attribute(element, name, value) {
  if (value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

// The view -----------------------------------------------------------------------------------------------

let views = 0;

/**
 * Render a run into `element`.
 *
 * `fetch(id)` resolves to the whole events behind a row ("root", a turn "run/number", a call, a cell).
 * `onStop()` and `onSay(text)` are called for the person; without them there is no such control.
 * @param {HTMLElement} element
 * @param {{fetch?: (id: string) => Promise<object[]>, onStop?: () => void, onSay?: (text: string) => void}} host
 * @returns {View}
 */
export function mount(element, host = {}) {
  return new View(element, host);
}

class View {
  constructor(element, host) {
    this.host = host;
    this.name = `rlm${(views += 1)}`;
    this.fold = new Fold();
    this.queue = [];
    this.rows = [];
    this.pool = [];
    this.selected = null;
    this.detailed = "";
    this.follow = true;
    this.tab = "tree";
    this.wanted = []; // the words that rows are filtered by
    this.codes = new Map();
    this.scale = "time";
    this.flattened = -1;
    this.heard = performance.now();
    this.build(element);
    this.clock = setInterval(() => this.running() && this.schedule(), 250);
    this.schedule();
  }

  /** Take in further events. Long batches are folded in slices, between which the page can breathe. */
  push(events) {
    this.heard = performance.now();
    for (const event of events) this.queue.push(event);
    this.drain();
  }

  /** Begin again with `events`; what was open or selected stays so. */
  reset(events) {
    const before = this.fold;
    this.fold = new Fold();
    this.fold.was = before;
    this.queue = [];
    this.flattened = -1;
    this.push(events);
  }

  /**
   * Say what the Stop button does now; see panel.js. `hidden` takes it away, `stopping` that the run was told to
   * end, `deaf` that nothing can be said.
   */
  setStop({ label = "Stop", title = "", disabled = false, hidden = false, note = "", stopping = false, deaf = false } = {}) {
    this.stopping = stopping;
    put(this.stop, label);
    attribute(this.stop, "title", title || null);
    this.stop.disabled = disabled;
    this.stopHidden = hidden;
    put(this.stopNote, note);
    if (this.say) {
      this.say.disabled = deaf;
      this.say.placeholder = deaf ? "The kernel is busy with this cell and can't hear you" : SAY;
    }
    this.schedule();
  }

  dispose() {
    clearInterval(this.clock);
    cancelAnimationFrame(this.frame);
    clearTimeout(this.drainer);
    clearTimeout(this.later);
    this.sizes?.disconnect();
    this.element.remove();
  }

  running() {
    return this.fold.info !== null && this.fold.end === null;
  }

  drain() {
    clearTimeout(this.drainer);
    const start = performance.now();
    let at = 0;
    while (at < this.queue.length) {
      this.fold.take(this.queue[at]);
      at += 1;
      if (at % 64 === 0 && performance.now() - start > SLICE_MS) break;
    }
    this.queue = this.queue.slice(at);
    if (this.queue.length) this.drainer = setTimeout(() => this.drain(), 0);
    else this.restore();
    this.schedule();
  }

  restore() {
    const was = this.fold.was;
    if (!was) return;
    this.fold.was = null;
    for (const [id, node] of was.nodes) {
      const now = this.fold.nodes.get(id);
      if (now) now.open = node.open;
    }
    if (this.selected) this.selected = this.fold.nodes.get(this.selected.id) ?? null;
    this.flattened = -1;
  }

  schedule() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  // Elements

  build(element) {
    this.element = make("section", "rlm-panel", element);
    attribute(this.element, "aria-label", "run");
    // JupyterLab's own keys (d d deletes a cell) don't apply in here.
    attribute(this.element, "data-lm-suppress-shortcuts", "true");
    this.buildHeader();
    const tabs = make("div", "rlm-tabs", this.element);
    attribute(tabs, "role", "tablist");
    this.tabs = Object.entries({ tree: "Tree", flame: "Flame", code: "Code" }).map(([name, label], at, all) => {
      const tab = make("button", "rlm-tab", tabs, label);
      attribute(tab, "role", "tab");
      attribute(tab, "id", `${this.name}-${name}`);
      tab.addEventListener("click", () => this.show(name));
      tab.addEventListener("keydown", (event) => {
        if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
        const next = (at + (event.key === "ArrowLeft" ? all.length - 1 : 1)) % all.length;
        this.show(all[next][0]);
        this.tabs[next].focus();
      });
      return tab;
    });
    this.scales = make("div", "rlm-scales", tabs);
    for (const name of ["time", "cost"]) {
      const button = make("button", "rlm-scale", this.scales, `by ${name}`);
      button.dataset.scale = name;
      button.addEventListener("click", () => {
        this.scale = name;
        this.schedule();
      });
    }
    this.buildFilter(tabs);
    this.summary = make("span", "rlm-summary", tabs);
    this.body = make("div", "rlm-body", this.element);
    this.buildTree();
    this.buildFlame();
    this.buildCode();
    this.buildDetail();
    this.show("tree");
  }

  buildFilter(tabs) {
    this.filter = make("input", "rlm-filter", tabs);
    attribute(this.filter, "type", "search");
    attribute(this.filter, "aria-label", "filter the rows");
    this.filter.placeholder = "filter (/)";
    this.matches = make("span", "rlm-matches", tabs);
    attribute(this.matches, "role", "status");
    this.filter.addEventListener("input", () => this.search(this.filter.value));
    this.filter.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.unfilter();
      else if (event.key === "Enter" || event.key === "ArrowDown") {
        this.flatten();
        this.scroller.focus({ preventScroll: true });
        this.select(this.rows.find((node) => this.wanted.every((word) => searched(node).includes(word))));
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
      this.show("tree");
      this.filter.focus();
      this.filter.select();
      event.preventDefault();
      event.stopPropagation();
    });
  }

  search(text) {
    this.wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.flattened = -1;
    this.follow = false;
    this.scroller.scrollTop = 0;
    this.schedule();
  }

  unfilter() {
    this.filter.value = "";
    this.search("");
    if (this.selected) this.reveal(this.selected);
    this.scroller.focus({ preventScroll: true });
  }

  buildHeader() {
    const head = make("header", "rlm-head", this.element);
    const first = make("div", "rlm-line", head);
    this.state = make("span", "rlm-state", first);
    attribute(this.state, "role", "status");
    this.question = make("span", "rlm-question", first);
    this.stopNote = make("span", "rlm-stop-note", first);
    attribute(this.stopNote, "role", "status");
    this.stop = make("button", "rlm-stop", first, "Stop");
    this.stop.hidden = true;
    this.stop.addEventListener("click", () => this.host.onStop?.());
    const second = make("div", "rlm-line rlm-facts", head);
    this.facts = second;
    this.models = make("span", "rlm-fact rlm-models", second);
    this.kernel = make("span", "rlm-fact", second);
    this.elapsed = make("span", "rlm-fact rlm-number", second);
    this.money = make("span", "rlm-fact rlm-number", second);
    this.meter = make("span", "rlm-meter", this.money);
    this.meterBar = make("span", "rlm-meter-bar", this.meter);
    this.spent = make("span", "", this.money);
    this.answer = make("div", "rlm-answer", this.element);
    this.answer.hidden = true;
    this.reason = make("div", "rlm-reason", this.element);
    this.reason.hidden = true;
    if (this.host.onSay) {
      this.say = make("input", "rlm-say", this.element);
      this.say.placeholder = SAY;
      attribute(this.say, "aria-label", "say to the model");
      this.say.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || !this.say.value.trim()) return;
        this.host.onSay(this.say.value.trim());
        this.say.value = "";
      });
    }
  }

  buildTree() {
    this.left = make("div", "rlm-left", this.body);
    const head = make("div", "rlm-row rlm-columns", this.left);
    attribute(head, "aria-hidden", "true");
    for (const name of ["", "in", "out", "cached", "cost", "time"]) make("span", name ? "rlm-number" : "", head, name);
    this.timeline = make("span", "rlm-number", head, "");
    this.scroller = make("div", "rlm-tree", this.left);
    attribute(this.scroller, "role", "tree");
    attribute(this.scroller, "aria-label", "turns, cells and calls");
    this.scroller.tabIndex = 0;
    this.spacer = make("div", "rlm-spacer", this.scroller);
    attribute(this.spacer, "role", "presentation");
    this.scroller.addEventListener("scroll", () => {
      const left = this.scroller.scrollHeight - this.scroller.clientHeight - this.scroller.scrollTop;
      this.follow = left < ROW_PX && !this.selected;
      this.schedule();
    });
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.scroller.addEventListener("click", (event) => this.click(event));
    this.sizes = new ResizeObserver(() => this.schedule());
    this.sizes.observe(this.scroller);
  }

  buildDetail() {
    this.detail = make("div", "rlm-detail", this.body);
    attribute(this.detail, "role", "region");
    attribute(this.detail, "aria-label", "detail");
    this.detail.hidden = true;
    this.detail.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.closeDetail();
      event.stopPropagation();
    });
  }

  buildFlame() {
    this.flame = make("div", "rlm-flame", this.body);
    this.canvas = make("canvas", "", this.flame);
    attribute(this.canvas, "role", "img");
    this.tip = make("div", "rlm-tip", this.flame);
    this.tip.hidden = true;
    this.canvas.addEventListener("mousemove", (event) => this.hover(event));
    this.canvas.addEventListener("mouseleave", () => (this.tip.hidden = true));
    this.canvas.addEventListener("click", (event) => {
      const box = this.boxAt(event);
      if (box) this.openDetail(box.node);
    });
    this.sizes.observe(this.flame);
  }

  buildCode() {
    this.code = make("div", "rlm-code", this.body);
    const title = make("div", "rlm-section-title", this.code);
    this.codeNote = make("span", "rlm-section-note", title);
    const copy = make("button", "rlm-copy", title, "copy");
    attribute(copy, "aria-label", "copy the whole script");
    copy.addEventListener("click", () => copyText(this.script ?? "", this.codeText));
    this.codeText = make("div", "", this.code);
  }

  show(name) {
    this.tab = name;
    for (const tab of this.tabs) {
      const chosen = tab.id === `${this.name}-${name}`;
      attribute(tab, "aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
    }
    this.left.hidden = name !== "tree";
    this.flame.hidden = name !== "flame";
    this.scales.hidden = name !== "flame";
    this.code.hidden = name !== "code";
    this.filter.hidden = name !== "tree";
    this.matches.hidden = name !== "tree";
    this.schedule();
  }

  // Drawing

  draw() {
    this.drawHeader();
    if (this.tab === "tree") this.drawTree();
    else if (this.tab === "flame") this.drawFlame();
    else this.drawCode();
    this.drawDetail();
  }

  /** Return the time of the run's clock: that of the last event, and what has passed since it came. */
  clockNow() {
    if (!this.running()) return this.fold.end?.time ?? this.fold.now;
    return this.fold.now + (performance.now() - this.heard) / 1000;
  }

  stateNow() {
    const { info, end, paused } = this.fold;
    if (end) return end.status;
    if (!info) return "starting";
    if (this.stopping) return "stopping";
    return paused ? "paused" : "running";
  }

  drawHeader() {
    const { info, end, root } = this.fold;
    const state = this.stateNow();
    const { size } = this.fold.flying;
    attribute(this.element, "data-state", state);
    const flying = state === "stopping" && size ? `: ${count(size)} ${size === 1 ? "call" : "calls"} in flight` : "";
    put(this.state, `${WORDS[state] ?? state}${flying}`);
    put(this.question, info ? oneLine(info.query) : "");
    attribute(this.question, "title", info ? info.query.slice(0, TITLE_CHARS).replace(TURNS, "") : null);
    this.facts.style.visibility = info ? "" : "hidden";
    put(this.models, info ? oneLine(info.model === info.sub_model ? info.model : `${info.model} \u203a ${info.sub_model}`) : "");
    attribute(this.models, "title", info ? oneLine(`root model ${info.model}, sub-model ${info.sub_model}`) : null);
    put(this.kernel, info ? `${oneLine(info.repl)} kernel` : "");
    attribute(this.kernel, "title", this.fold.kernel || (info ? "the kernel is starting" : null));
    put(this.elapsed, info ? seconds(end?.seconds || this.clockNow() - root.began) : "");
    this.drawBudget();
    const sum = root.sum;
    const calls = `${count(sum.calls)} ${sum.calls === 1 ? "call" : "calls"}`;
    const cached = sum.cached ? ` (${share(sum)} cached)` : "";
    put(this.summary, info ? `${calls} \u00b7 ${count(sum.input)} in${cached} \u00b7 ${count(sum.output)} out` : "");
    this.stop.hidden = !this.host.onStop || !this.running() || Boolean(this.stopHidden);
    this.stopNote.hidden = this.stop.hidden;
    if (this.say) this.say.hidden = !this.running();
    if (end && this.ended !== end) this.drawEnd(end);
  }

  drawBudget() {
    const { info, root } = this.fold;
    const limits = info?.limits ?? {};
    const used = {
      usd: root.sum.cost,
      tokens: root.sum.input + root.sum.output,
      calls: root.sum.calls,
      seconds: info ? this.clockNow() - root.began : 0,
    };
    const caps = Object.keys(used).filter((name) => limits[name] > 0);
    const name = caps.sort((a, b) => used[b] / limits[b] - used[a] / limits[a])[0];
    let text = info ? cost(root.sum) : "";
    if (limits.usd > 0) text += ` / ${dollars(limits.usd)}`;
    if (name && name !== "usd") {
      const unit = name === "seconds" ? seconds(limits.seconds) : `${count(limits[name])} ${name}`;
      text += ` \u00b7 ${name === "seconds" ? "" : `${count(used[name])} `}of ${unit}`;
    }
    put(this.spent, text);
    this.meter.hidden = !name;
    if (!name) return;
    const part = Math.min(1, used[name] / limits[name]);
    this.meterBar.style.width = `${(100 * part).toFixed(1)}%`;
    attribute(this.meter, "data-level", part >= 1 ? "full" : part >= 0.8 ? "high" : "low");
    attribute(this.meter, "title", `${Math.round(100 * part)} % of the budget of ${name}`);
  }

  drawEnd(end) {
    this.ended = end;
    this.answer.replaceChildren();
    this.answer.hidden = !end.text;
    if (end.text) longText(this.answer, end.text, 1200, "rlm-answer-text");
    this.reason.hidden = !end.reason;
    this.reason.textContent = end.reason ?? "";
  }

  /** Bring the rows up to date, those of a filter a few times a second only: it reads every row's texts. */
  flatten() {
    const { fold } = this;
    const filtered = this.wanted.length > 0;
    const stale = this.flattened !== fold.structure || (filtered && this.matched !== fold.texts);
    const soon = filtered && this.flattened >= 0 && performance.now() - this.searched < MATCH_MS;
    if (!stale) return;
    if (soon) {
      this.later ??= setTimeout(() => {
        this.later = undefined;
        this.schedule();
      }, MATCH_MS);
      return;
    }
    this.flattened = fold.structure;
    if (filtered) {
      const { rows, found } = fold.matching(this.wanted);
      this.rows = rows;
      this.matched = fold.texts;
      this.searched = performance.now();
      put(this.matches, `${count(found)} of ${count(fold.nodes.size - 1)}`);
    } else {
      this.rows = fold.visible();
      put(this.matches, "");
    }
  }

  /** Return whether what is below a row is shown, null where there is nothing. */
  unfolded(node) {
    if (this.wanted.length) return node.below > 0 || null;
    return node.children.length ? node.open : null;
  }

  drawTree() {
    const { fold } = this;
    this.flatten();
    const wanted = Math.min(MAX_ROWS_SHOWN, Math.max(this.running() ? 5 : 1, this.rows.length)) * ROW_PX;
    // Growing only: what is below in the notebook must not jump back and forth.
    if (!(this.height >= wanted)) {
      this.height = wanted;
      this.scroller.style.height = `${wanted}px`;
    }
    const total = `${this.rows.length * ROW_PX}px`;
    if (this.spacer.style.height !== total) this.spacer.style.height = total;
    if (this.follow && this.running()) this.scroller.scrollTop = this.rows.length * ROW_PX;
    put(this.timeline, fold.info ? `0 \u2013 ${seconds(this.clockNow() - fold.root.began)}` : "");
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW_PX) - 2);
    const shown = Math.ceil((this.scroller.clientHeight || wanted) / ROW_PX) + 4;
    const last = Math.min(this.rows.length, first + shown);
    while (this.pool.length < last - first) this.pool.push(new Row(this.spacer));
    for (let at = 0; at < this.pool.length; at += 1) {
      const node = first + at < last ? this.rows[first + at] : null;
      this.pool[at].draw(node, first + at, this);
    }
    const active = this.selected && this.rows.includes(this.selected) ? `${this.name}-${this.selected.id}` : null;
    attribute(this.scroller, "aria-activedescendant", active);
  }

  // Selecting

  key(event) {
    this.flatten();
    const at = this.selected ? this.rows.indexOf(this.selected) : -1;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW_PX) - 1);
    const moves = { ArrowDown: at + 1, ArrowUp: at < 0 ? this.rows.length - 1 : at - 1, Home: 0, End: this.rows.length - 1,
      PageDown: at + page, PageUp: at - page };
    const node = this.selected;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const unfolded = node && this.unfolded(node);
    if (event.key in moves) this.select(this.rows[Math.max(0, Math.min(this.rows.length - 1, moves[event.key]))]);
    else if (event.key === "ArrowRight" && node) {
      if (unfolded === false) this.toggle(node);
      else if (unfolded) this.select(this.rows[at + 1]);
    } else if (event.key === "ArrowLeft" && node) {
      if (unfolded && !this.wanted.length) this.toggle(node);
      else if (node.parent !== this.fold.root) this.select(node.parent);
    } else if ((event.key === "Enter" || event.key === " ") && node) this.openDetail(node);
    else if (event.key === "Escape" && !this.detailed && this.wanted.length) this.unfilter();
    else if (event.key === "Escape") this.closeDetail();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  click(event) {
    const element = event.target.closest(".rlm-row");
    const node = element && this.fold.nodes.get(element.dataset.node);
    if (!node) return;
    if (event.target.classList.contains("rlm-twisty") && node.children.length && !this.wanted.length) {
      this.select(node);
      this.toggle(node);
    } else this.openDetail(node);
  }

  select(node) {
    if (!node) return;
    this.selected = node;
    this.follow = false;
    if (this.detailed) this.detailed = node.id;
    this.reveal(node);
    this.schedule();
  }

  reveal(node) {
    for (let each = node.parent; each && !this.wanted.length; each = each.parent) {
      if (!each.open) this.toggle(each);
    }
    this.flatten();
    this.spacer.style.height = `${this.rows.length * ROW_PX}px`;
    const top = Math.max(0, this.rows.indexOf(node)) * ROW_PX;
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (clientHeight && top + ROW_PX > scrollTop + clientHeight) this.scroller.scrollTop = top + ROW_PX - clientHeight;
  }

  toggle(node) {
    node.open = !node.open;
    this.fold.structure += 1;
    this.follow = false;
    this.schedule();
  }

  openDetail(node) {
    this.detailed = node.id;
    this.select(node);
  }

  closeDetail() {
    this.detailed = "";
    this.selected = null;
    this.scroller.focus({ preventScroll: true });
    this.schedule();
  }

  // Detail

  drawDetail() {
    const node = this.detailed ? this.fold.nodes.get(this.detailed) : null;
    this.detail.hidden = !node;
    if (!node) {
      this.detailKey = "";
      return;
    }
    const key = `${node.id} ${node.state} ${node.reply.length > 0}`;
    if (this.detailKey === key) return;
    const other = !this.detailKey || !this.detailKey.startsWith(`${node.id} `);
    this.detailKey = key;
    if (other) this.fillDetail(node, briefly(node), "");
    if (node.kind === "note" || node.kind === "batch" || !this.host.fetch) return;
    const waiting = setTimeout(() => {
      if (this.detailKey === key) put(this.detailNote, "the kernel is busy: the whole text comes when it can answer");
    }, 500);
    this.host.fetch(node.id).then(
      (events) => {
        clearTimeout(waiting);
        const found = sections(events);
        if (this.detailKey === key && found.length) this.fillDetail(node, found, "");
        else if (this.detailKey === key) put(this.detailNote, "no more of it is kept here");
      },
      (error) => {
        clearTimeout(waiting);
        if (this.detailKey === key) put(this.detailNote, String(error?.message ?? error));
      },
    );
  }

  fillDetail(node, found, note) {
    const scroll = this.detail.scrollTop;
    this.detail.replaceChildren();
    const head = make("div", "rlm-detail-head", this.detail);
    make("strong", "", head, node.label || "note");
    make("span", "rlm-detail-facts", head, facts(node));
    const all = make("button", "rlm-copy", head, "copy all");
    attribute(all, "aria-label", "copy everything of this row");
    const whole = found.map((each) => `[${each.title}]\n${each.text}`).join("\n\n");
    all.addEventListener("click", () => copyText(whole, this.detail));
    const close = make("button", "rlm-close", head, "\u00d7");
    attribute(close, "aria-label", "close the detail");
    close.addEventListener("click", () => this.closeDetail());
    this.detailNote = make("div", "rlm-detail-note", this.detail, note);
    for (const each of found) {
      const section = make("div", "rlm-section", this.detail);
      if (each.kind) section.dataset.kind = each.kind;
      const title = make("div", "rlm-section-title", section);
      make("span", "rlm-section-name", title, each.title);
      make("span", "rlm-section-note", title, each.note ?? "");
      const copy = make("button", "rlm-copy", title, "copy");
      attribute(copy, "aria-label", `copy the ${each.title}`);
      if (each.image) {
        const image = make("img", "rlm-image", section);
        image.src = each.image;
        image.alt = each.text;
      }
      const pre = longText(section, each.text, SHOWN_CHARS, "rlm-text");
      copy.addEventListener("click", () => copyText(each.text, pre));
    }
    this.detail.scrollTop = scroll;
  }

  // Code

  /** Show all code of the run as one script; of code that is long the events may have only the beginning. */
  drawCode() {
    const { cells, settled } = this.fold;
    const key = `${cells.length} ${settled} ${this.codes.size}`;
    if (this.codeKey === key) return;
    this.codeKey = key;
    const whole = script(cells, (cell) => this.codes.get(cell.id) ?? cell.code);
    const missing = this.host.fetch ? cells.filter((cell) => !this.codes.has(cell.id)) : [];
    const lost = cells.filter((cell) => this.codes.get(cell.id) === null).length;
    const facts = [`${count(cells.length)} ${cells.length === 1 ? "block" : "blocks"}`];
    if (missing.length) facts.push(`the whole of ${count(missing.length)} comes when the kernel can answer`);
    if (lost) facts.push(`of ${count(lost)} only the beginning is kept here`);
    put(this.codeNote, cells.length ? facts.join(", ") : "no code yet");
    if (this.script !== whole) {
      this.script = whole;
      const scroll = this.codeText.firstChild?.scrollTop ?? 0;
      this.codeText.replaceChildren();
      longText(this.codeText, whole, SHOWN_CHARS, "rlm-text").scrollTop = scroll;
    }
    if (missing.length && !this.fetching) this.fetchCode(missing);
  }

  async fetchCode(cells) {
    this.fetching = true;
    const queue = cells.values();
    const some = async () => {
      for (const cell of queue) {
        const found = sections(await this.host.fetch(cell.id).catch(() => []));
        this.codes.set(cell.id, found.find((each) => each.kind === "code")?.text ?? null);
        this.schedule();
      }
    };
    await Promise.all(Array.from({ length: FETCHES }, some));
    this.fetching = false;
    this.codeKey = "";
    this.schedule();
  }

  // Flame

  drawFlame() {
    for (const button of this.scales.children) {
      if (button.dataset.scale) attribute(button, "aria-pressed", button.dataset.scale === this.scale);
    }
    const width = this.flame.clientWidth;
    if (!width) return;
    // Laying out thousands of bars takes its time: while they move, a few times a second is enough.
    const key = `${this.scale} ${width} ${this.selected?.id} ${this.fold.end !== null}`;
    if (this.flameKey === key && performance.now() - this.flamed < 240) return;
    this.flameKey = key;
    this.flamed = performance.now();
    const layout = flameLayout(this.fold, this.scale, this.clockNow());
    const rowPx = layout.height > 24 ? Math.max(4, Math.floor(400 / layout.height)) : 17;
    const height = Math.max(1, layout.height) * rowPx + 18;
    const ratio = window.devicePixelRatio || 1;
    const { canvas } = this;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    this.boxes = layout.boxes.map((box) => ({
      ...box, x: box.x * width, w: Math.max(1, box.w * width), y: 18 + box.y * rowPx, h: rowPx - 1,
    }));
    const style = getComputedStyle(this.element);
    const paint = canvas.getContext("2d");
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.clearRect(0, 0, width, height);
    paint.font = `11px ${style.getPropertyValue("--rlm-font") || "sans-serif"}`;
    paint.textBaseline = "middle";
    this.paintAxis(paint, width, height, layout, style);
    const ink = style.getPropertyValue("--rlm-on-bar");
    for (const box of this.boxes) {
      paint.fillStyle = style.getPropertyValue(`--rlm-bar-${box.look}`);
      paint.fillRect(box.x, box.y, Math.max(1, box.w - (box.w > 3 ? 1 : 0)), box.h);
      if (box.node === this.selected) {
        paint.strokeStyle = style.getPropertyValue("--rlm-fg");
        paint.lineWidth = 2;
        paint.strokeRect(box.x + 1, box.y + 1, Math.max(1, box.w - 3), box.h - 2);
      }
      if (box.w > 24 && rowPx > 11) {
        paint.save();
        paint.beginPath();
        paint.rect(box.x + 4, box.y, box.w - 8, box.h);
        paint.clip();
        paint.fillStyle = ink;
        paint.fillText(box.label, box.x + 4, box.y + box.h / 2 + 0.5);
        paint.restore();
      }
    }
    const what = this.scale === "time" ? seconds(layout.total) : cost(this.fold.root.sum);
    attribute(canvas, "aria-label", `flame view by ${this.scale}: ${layout.boxes.length} bars, ${what} in all`);
  }

  paintAxis(paint, width, height, layout, style) {
    const step = niceStep(layout.total / Math.max(2, width / 110));
    paint.fillStyle = style.getPropertyValue("--rlm-muted");
    for (let value = 0; step > 0 && value <= layout.total; value += step) {
      const x = Math.round((value / layout.total) * width);
      paint.globalAlpha = 0.25;
      paint.fillRect(x, 14, 1, height);
      paint.globalAlpha = 1;
      const text = this.scale === "time" ? `${Number(value.toPrecision(3))} s` : `$${Number(value.toPrecision(3))}`;
      if (x < width - 40) paint.fillText(text, x + 3, 7);
    }
    if (!(layout.total > 0)) paint.fillText(this.scale === "cost" ? "no known cost yet" : "nothing yet", 3, 7);
  }

  boxAt(event) {
    const x = event.offsetX;
    const y = event.offsetY;
    return this.boxes?.findLast((box) => x >= box.x && x < box.x + box.w && y >= box.y && y < box.y + box.h);
  }

  hover(event) {
    const box = this.boxAt(event);
    this.tip.hidden = !box;
    if (!box) return;
    put(this.tip, `${box.node.label} ${box.part ?? ""} \u00b7 ${facts(box.node)}${box.node.text ? ` \u00b7 ${box.node.text.slice(0, 80)}` : ""}`);
    this.tip.style.left = `${Math.min(event.offsetX + 12, Math.max(0, this.flame.clientWidth - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${event.offsetY + 14}px`;
  }
}

// Rows ---------------------------------------------------------------------------------------------------

/** One row's elements, used again for whichever node is in sight. */
class Row {
  constructor(parent) {
    this.element = make("div", "rlm-row", parent);
    attribute(this.element, "role", "treeitem");
    const cell = make("span", "rlm-name", this.element);
    this.indent = make("span", "rlm-indent", cell);
    this.twisty = make("span", "rlm-twisty", cell);
    this.mark = make("span", "rlm-mark", cell);
    this.label = make("span", "rlm-label", cell);
    this.strip = make("canvas", "rlm-strip", cell);
    this.text = make("span", "rlm-preview", cell);
    this.value = make("span", "rlm-value", cell);
    [this.input, this.output, this.cached, this.cost, this.time] = [0, 1, 2, 3, 4].map(() =>
      make("span", "rlm-number", this.element),
    );
    this.line = make("span", "rlm-waterfall", this.element);
    this.bar = make("span", "rlm-bar", this.line);
  }

  draw(node, index, view) {
    const { element } = this;
    element.hidden = node === null;
    if (node === null) return;
    const top = `translateY(${index * ROW_PX}px)`;
    if (element.style.transform !== top) element.style.transform = top;
    element.dataset.node = node.id;
    element.dataset.kind = node.kind;
    element.dataset.state = node.state;
    element.dataset.failed = String(node.failed > 0);
    attribute(element, "id", `${view.name}-${node.id}`);
    attribute(element, "aria-level", node.level);
    attribute(element, "aria-posinset", node.place);
    attribute(element, "aria-setsize", node.places);
    const unfolded = view.unfolded(node);
    attribute(element, "aria-expanded", unfolded);
    attribute(element, "aria-selected", node === view.selected);
    this.indent.style.width = `${(node.level - 1) * 14}px`;
    put(this.twisty, unfolded === null ? "" : unfolded ? "\u25be" : "\u25b8");
    put(this.mark, MARKS[node.state] ?? "");
    attribute(this.mark, "title", node.state);
    put(this.label, node.kind === "batch" ? `${node.label} \u00d7 ${node.children.length}` : node.label);
    put(this.text, preview(node));
    this.text.dataset.live = String(Boolean(node.tail));
    put(this.value, outcome(node));
    attribute(element, "aria-label", spoken(node, view));
    this.drawNumbers(node, view);
    this.strip.hidden = node.kind !== "batch";
    if (node.kind === "batch") drawStrip(this.strip, node, view.element);
  }

  drawNumbers(node, view) {
    const { sum } = node;
    const some = sum.input + sum.output > 0;
    put(this.input, some ? count(sum.input) : "");
    put(this.output, some ? count(sum.output) : "");
    put(this.cached, some ? share(sum) : "");
    put(this.cost, some ? cost(sum) : "");
    const now = view.clockNow();
    const ended = node.ended || now;
    put(this.time, node.kind === "note" ? "" : seconds(ended - node.began));
    const all = Math.max(1e-6, now - view.fold.root.began);
    const from = Math.max(0, Math.min(1, (node.began - view.fold.root.began) / all));
    const part = Math.max(0, Math.min(1 - from, (ended - node.began) / all));
    this.bar.style.left = `${(from * 100).toFixed(2)}%`;
    this.bar.style.width = `max(2px, ${(part * 100).toFixed(2)}%)`;
  }
}

function preview(node) {
  if (node.tail) return `\u2026 ${node.tail.replace(TURNS, "").replace(/\s+/g, " ").slice(-120)}`;
  if (node.kind === "turn") return node.asking ? "thinking" : node.reply.split("```")[0];
  if (node.kind === "batch") return "";
  return node.text;
}

/** What came of a row: an error first. */
function outcome(node) {
  if (node.kind === "batch") {
    const failed = node.failed ? `, ${node.failed} failed` : "";
    if (node.done === node.children.length) return failed.slice(2);
    return `${node.done} of ${node.children.length} done${failed}`;
  }
  if (node.error && node.kind !== "note") return oneLine(node.error);
  if (node.kind === "cell") return node.value;
  return node.kind === "call" ? node.reply : "";
}

function spoken(node, view) {
  const text = [node.label, node.state === "note" ? "" : node.state, preview(node).slice(0, 100), outcome(node).slice(0, 100)];
  if (node.sum.input) text.push(`${node.sum.input} tokens in, ${node.sum.output} out, ${cost(node.sum)}`);
  if (node.kind !== "note") text.push(seconds((node.ended || view.clockNow()) - node.began));
  return text.filter(Boolean).join(", ");
}

function facts(node) {
  const { sum } = node;
  const out = [];
  if (node.state !== "note") out.push(node.state);
  if (node.model) out.push(node.model);
  if (sum.input + sum.output) {
    out.push(`${count(sum.input)} in${sum.cached ? ` (${share(sum)} cached)` : ""}`, `${count(sum.output)} out`, cost(sum));
  }
  if (node.ended && node.kind !== "note") out.push(seconds(node.ended - node.began));
  return out.join(" \u00b7 ");
}

/** What is known of a row before its whole events are here. */
function briefly(node) {
  const out = [];
  if (node.kind === "batch") {
    for (const each of node.children.filter((call) => call.state === "failed").slice(0, 20)) {
      out.push({ title: `error of call ${each.index}`, text: each.error, kind: "bad" });
    }
    if (!out.length) out.push({ title: "calls", text: outcome(node) });
    return out;
  }
  if (node.kind === "note") return [{ title: "note", text: node.brief }];
  if (node.text) out.push({ title: node.kind === "cell" ? "code" : "prompt", text: node.text, kind: node.kind === "cell" ? "code" : "" });
  if (node.error) out.push({ title: "error", text: node.error, kind: "bad" });
  else if (node.reply || node.value) out.push({ title: node.kind === "cell" ? "output" : "reply", text: node.reply || node.value });
  return out;
}

/** Draw a batch's calls side by side; where they outnumber the pixels, the worst of each column. */
function drawStrip(canvas, batch, panel) {
  const width = 160;
  const height = 10;
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== width * ratio) {
    canvas.width = width * ratio;
    canvas.height = height * ratio;
  }
  const size = Math.max(batch.children.length, ...batch.children.slice(-1).map((each) => each.index + 1));
  const columns = Math.min(size, width / 2);
  const order = ["queued", "done", "running", "cancelled", "failed"];
  const worst = new Array(columns).fill(0);
  for (const call of batch.children) {
    const at = Math.min(columns - 1, Math.floor((call.index * columns) / size));
    worst[at] = Math.max(worst[at], order.indexOf(call.state));
  }
  const style = getComputedStyle(panel);
  const colours = order.map((name) => style.getPropertyValue(`--rlm-strip-${name}`));
  const paint = canvas.getContext("2d");
  paint.setTransform(ratio, 0, 0, ratio, 0, 0);
  paint.clearRect(0, 0, width, height);
  const step = Math.min(8, width / columns);
  const gap = step >= 4 ? 1 : 0;
  worst.forEach((state, at) => {
    paint.fillStyle = colours[state];
    // A failed call is taller as well: colour alone doesn't tell everybody.
    const inset = state === 4 ? 0 : 2;
    paint.fillRect(at * step, inset, step - gap, height - 2 * inset);
  });
}

// Flame layout -------------------------------------------------------------------------------------------

/**
 * Return the bars of the flame view: x and w as parts of the whole, y and height in rows.
 *
 * By time a bar is as wide as its node took, and what ran at the same time lies in lanes below each other;
 * by cost it is as wide as what its node and all below cost, side by side.
 * @param {Fold} fold
 * @param {"time" | "cost"} scale
 * @param {number} now
 */
export function flameLayout(fold, scale, now) {
  const boxes = [];
  if (scale === "cost") {
    const total = fold.root.sum.cost;
    let height = 0;
    const place = (node, start, y) => {
      let at = start;
      for (const child of node.children) {
        const part = total ? child.sum.cost / total : 0;
        if (part > 0) {
          boxes.push({ node: child, x: at, w: part, y, look: look(child), label: child.label });
          height = Math.max(height, y + 1);
          place(child, at, y + 1);
          at += part;
        }
      }
    };
    place(fold.root, 0, 0);
    return { boxes, height, total };
  }
  const origin = fold.root.began;
  const total = Math.max(1e-6, now - origin);
  const bar = (node, began, ended, y, extra) => ({
    node, x: (began - origin) / total, w: (ended - began) / total, y, look: look(node), label: node.label, ...extra,
  });
  // Returns a node's bars, from row 0 on, and how many rows they take.
  const place = (node) => {
    const own = node === fold.root ? [] : [bar(node, node.began, node.ended || now, 0)];
    const top = own.length;
    const lanes = [];
    if (node.kind === "turn") {
      const asked = node.asked || now;
      own.push(bar(node, node.began, asked, top, { look: "model", label: node.model, part: node.model }));
      lanes.push(asked);
    }
    for (const child of node.children) {
      if (child.kind === "note") continue;
      const inner = place(child);
      const free = (at) => !(lanes[at] > child.began + 1e-4);
      let lane = 0;
      for (let found = 0; found < inner.height; found += 1) {
        if (free(lane + found)) continue;
        lane += found + 1;
        found = -1;
      }
      for (let each = lane; each < lane + inner.height; each += 1) lanes[each] = child.ended || now;
      for (const box of inner.boxes) {
        box.y += top + lane;
        own.push(box);
      }
    }
    return { boxes: own, height: top + lanes.length };
  };
  return { ...place(fold.root), total };
}

function look(node) {
  if (node.state === "failed") return "failed";
  if (node.kind === "call" && node.child) return "child";
  return node.kind;
}

function niceStep(value) {
  if (!(value > 0)) return 0;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value);
}

// Texts --------------------------------------------------------------------------------------------------

/** Put a text into a box, a long one only in part until it is asked for. */
function longText(parent, text, shown, className) {
  const pre = make("pre", className, parent, text.length > shown ? text.slice(0, shown) : text);
  if (text.length > shown) {
    const more = make("button", "rlm-more", parent, `show all ${text.length.toLocaleString("en")} characters`);
    more.addEventListener("click", () => {
      pre.textContent = text;
      more.remove();
    });
  }
  return pre;
}

function copyText(raw, pre) {
  const text = raw.replace(/\r\n?/g, "\n").replace(CONTROLS, "");
  const select = () => getSelection().selectAllChildren(pre);
  // Where a page has no clipboard, the text is at least selected.
  if (navigator.clipboard?.writeText) navigator.clipboard.writeText(text).catch(select);
  else select();
}
