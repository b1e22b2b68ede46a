// What a run leaves behind, read: a bundle in a notebook's output, a `.rlm.json` file, a trajectory.
//
// Both forms are written by rlm_kernel/notebook/bundle.py and rlm_kernel/trace/jsonl.py, but what is opened
// here may come from anybody: nothing of it is used before its shape was looked at, and an event of a type
// that is not known never gets to the tree, which calls its methods by these names.
import { Fold, readTrajectory, type RunEvent } from "../../rlm_kernel/notebook/static/tree.js";

export const MIME_TYPE = "application/vnd.rlm.trace+json";
const VERSION = 1;
const QUESTION_CHARS = 1000;

/** What was written can't be shown; the message is for the person. */
export class TraceError extends Error {}

/** A run in a few words. `costUsd` is null where a price is unknown; what isn't known is undefined. */
export interface Summary {
  readonly question: string;
  readonly state: string;
  readonly costUsd?: number | null;
  readonly calls?: number;
  readonly seconds?: number;
}

const UNDER_WAY = new Set(["starting", "running", "paused", "stopping"]);

export function isUnderWay(summary: Summary): boolean {
  return UNDER_WAY.has(summary.state);
}

/** A trace: its lines, or the path of the file that has them, or why there are none. */
export interface Bundle {
  readonly summary: Summary;
  readonly lines?: readonly object[];
  readonly path?: string;
  readonly lost?: string;
}

/** A JSON object of which nothing is known yet. */
export type Fields = Readonly<Record<string, unknown>>;

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  return typeof value === "string" ? value.slice(0, QUESTION_CHARS) : "";
}

function amount(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined;
}

function money(value: unknown): number | null | undefined {
  return value === null ? null : amount(typeof value === "string" ? Number(value) : value);
}

/** Return the bundle that `value` is. */
export function readBundle(value: unknown): Bundle {
  if (!isFields(value)) throw new TraceError("This is no trace of a run.");
  if (value.version !== VERSION) {
    throw new TraceError(
      `The trace has version ${JSON.stringify(value.version) || "none"}; this page knows ${VERSION}.`,
    );
  }
  const given = isFields(value.summary) ? value.summary : {};
  const summary: Summary = {
    question: text(given.question),
    state: text(given.status),
    costUsd: money(given.cost_usd),
    calls: amount(given.calls),
    seconds: amount(given.seconds),
  };
  if (Array.isArray(value.lines)) return { summary, lines: value.lines.filter(isFields) };
  if (typeof value.path === "string") return { summary, path: value.path };
  return { summary, lost: text(value.lost) || "the trace holds neither its lines nor where they are" };
}

/** Return the lines of a trajectory. A last line that was cut off, as when a kernel dies, is left out. */
export function readLines(trajectory: string): object[] {
  const lines: object[] = [];
  const texts = trajectory.split("\n").filter((line) => line.trim());
  texts.forEach((line, at) => {
    try {
      const value: unknown = JSON.parse(line);
      if (!isFields(value)) throw new SyntaxError("not an object");
      lines.push(value);
    } catch {
      if (at !== texts.length - 1) throw new TraceError(`Line ${at + 1} of the trajectory can't be read.`);
    }
  });
  return lines;
}

/** Return what a file holds: a bundle (`.rlm.json`) or a trajectory (`.jsonl`). */
export function readFile(content: string): Bundle {
  if (!content.trim()) throw new TraceError("The file is empty.");
  let whole: unknown;
  try {
    whole = JSON.parse(content);
  } catch {
    whole = undefined;
  }
  if (isFields(whole) && whole.type === undefined) return readBundle(whole);
  const lines = readLines(content);
  return { summary: summarise(eventsOf(lines)), lines };
}

const TYPES = new Set([
  ...["run_started", "kernel_started", "kernel_lost", "notice", "compacted", "call_started", "call_delta"],
  ...["call_finished", "cell_started", "cell_output", "cell_finished", "message_added", "run_finished"],
]);

