import { beforeEach, describe, expect, it } from "vitest";

import type { JupyterMessage } from "../src/protocol";
import { Stdin } from "../src/stdin";

let posted: unknown[];
let hear: (data: unknown) => void;
let stdin: Stdin;

beforeEach(() => {
  posted = [];
  stdin = new Stdin({
    postMessage: (message) => posted.push(message),
    addEventListener: (_, listener) => {
      hear = (data) => {
        listener({ data } as MessageEvent);
      };
    },
  });
});

const input = (browsingContextId: string, msg_id: string, more: object = {}) => ({
  browsingContextId,
  pathname: "/lite/api/stdin/kernel",
  data: { channel: "stdin", header: { msg_id, msg_type: "input_request" } },
  ...more,
});

describe("input of kernels", () => {
  it("reaches each by an id of its own, and is answered under it, in any order", () => {
    const asked: [string, (reply: JupyterMessage) => void][] = [];
    const open = () => stdin.open((request, answer) => asked.push([request.header.msg_id, answer]));
    const [first, second] = [open(), open()];
    expect(first).not.toBe(second);
    hear(input(first, "1"));
    hear(input(second, "2", { requestId: "r" }));
    expect(asked.map(([id]) => id)).toEqual(["1", "2"]);
    const reply = (text: string) => ({ content: { value: text } }) as unknown as JupyterMessage;
    asked[1]?.[1](reply("two"));
    asked[0]?.[1](reply("one"));
    expect(posted).toEqual([
      { response: reply("two"), browsingContextId: second, requestId: "r" },
      { response: reply("one"), browsingContextId: first, requestId: undefined },
    ]);
  });

  it("is not taken from others, nor are answers, nor requests for files", () => {
    const asked: string[] = [];
    const mine = stdin.open((request) => asked.push(request.header.msg_id));
    hear(input("the page's own", "1"));
    hear({ browsingContextId: mine, response: {} });
    hear(input(mine, "2", { pathname: "/lite/api/drive" }));
    hear(input(mine, "3", { data: "text" }));
    hear(null);
    stdin.close(mine);
    hear(input(mine, "4"));
    expect(asked).toEqual([]);
    expect(posted).toEqual([]);
  });
});
