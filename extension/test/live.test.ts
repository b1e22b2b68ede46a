import type { KernelMessage } from "@jupyterlab/services";
import { beforeEach, describe, expect, it } from "vitest";

import { LiveRuns, stop, type StoppingKernel } from "../src/live";

let live: LiveRuns;
let changes: number;

function iopub(
  type: string,
  content: object,
  parent: object = { msg_id: "e1", msg_type: "execute_request" },
): void {
  live.take({ channel: "iopub", header: { msg_type: type }, parent_header: parent, content } as never);
}

const started = { type: "run_started", run: "r", parent_run: null, query: "How many?" };
const snapshot = (events: object[] = []) => ({ number: 0, events });
const open = (state: object, comm = "c1") => {
  iopub("comm_open", { comm_id: comm, target_name: "jupyter.widget", data: { state } });
};
const update = (state: object, comm = "c1") => {
  iopub("comm_msg", { comm_id: comm, data: { method: "update", state } });
};

beforeEach(() => {
  live = new LiveRuns();
  changes = 0;
  live.changed.connect(() => (changes += 1));
});

describe("a live run", () => {
  it("is known by its panel's state, and followed to its end", () => {
    open({ _snapshot: snapshot([started]), status: "starting", cost_usd: 0 });
    expect(live.all()).toEqual([
      {
        ...{ comm: "c1", request: "e1", line: "" },
        summary: { question: "How many?", state: "starting", costUsd: 0 },
      },
    ]);
    update({ status: "running" });
    update({ cost_usd: 0.5 });
    update({ cost_usd: null });
    expect(live.get("c1")?.summary).toEqual({ question: "How many?", state: "running", costUsd: null });
    update({ status: "answered" });
    expect(live.get("c1")?.summary.state).toBe("answered");
    iopub("comm_close", { comm_id: "c1" });
    expect(live.all()).toEqual([]);
    expect(changes).toBe(6);
  });

  it("gets its question from its first events", () => {
    open({ _snapshot: snapshot(), status: "starting" });
    const child = { ...started, parent_run: "r", query: "A part?" };
    iopub("comm_msg", {
      comm_id: "c1",
      data: { method: "custom", content: { op: "events", events: [child] } },
    });
    expect(live.get("c1")?.summary.question).toBe("");
    iopub("comm_msg", {
      comm_id: "c1",
      data: { method: "custom", content: { op: "events", events: [started] } },
    });
    expect(live.get("c1")?.summary.question).toBe("How many?");
  });

  it("is adopted where its panel is older than the page", () => {
    update({ status: "running" }, "c9");
    expect(live.all()).toEqual([]);
    update({ _snapshot: snapshot([started]), status: "running" }, "c9");
    expect(live.get("c9")).toMatchObject({ request: "", summary: { question: "How many?" } });
  });

  it("is forgotten with its kernel", () => {
    open({ _snapshot: snapshot() });
    iopub("status", { execution_state: "restarting" }, {});
    expect(live.all()).toEqual([]);
  });
});

describe("what is no run", () => {
  it.each([
    ["another widget", { value: 3 }],
    ["a snapshot of something", { _snapshot: 3 }],
    ["one without events", { _snapshot: { number: 1, events: "x" } }],
  ])("is left alone: %s", (_, state) => {
    open(state);
    expect(live.all()).toEqual([]);
  });

  it("can't make the list long, nor its texts", () => {
    for (let at = 0; at < 300; at += 1) open({ _snapshot: snapshot() }, `c${at}`);
    expect(live.all()).toHaveLength(200);
    update({
      status: "x".repeat(1000),
      _snapshot: snapshot([{ ...started, query: "q".repeat(9000) }]),
      cost_usd: "1",
    });
    const { state, question, costUsd } = live.get("c1")?.summary ?? { state: "", question: "" };
    expect([state.length, question.length, costUsd]).toEqual([40, 1000, undefined]);
    iopub("comm_msg", { comm_id: {}, data: 3 });
    iopub("comm_open", {});
  });
});

describe("Stop", () => {
  const told = '{"comm_id":"c1","data":{"method":"custom","content":{"op":"stop"}}}';

  /** Stop the run in a kernel that is `status`, and that hears it or doesn't; return what the kernel was asked. */
  async function stopped(status: string, hears: boolean): Promise<string[]> {
    const asked: string[] = [];
    const kernel = {
      ...{ status, clientId: "me", username: "" },
      interrupt: () => Promise.resolve(void asked.push("interrupt")),
      sendShellMessage: (message: KernelMessage.IMessage) => {
        asked.push(JSON.stringify(message.content));
        if (hears)
          iopub("comm_msg", { comm_id: "c1", data: { method: "custom", content: { op: "stopping" } } });
      },
    } as unknown as StoppingKernel;
    const run = live.get("c1");
    if (run) await stop(kernel, live, run);
    return asked;
  }

  it("tells the run, and interrupts nothing where that is heard", async () => {
    iopub("status", { execution_state: "busy" });
    open({ _snapshot: snapshot() });
    expect(await stopped("busy", true)).toEqual([told]);
    expect(live.get("c1")?.summary.state).toBe("stopping");
  });

  it("interrupts the cell that waits for the run where it isn't", async () => {
    iopub("status", { execution_state: "busy" });
    open({ _snapshot: snapshot() });
    expect(await stopped("busy", false)).toEqual([told, "interrupt"]);
  });

  it("tells a run in a web page on its line, which is heard during a cell", async () => {
    const name = `rlm-${"0a".repeat(16)}`;
    const line = new BroadcastChannel(name);
    const heard: unknown[] = [];
    line.onmessage = (event: { data: unknown }) => {
      heard.push(event.data);
      iopub("comm_msg", { comm_id: "c1", data: { method: "custom", content: { op: "stopping" } } });
    };
    open({ _snapshot: snapshot(), _line: name });
    update({ status: "running", _line: "another page's" });
    expect(await stopped("busy", false)).toEqual([]);
    expect(heard).toEqual(['{"op":"stop"}']);
    line.close();
  });

  it("does not interrupt another cell, nor an idle kernel", async () => {
    iopub("status", { execution_state: "busy" });
    open({ _snapshot: snapshot() });
    iopub("status", { execution_state: "idle" });
    expect(await stopped("idle", false)).toEqual([told]);
    iopub("status", { execution_state: "busy" }, { msg_id: "e2", msg_type: "execute_request" });
    expect(await stopped("busy", false)).toEqual([told]);
  });

  it("interrupts a busy kernel where it isn't known which cell waits", async () => {
    update({ _snapshot: snapshot() });
    expect(await stopped("busy", false)).toEqual([told, "interrupt"]);
  });
});
