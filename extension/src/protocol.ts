// What the bridge and the notebook's kernel say to each other: JSON texts on a BroadcastChannel.
//
// The channel's name is random and known to these two. Both sides post on it, so every message says to whom it
// goes. Within `deliver` and `send` Jupyter messages travel as they are. Of the kernel's side there is
// `rlm_kernel/repl/lite/protocol.py`, which speaks the same version.

export const VERSION = 1;

/** The comm target by which a kernel asks for a bridge; its data are `{ version, channel }`. */
export const TARGET = "rlm.bridge";

/** The kernelspec of the kernels that run model-written code. */
export const REPL_KERNEL = "rlm-repl";

/** A longer one is not relayed: a kernel that floods must not take the page with it. In UTF-16 units. */
export const MAX_LENGTH = 80_000_000;

export type Channel = "shell" | "iopub" | "stdin" | "control";

/** A Jupyter message without buffers. */
export interface JupyterMessage {
  channel: Channel;
  header: { msg_id: string; msg_type: string } & Record<string, unknown>;
  parent_header: Record<string, unknown>;
  metadata: Record<string, unknown>;
  content: Record<string, unknown>;
}

/** What the notebook's kernel asks for. `kernel` is the name that it has given the kernel. */
export type Request =
  | { op: "hello" }
  | { op: "start" | "interrupt" | "restart" | "shutdown"; kernel: string }
  | { op: "send"; kernel: string; message: JupyterMessage };

/** What it is told. `ended` comes once; `started` again after each restart. */
export type Report =
  | { op: "hello"; version: number }
  | { op: "started"; kernel: string; id: string }
  | { op: "ended"; kernel: string; reason: string }
  | { op: "deliver"; kernel: string; message: JupyterMessage };

export function encode(report: Report): string {
  return JSON.stringify({ rlm: VERSION, to: "kernel", ...report });
}

/** The request in a text from the channel; undefined for our own posts, and for what is no request. */
export function decode(text: unknown): Request | undefined {
  if (typeof text !== "string") return undefined;
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(data) || data.rlm !== VERSION || data.to !== "page") return undefined;
  if (data.op === "hello") return { op: "hello" };
  if (typeof data.kernel !== "string" || !data.kernel) return undefined;
  const kernel = data.kernel;
  switch (data.op) {
    case "start":
    case "interrupt":
    case "restart":
    case "shutdown":
      return { op: data.op, kernel };
    case "send":
      return isMessage(data.message) ? { op: "send", kernel, message: data.message } : undefined;
    default:
      return undefined;
  }
}

const CHANNELS: readonly unknown[] = ["shell", "stdin", "control"];

function isMessage(value: unknown): value is JupyterMessage {
  return (
    isObject(value) &&
    CHANNELS.includes(value.channel) &&
    isObject(value.header) &&
    typeof value.header.msg_id === "string" &&
    typeof value.header.msg_type === "string" &&
    isObject(value.parent_header) &&
    isObject(value.metadata) &&
    isObject(value.content)
  );
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
