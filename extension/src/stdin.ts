// `input()` of the kernels that run model-written code: each has a line of its own.
//
// A Pyodide worker waits in a synchronous request to the service worker, which passes it on to the page by a
// BroadcastChannel and waits for what comes back under the same context id. JupyterLite gives all kernels of a
// page one id and keeps one answer for all, so that two that wait at once get each other's, or none. Here every
// kernel has an id of its own, which nobody but this class answers; nor does anybody answer its requests for
// files.
import { isObject } from "./protocol";
import type { JupyterMessage } from "./protocol";

/** The channel between JupyterLite's service worker and its pages. */
const SERVICE_WORKER = "/sw-api.v1";

type Answer = (reply: JupyterMessage) => void;
export type OnInput = (request: JupyterMessage, answer: Answer) => void;

/** The part of a BroadcastChannel that is used. */
export interface ServiceWorkerLine {
  postMessage(message: unknown): void;
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
}

export class Stdin {
  constructor(line: ServiceWorkerLine = new BroadcastChannel(SERVICE_WORKER)) {
    this.#line = line;
    line.addEventListener("message", (event) => {
      this.#take(event.data);
    });
  }

  /** Make an id for a kernel's worker, whose requests go to `onInput` from now on. */
  open(onInput: OnInput): string {
    const context = crypto.randomUUID();
    this.#open.set(context, onInput);
    return context;
  }

  close(context: string): void {
    this.#open.delete(context);
  }

  #take(data: unknown): void {
    if (!isObject(data) || typeof data.browsingContextId !== "string" || "response" in data) return;
    const onInput = this.#open.get(data.browsingContextId);
    if (!onInput || !String(data.pathname).includes("/api/stdin/") || !isObject(data.data)) return;
    const { browsingContextId, requestId } = data;
    onInput(data.data as unknown as JupyterMessage, (response) => {
      this.#line.postMessage({ response, browsingContextId, requestId });
    });
  }

  readonly #line: ServiceWorkerLine;
  readonly #open = new Map<string, OnInput>();
}
