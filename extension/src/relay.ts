// Kernels of one notebook's kernel, and what goes to and fro between them: raw Jupyter messages.
//
// Kernels start one after the other: two Pyodides that boot at the same moment have crashed browsers. Nothing
// here reads what a message says, but for the type that a kernel can be sent.
import { decode, encode, MAX_LENGTH, VERSION } from "./protocol";
import type { JupyterMessage, Report, Request } from "./protocol";

/** A kernel as the relay needs it. */
export interface ReplKernel {
  readonly id: string;
  send(message: JupyterMessage): void;
  interrupt(): Promise<void>;
  restart(): Promise<void>;
  shutdown(): Promise<void>;
}

export interface Listener {
  deliver(message: JupyterMessage): void;
  ended(reason: string): void;
}

/** Starts a kernel, and resolves when it answers; rejects, and leaves nothing behind, once it is given up. */
export type Start = (listener: Listener, givenUp: AbortSignal) => Promise<ReplKernel>;

/** The part of a BroadcastChannel that is used. */
export interface Line {
  readonly name: string;
  postMessage(text: string): void;
  onmessage: ((event: MessageEvent) => void) | null;
  close(): void;
}

interface Kept {
  readonly starting: Promise<ReplKernel | undefined>;
  readonly giveUp: AbortController;
}

/** Carries out what one notebook's kernel asks for on `line`. */
export class Relay {
  constructor(line: Line, start: Start) {
    this.#line = line;
    this.#start = start;
    line.onmessage = (event) => {
      const request = decode(event.data);
      if (request) void this.#carryOut(request);
    };
    this.#tell({ op: "hello", version: VERSION });
  }

  get channel(): string {
    return this.#line.name;
  }

  /** End every kernel: whoever they belong to is gone. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#line.onmessage = null;
    this.#line.close();
    for (const name of [...this.#kernels.keys()]) void this.#shutdown(name);
  }

  async #carryOut(request: Request): Promise<void> {
    if (request.op === "hello") {
      this.#tell({ op: "hello", version: VERSION });
      return;
    }
    const { kernel: name } = request;
    if (request.op === "start") {
      this.#begin(name);
      return;
    }
    if (request.op === "shutdown") {
      await this.#shutdown(name);
      return;
    }
    const kernel = await this.#kernels.get(name)?.starting;
    if (!kernel) return;
    try {
      if (request.op === "send") kernel.send(request.message);
      else if (request.op === "interrupt") await kernel.interrupt();
      else {
        await kernel.restart();
        this.#tell({ op: "started", kernel: name, id: kernel.id });
      }
    } catch (error) {
      this.#end(name, `the page could not ${request.op}: ${String(error)}`);
    }
  }

  #begin(name: string): void {
    if (this.#kernels.has(name)) return;
    const giveUp = new AbortController();
    const starting = this.#turn.then(() => this.#started(name, giveUp.signal));
    this.#turn = starting;
    this.#kernels.set(name, { starting, giveUp });
  }

  async #started(name: string, givenUp: AbortSignal): Promise<ReplKernel | undefined> {
    // That may have happened while it waited for its turn.
    if (givenUp.aborted) return undefined;
    const listener = {
      deliver: (message: JupyterMessage) => {
        this.#deliver(name, message);
      },
      ended: (reason: string) => {
        this.#end(name, reason);
      },
    };
    try {
      const kernel = await this.#start(listener, givenUp);
      if (this.#kernels.has(name)) this.#tell({ op: "started", kernel: name, id: kernel.id });
      return kernel;
    } catch (error) {
      this.#end(name, `it could not be started: ${String(error)}`);
    }
    return undefined;
  }

  async #shutdown(name: string): Promise<void> {
    const kernel = this.#kernels.get(name);
    this.#kernels.delete(name);
    kernel?.giveUp.abort();
    // One that is gone already is as good.
    await (await kernel?.starting)?.shutdown().catch(() => undefined);
  }

  #deliver(name: string, message: JupyterMessage): void {
    if (!this.#kernels.has(name)) return;
    const text = encode({ op: "deliver", kernel: name, message });
    if (text.length <= MAX_LENGTH) this.#post(text);
    else this.#end(name, `it sent a message of ${text.length} characters`);
  }

  #end(name: string, reason: string): void {
    if (!this.#kernels.has(name)) return;
    this.#tell({ op: "ended", kernel: name, reason });
    void this.#shutdown(name);
  }

  #tell(report: Report): void {
    this.#post(encode(report));
  }

  #post(text: string): void {
    if (!this.#disposed) this.#line.postMessage(text);
  }

  readonly #line: Line;
  readonly #start: Start;
  readonly #kernels = new Map<string, Kept>();
  #turn: Promise<unknown> = Promise.resolve();
  #disposed = false;
}
