import { Signal } from "@lumino/signaling";
import { beforeEach, describe, expect, it } from "vitest";

import { startKernel } from "../src/connected";
import type { JupyterMessage } from "../src/protocol";
import type { Watcher } from "../src/replkernel";

let connection: ReturnType<typeof fakeConnection>;
let watchers: Map<string, Watcher>;
let heard: string[];
let answered: () => void;

function fakeConnection() {
  const sender = {};
  const done: [string, unknown][] = [];
  return {
    sender,
    done,
    id: "k1",
    clientId: "client",
    info: new Promise<void>((resolve) => (answered = resolve)),
    anyMessage: new Signal<object, unknown>(sender),
    statusChanged: new Signal<object, string>(sender),
    sendShellMessage: (message: { header: { msg_id: string; session: string } }) =>
      done.push(["shell", `${message.header.msg_id} of ${message.header.session}`]),
    sendInputReply: (content: unknown, parent: unknown) => done.push(["reply", { content, parent }]),
    interrupt: () => Promise.resolve(void done.push(["interrupt", null])),
    restart: () => Promise.resolve(void done.push(["restart", null])),
    shutdown: () => Promise.resolve(void done.push(["shutdown", null])),
    dispose: () => done.push(["dispose", null]),
  };
}

const message = (channel: string, type: string, more: object = {}) =>
  ({
    ...{ channel, header: { msg_id: "m1", msg_type: type }, parent_header: {}, metadata: {}, content: {} },
    ...more,
  }) as JupyterMessage;

function start(givenUp = new AbortController()) {
  return startKernel(
    { startNew: () => Promise.resolve(connection) } as never,
    { watch: (id, watcher) => watchers.set(id, watcher), unwatch: (id) => watchers.delete(id) },
    {
      deliver: (each) => heard.push(`${each.channel} ${each.header.msg_type}`),
      ended: (reason) => heard.push(reason),
    },
    givenUp.signal,
  );
}

beforeEach(() => {
  watchers = new Map();
  heard = [];
  connection = fakeConnection();
});

describe("a kernel of the page", () => {
  it("is there once it answers, and is sent messages under the page's own session", async () => {
    answered();
    const kernel = await start();
    kernel.send(message("shell", "execute_request"));
    expect(connection.done).toEqual([["shell", "m1 of client"]]);
    connection.anyMessage.emit({ direction: "recv", msg: message("iopub", "stream") });
    connection.anyMessage.emit({ direction: "send", msg: message("shell", "execute_request") });
    expect(heard).toEqual(["iopub stream"]);
  });

  it("has its input answered once, by what asked; a stale answer goes to nobody who waits", async () => {
    answered();
    const kernel = await start();
    const replies: unknown[] = [];
    watchers.get("k1")?.input(message("stdin", "input_request"), (reply) => replies.push(reply.content));
    expect(heard).toEqual(["stdin input_request"]);
    const reply = (id: string) =>
      message("stdin", "input_reply", { parent_header: { msg_id: id }, content: { value: id } });
    kernel.send(reply("another"));
    kernel.send(reply("m1"));
    kernel.send(reply("m1"));
    expect(replies).toEqual([{ value: "m1" }]);
    expect(connection.done.map(([what]) => what)).toEqual(["reply", "reply"]);
  });

  it.each(["dead", "terminating"])("is told of when it is %s", async (status) => {
    answered();
    await start();
    connection.statusChanged.emit(status);
    watchers.get("k1")?.broken("out of memory");
    expect(heard).toEqual(["it was shut down", "out of memory"]);
  });

  it("leaves nothing when it breaks while it starts, or is given up", async () => {
    const starting = start();
    await Promise.resolve();
    await Promise.resolve();
    watchers.get("k1")?.broken("no memory");
    await expect(starting).rejects.toThrow("no memory");
    expect(connection.done.map(([what]) => what)).toEqual(["shutdown", "dispose"]);
    expect(watchers.size).toBe(0);
    const giveUp = new AbortController();
    giveUp.abort();
    await expect(start(giveUp)).rejects.toThrow("given up");
    expect(heard).toEqual([]);
  });
});