/** Return the events in a trajectory's lines, those that the tree knows. */
export function eventsOf(lines: readonly object[]): RunEvent[] {
  let events: RunEvent[];
  try {
    events = readTrajectory(lines);
  } catch {
    throw new TraceError("The trajectory's texts can't be put together.");
  }
  const known = knownEvents(events);
  if (!known.every(isShaped)) throw new TraceError("The trace's events are not those of a run.");
  if (!known.some((event) => event.type === "run_started"))
    throw new TraceError("No run has begun in this trace.");
  return known;
}

export function knownEvents(events: readonly unknown[]): RunEvent[] {
  return events.filter(
    (event): event is RunEvent => isFields(event) && typeof event.type === "string" && TYPES.has(event.type),
  );
}

const NUMBERS = ["time", "seconds", "turn", "block", "depth", "index", "tokens", "attempts"];
const WORDS = [
  ...[
    "run",
    "call",
    "cell",
    "batch",
    "kind",
    "query",
    "model",
    "sub_model",
    "repl",
    "text",
    "tail",
    "reason",
  ],
  ...["error", "status", "state", "cause", "variable", "code", "lost", "tool", "backend", "implementation"],
  ...["parent_run", "parent_call", "finish_reason"],
];
const INSIDE = ["name", "type", "unit", "description", "kind", "text", "value", "role"];
// What the tree can't do without: events leave out what has its default, and these have none.
const NEEDED: Readonly<Record<string, readonly string[]>> = {
  run_started: ["run", "query", "model", "sub_model", "repl"],
  kernel_started: ["backend", "implementation", "seconds"],
  call_started: ["call", "kind", "model"],
  cell_started: ["cell", "code"],
  cell_finished: ["status"],
  message_added: ["message"],
  run_finished: ["status"],
};

const isText = (value: unknown) => value === undefined || value === null || typeof value === "string";
const isNumber = (value: unknown) => value === undefined || value === null || Number.isFinite(value);
const isPrice = (value: unknown) => isNumber(value) || (typeof value === "string" && isNumber(Number(value)));

/** Whether all of `value`, a list if it is there, are objects whose texts are texts. */
function areParts(value: unknown): boolean {
  return (
    value === undefined ||
    (Array.isArray(value) &&
      value.every((each) => isFields(each) && INSIDE.every((name) => isText(each[name]))))
  );
}

function isMessage(value: unknown): boolean {
  return isFields(value) && isText(value.role) && (isText(value.content) || areParts(value.content));
}

/** Whether the fields that the tree uses are of the kinds that rlm_kernel/events.py gives them. */
function isShaped(event: RunEvent): boolean {
  const { usage, limits, messages, outputs } = event;
  return (
    NUMBERS.every((name) => isNumber(event[name])) &&
    WORDS.every((name) => isText(event[name])) &&
    (NEEDED[event.type] ?? []).every((name) => event[name] !== undefined && event[name] !== null) &&
    [usage, limits].every(
      (each) => each === undefined || (isFields(each) && Object.values(each).every(isPrice)),
    ) &&
    (messages === undefined || (Array.isArray(messages) && messages.every(isMessage))) &&
    (event.message === undefined || isMessage(event.message)) &&
    areParts(event.contexts) &&
    areParts(outputs) &&
    ((outputs ?? []) as Fields[]).every((each) => isData(each.data) && isNumber(each.dropped))
  );
}

function isData(value: unknown): boolean {
  return value === undefined || value === null || (isFields(value) && Object.values(value).every(isText));
}

/** Return what a run's events come to. One without an end was cut off, or is under way elsewhere. */
export function summarise(events: readonly RunEvent[]): Summary {
  const fold = new Fold();
  try {
    for (const event of events) fold.take(event);
  } catch {
    throw new TraceError("The trace's events are not those of a run.");
  }
  const { sum } = fold.root;
  return {
    question: text(fold.info?.query),
    state: text(fold.end?.status) || "unfinished",
    costUsd: sum.unknown ? null : sum.cost,
    calls: sum.calls,
    seconds: amount(fold.end?.seconds),
  };
}
