import { beforeEach, describe, expect, it } from "vitest";

import { MAX_LENGTH, VERSION } from "../src/protocol";
import type { JupyterMessage } from "../src/protocol";
import { Relay, type Line, type Listener, type ReplKernel } from "../src/relay";

class FakeLine implements Line {
  readonly name = "line";
  readonly told: { op: string; kernel?: string; reason?: string; message?: JupyterMessage }[] = [];
  onmessage: ((event: MessageEvent) => void) | null = null;
  closed = false;
  postMessage(text: string): void {
    const { rlm, to, ...report } = JSON.parse(text) as { rlm: number; to: string; op: string };
    expect([rlm, to]).toEqual([VERSION, "kernel"]);
    this.told.push(report);
  }
  close(): void {
    this.closed = true;
  }
  ask(op: string, kernel?: string, more: object = {}): void {
    const data = JSON.stringify({ rlm: VERSION, to: "page", op, kernel, ...more });
    this.onmessage?.({ data } as MessageEvent);
  }
}

class FakeKernel implements ReplKernel {
  readonly done: string[] = [];
  constructor(
    readonly id: string,
    readonly listener: Listener,
  ) {}
  send(message: JupyterMessage): void {
    if (message.content.fail) throw new Error("no such channel");
    this.done.push(message.header.msg_id);
  }
  #do(what: string): Promise<void> {
    this.done.push(what);
    return Promise.resolve();
  }
  interrupt = () => this.#do("interrupt");
  restart = () => this.#do("restart");
  shutdown = () => this.#do("shutdown");
}

let line: FakeLine;
let relay: Relay;
let kernels: FakeKernel[];
let boots: { ready: (error?: Error) => void; givenUp: AbortSignal }[];
const settled = () => new Promise((resolve) => setTimeout(resolve));
const ops = () => line.told.map(({ op, kernel }) => [op, kernel].filter(Boolean).join(" "));
const message = (id: string, content = {}): JupyterMessage => ({
  channel: "shell",
  header: { msg_id: id, msg_type: "execute_request" },
  parent_header: {},
  metadata: {},
  content,
});

beforeEach(() => {
  line = new FakeLine();
  kernels = [];
  boots = [];
  relay = new Relay(
    line,
    (listener, givenUp) =>
      new Promise((resolve, reject) => {
        givenUp.addEventListener("abort", () => {
          reject(new Error("given up"));
        });
        const ready = (error?: Error) => {
          const kernel = new FakeKernel(`id-${kernels.length}`, listener);
          if (error) reject(error);
          else {
            kernels.push(kernel);
            resolve(kernel);
          }
        };
        boots.push({ ready, givenUp });
      }),
  );
});

describe("a relay", () => {
  it("says hello at once, and whenever it is asked", async () => {
    line.ask("hello");
    await settled();
    expect(ops()).toEqual(["hello", "hello"]);
  });

  it("starts kernels one after the other", async () => {
    line.ask("start", "a");
    line.ask("start", "b");
    line.ask("start", "a");
    await settled();
    expect(boots).toHaveLength(1);
    boots[0]?.ready();
    await settled();
    expect(boots).toHaveLength(2);
    boots[1]?.ready();
    await settled();
    expect(ops()).toEqual(["hello", "started a", "started b"]);
  });

  it("passes messages to and fro, in order, also those that come while the kernel starts", async () => {
    line.ask("start", "a");
    line.ask("send", "a", { message: message("1") });
    line.ask("send", "a", { message: message("2") });
    await settled();
    boots[0]?.ready();
    await settled();
    line.ask("interrupt", "a");
    line.ask("send", "a", { message: message("3") });
    await settled();
    expect(kernels[0]?.done).toEqual(["1", "2", "interrupt", "3"]);
    kernels[0]?.listener.deliver(message("4"));
    expect(line.told.at(-1)).toEqual({ op: "deliver", kernel: "a", message: message("4") });
  });

  it("tells of a restart when the kernel answers again", async () => {
    line.ask("start", "a");
    await settled();
    boots[0]?.ready();
    await settled();
    line.ask("restart", "a");
    await settled();
    expect(kernels[0]?.done).toEqual(["restart"]);
    expect(ops()).toEqual(["hello", "started a", "started a"]);
  });

  it("tells once that a kernel has ended, and nothing after it", async () => {
    line.ask("start", "a");
    await settled();
    boots[0]?.ready();
    await settled();
    const listener = kernels[0]?.listener;
    listener?.ended("it was shut down");
    listener?.ended("again");
    listener?.deliver(message("late"));
    line.ask("send", "a", { message: message("late") });
    await settled();
    expect(line.told.slice(2)).toEqual([{ op: "ended", kernel: "a", reason: "it was shut down" }]);
    expect(kernels[0]?.done).toEqual(["shutdown"]);
  });

  it("tells why one does not start, and starts the next", async () => {
    line.ask("start", "a");
    line.ask("start", "b");
    await settled();
    boots[0]?.ready(new Error("no memory"));
    await settled();
    expect(line.told.at(-1)?.reason).toContain("no memory");
    boots[1]?.ready();
    await settled();
    expect(ops()).toEqual(["hello", "ended a", "started b"]);
  });

  it("gives up one that is still starting, or waits for its turn", async () => {
    line.ask("start", "a");
    line.ask("start", "b");
    line.ask("start", "c");
    await settled();
    line.ask("shutdown", "b");
    line.ask("shutdown", "a");
    await settled();
    expect(boots[0]?.givenUp.aborted).toBe(true);
    expect(boots).toHaveLength(2);
    boots[1]?.ready();
    await settled();
    expect(ops()).toEqual(["hello", "started c"]);
  });

  it("ends a kernel that can't be sent a message, or sends one that is too long", async () => {
    line.ask("start", "a");
    line.ask("start", "b");
    await settled();
    boots[0]?.ready();
    await settled();
    boots[1]?.ready();
    await settled();
    line.ask("send", "a", { message: message("1", { fail: true }) });
    kernels[1]?.listener.deliver(message("x", { text: "x".repeat(MAX_LENGTH) }));
    await settled();
    expect(ops().slice(3)).toEqual(["ended b", "ended a"]);
  });

  it("takes its kernels along when it goes", async () => {
    line.ask("start", "a");
    await settled();
    boots[0]?.ready();
    await settled();
    relay.dispose();
    relay.dispose();
    await settled();
    expect(kernels[0]?.done).toEqual(["shutdown"]);
    expect(line.closed).toBe(true);
    kernels[0]?.listener.deliver(message("late"));
    expect(ops()).toEqual(["hello", "started a"]);
  });
});
