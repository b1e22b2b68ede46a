// The notebook's widget around tree.js: messages of the panel's comm in, requests out.
//
// Python puts tree.js in the place of the import below, since a widget is one file to the notebook. Batches
// of events are numbered; a gap (servers drop messages, a module loads late) asks for everything anew, and
// until something of ours is answered the kernel sends everything anew by itself, in the model's state.
import { mount } from "./tree.js";

const PING_MS = 2000;
const PATIENCE_MS = 700;
const STOP_MS = 3000;

const BUSY = "The kernel is busy with a cell and can't hear the panel.";

/** One model's events and its line to the kernel; views of it come and go. */
class Feed {
  constructor(model) {
    this.model = model;
    this.views = new Set();
    this.events = [];
    this.number = -1;
    this.over = false;
    this.reached = null; // whether the kernel hears us; null until that is known
    this.stopping = false;
    this.waiting = new Map();
    this.asked = 0;
    this.onMessage = (message) => this.message(message);
    this.onSnapshot = () => this.snapshot(model.get("_snapshot"));
    model.on("msg:custom", this.onMessage);
    model.on("change:_snapshot", this.onSnapshot);
    this.onSnapshot();
    this.ping();
    this.timer = setInterval(() => this.beat(), PING_MS);
  }

  dispose() {
    clearInterval(this.timer);
    clearTimeout(this.patience);
    clearTimeout(this.returning);
    this.line?.close();
    this.model.off("msg:custom", this.onMessage);
    this.model.off("change:_snapshot", this.onSnapshot);
  }

  /** Send to the kernel: by the comm or, in JupyterLite, where a busy kernel is given no comm message, past it. */
  send(message) {
    const name = this.model.get("_line");
    if (!name) this.model.send(message);
    else {
      this.line ??= new BroadcastChannel(name);
      this.line.postMessage(JSON.stringify(message));
    }
  }

  message(message) {
    if (message.op === "events") this.batch(message);
    else if (message.op === "snapshot") this.snapshot(message);
    else if (message.op === "pong") this.heard();
    else if (message.op === "stopping") this.stopped();
    else if (message.op === "detail") {
      this.waiting.get(message.ask)?.(message.events);
      this.waiting.delete(message.ask);
    }
  }

  batch({ number, events }) {
    if (number <= this.number) return;
    if (number !== this.number + 1) {
      if (!this.resyncing) this.send({ op: "resync" });
      this.resyncing = true;
      return;
    }
    this.number = number;
    this.take(events);
    for (const view of this.views) view.push(events);
  }

  snapshot(state) {
    if (!state || !(state.number > this.number)) return;
    this.resyncing = false;
    this.number = state.number;
    this.events = [];
    this.take(state.events);
    for (const view of this.views) view.reset(this.events);
  }

  take(events) {
    for (const event of events) {
      this.events.push(event);
      if (event.type === "run_started" && !event.parent_run) this.root = event.run;
      if (event.type === "run_finished" && event.run === this.root) this.over = true;
    }
    if (this.over) clearInterval(this.timer);
  }

  // Whether a message gets through is found out by sending one: it depends on the cell that runs.

  beat() {
    if (!this.pinged && !this.over && this.model.get("_can_stop")) this.ping();
  }

  ping() {
    this.pinged = performance.now();
    this.send({ op: "ping" });
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.unheard(), PATIENCE_MS);
  }

  heard() {
    this.pinged = 0;
    clearTimeout(this.patience);
    this.reached = true;
    this.showStop();
  }

  unheard() {
    this.reached = false;
    this.showStop();
  }

  /** The kernel that the notebook is connected to, where the widget's manager tells. */
  kernel() {
    const kernel = this.model.widget_manager?.kernel;
    return typeof kernel?.interrupt === "function" ? kernel : null;
  }

  stop() {
    if (this.reached) {
      this.send({ op: "stop" });
      this.stopping = true;
      clearTimeout(this.patience);
      this.patience = setTimeout(() => {
        this.stopping = false;
        this.unheard();
      }, 2 * PATIENCE_MS);
    } else {
      this.stopping = true;
      this.again();
      this.kernel()?.interrupt();
    }
    this.showStop();
  }

  /** The run was told to stop; one that goes on nevertheless gets its button back. */
  stopped() {
    clearTimeout(this.patience);
    this.stopping = true;
    this.again();
    this.showStop();
  }

  again() {
    clearTimeout(this.returning);
    this.returning = setTimeout(() => {
      this.stopping = false;
      this.showStop();
    }, STOP_MS);
  }

  showStop() {
    let state;
    if (!this.model.get("_can_stop")) state = { hidden: true };
    else if (this.stopping) state = { label: "Stopping", disabled: true, stopping: true };
    else if (this.reached === null) state = { disabled: true };
    else if (this.reached) state = { title: "stop this run; what it has found so far is kept" };
    else if (this.kernel()) {
      state = { label: "Interrupt kernel", title: `${BUSY} This interrupts it, as the toolbar's stop button does.` };
    } else {
      const note = "kernel busy: use the notebook's stop button (or press I, I)";
      state = { disabled: true, title: BUSY, note };
    }
    for (const view of this.views) view.setStop({ ...state, deaf: this.reached === false });
  }

  fetch(id) {
    this.asked += 1;
    const ask = this.asked;
    return new Promise((resolve) => {
      this.waiting.set(ask, resolve);
      this.send({ op: "detail", ask, id });
    });
  }
}

// The widget's two hooks are given different objects for one model; the panel names itself in its state.
const feeds = new Map();

function feedOf(model) {
  const name = model.get("_name");
  if (!feeds.has(name)) feeds.set(name, new Feed(model));
  return feeds.get(name);
}

export default {
  initialize({ model }) {
    const feed = feedOf(model);
    return () => {
      feed.dispose();
      feeds.delete(model.get("_name"));
    };
  },
  render({ model, el }) {
    const feed = feedOf(model);
    const host = { fetch: (id) => feed.fetch(id), onStop: () => feed.stop() };
    if (model.get("_can_say")) host.onSay = (text) => feed.send({ op: "say", text });
    const view = mount(el, host);
    feed.views.add(view);
    view.reset(feed.events);
    feed.showStop();
    return () => {
      feed.views.delete(view);
      view.dispose();
    };
  },
};
