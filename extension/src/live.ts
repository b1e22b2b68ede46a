// The runs under way in one kernel, as the panels in its notebook hear of them.
//
// A panel (rlm_kernel/notebook/panel.py) is a widget with one comm; its messages pass by here as they pass by
// everybody who is connected to the kernel. So this needs no widget on the page, nothing of the kernel, and
// changes nothing. Whatever comes is a stranger's: it is looked at field by field, and kept short.
import { KernelMessage, type Kernel } from "@jupyterlab/services";
import { Signal, type ISignal } from "@lumino/signaling";

import { isFields, isUnderWay, knownEvents, type Fields, type Summary } from "./trace";

const MOST_RUNS = 200;
const QUESTION_CHARS = 1000;
const STATE_CHARS = 40;
const PATIENCE_MS = 700;
const LINE = /^rlm-[0-9a-f]{32}$/;

/** A run that a panel shows; `comm` is the panel's, which is also its model's id in the notebook. */
export interface LiveRun {
  readonly comm: string;
  /** The execute request in which the panel was made; empty where that was before this page was here. */
  readonly request: string;
  /** In JupyterLite the BroadcastChannel that its kernel hears during a cell; empty elsewhere. */
  readonly line: string;
  readonly summary: Summary;
}

export class LiveRuns {
  private readonly runs = new Map<string, LiveRun>();
  private readonly executing = new Set<string>();
  private readonly signal = new Signal<this, void>(this);

  /** Emitted when a run has come, changed or gone. */
  get changed(): ISignal<this, void> {
    return this.signal;
  }

  all(): readonly LiveRun[] {
    return [...this.runs.values()];
  }

  get(comm: string): LiveRun | undefined {
    return this.runs.get(comm);
  }

  /** Forget everything: the kernel is another one now. */
  clear(): void {
    this.executing.clear();
    if (!this.runs.size) return;
    this.runs.clear();
    this.signal.emit();
  }

  take(message: KernelMessage.IMessage): void {
    const content: unknown = message.content;
    if (!isFields(content)) return;
    const parent: Fields = isFields(message.parent_header) ? message.parent_header : {};
    const request = typeof parent.msg_id === "string" ? parent.msg_id : "";
    switch (message.header.msg_type) {
      case "status":
        if (content.execution_state === "busy" && parent.msg_type === "execute_request")
          this.executing.add(request);
        else if (content.execution_state === "idle") this.executing.delete(request);
        else if (content.execution_state === "restarting") this.clear();
        return;
      case "comm_open":
        this.state(content, request);
        return;
      case "comm_msg":
        this.heard(content);
        return;
      case "comm_close":
        if (typeof content.comm_id === "string" && this.runs.delete(content.comm_id)) this.signal.emit();
    }
  }

  /** Whether the cell that made the panel still runs; undefined where that was not seen. */
  inCell(run: LiveRun): boolean | undefined {
    return run.request ? this.executing.has(run.request) : undefined;
  }

  private heard(content: Fields): void {
    const data = isFields(content.data) ? content.data : {};
    if (data.method === "update") {
      this.state(content, "");
      return;
    }
    const run = typeof content.comm_id === "string" ? this.runs.get(content.comm_id) : undefined;
    if (!run || data.method !== "custom" || !isFields(data.content)) return;
    const said = data.content;
    if (said.op === "events" || said.op === "snapshot") {
      const question = questionOf(said.events);
      if (question) this.put({ ...run, summary: { ...run.summary, question } });
    } else if (said.op === "stopping" && isUnderWay(run.summary)) {
      this.put({ ...run, summary: { ...run.summary, state: "stopping" } });
    }
  }

  /** Take in a widget's state, or a part of it: a run's, if it is a panel that we know, or looks like one. */
  private state(content: Fields, request: string): void {
    const comm = content.comm_id;
    const data = isFields(content.data) ? content.data : {};
    if (typeof comm !== "string" || !isFields(data.state)) return;
    const { state } = data;
    const snapshot = isFields(state._snapshot) ? state._snapshot : undefined;
    const known = this.runs.get(comm);
    if (!known && !(snapshot && "number" in snapshot && Array.isArray(snapshot.events))) return;
    if (!known && this.runs.size >= MOST_RUNS) return;
    const before = known?.summary ?? { question: "", state: "running" };
    const cost = state.cost_usd;
    this.put({
      comm,
      request: known?.request ?? request,
      line: typeof state._line === "string" && LINE.test(state._line) ? state._line : (known?.line ?? ""),
      summary: {
        question: questionOf(snapshot?.events) || before.question,
        state: typeof state.status === "string" ? state.status.slice(0, STATE_CHARS) : before.state,
        costUsd: cost === null || (typeof cost === "number" && cost >= 0) ? cost : before.costUsd,
      },
    });
  }

  private put(run: LiveRun): void {
    this.runs.set(run.comm, run);
    this.signal.emit();
  }
}

function questionOf(events: unknown): string {
  if (!Array.isArray(events)) return "";
  const root = knownEvents(events).find((event) => event.type === "run_started" && !event.parent_run);
  return typeof root?.query === "string" ? root.query.slice(0, QUESTION_CHARS) : "";
}

/** What a run is stopped through. */
export type StoppingKernel = Pick<
  Kernel.IKernelConnection,
  "status" | "interrupt" | "sendShellMessage" | "clientId" | "username"
>;

/**
 * Stop `run`. It is told as its panel would tell it: through the panel's comm, or on its line; where the kernel doesn't hear that, since a cell keeps it
 * busy, the cell is interrupted, unless it is known to be another one than the run's.
 */
export async function stop(kernel: StoppingKernel, live: LiveRuns, run: LiveRun): Promise<void> {
  tell(kernel, run, { op: "stop" });
  // The kernel's status may be that of a subshell; that a request is being executed is certain.
  if (!(await heard(live, run)) && (live.inCell(run) ?? kernel.status === "busy")) await kernel.interrupt();
}

function tell(kernel: StoppingKernel, run: LiveRun, request: { op: string }): void {
  if (run.line) {
    const line = new BroadcastChannel(run.line);
    line.postMessage(JSON.stringify(request));
    line.close();
    return;
  }
  const message = KernelMessage.createMessage({
    msgType: "comm_msg",
    channel: "shell",
    session: kernel.clientId,
    username: kernel.username,
    content: { comm_id: run.comm, data: { method: "custom", content: request } },
  });
  kernel.sendShellMessage(message, false, true);
}

/** Wait for a sign that `run` has been told, for a while; return whether it came. */
function heard(live: LiveRuns, run: LiveRun): Promise<boolean> {
  return new Promise((resolve) => {
    const look = (last: boolean) => {
      const known = live.get(run.comm);
      const told = !known || known.summary.state === "stopping" || !isUnderWay(known.summary);
      if (!told && !last) return;
      clearTimeout(patience);
      live.changed.disconnect(onChange);
      resolve(told);
    };
    const onChange = () => {
      look(false);
    };
    const patience = setTimeout(look, PATIENCE_MS, true);
    live.changed.connect(onChange);
    look(false);
  });
}
