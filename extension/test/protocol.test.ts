import { describe, expect, it } from "vitest";

import { decode, encode, VERSION } from "../src/protocol";

const request = (more: object) => JSON.stringify({ rlm: VERSION, to: "page", ...more });
const message = {
  channel: "shell",
  header: { msg_id: "m", msg_type: "execute_request" },
  parent_header: {},
  metadata: {},
  content: { code: "1" },
};

describe("requests", () => {
  it("are read as they are", () => {
    expect(decode(request({ op: "hello" }))).toEqual({ op: "hello" });
    for (const op of ["start", "interrupt", "restart", "shutdown"]) {
      expect(decode(request({ op, kernel: "k" }))).toEqual({ op, kernel: "k" });
    }
    expect(decode(request({ op: "send", kernel: "k", message }))).toEqual({
      op: "send",
      kernel: "k",
      message,
    });
  });

  it.each([
    ["our own posts", encode({ op: "started", kernel: "k", id: "1" })],
    ["no JSON", "{"],
    ["no text", { rlm: VERSION, to: "page", op: "hello" }],
    ["a list", "[1]"],
    ["another version", JSON.stringify({ rlm: 99, to: "page", op: "hello" })],
    ["no kernel", request({ op: "start" })],
    ["an unknown one", request({ op: "format-disk", kernel: "k" })],
    ["half a message", request({ op: "send", kernel: "k", message: { ...message, header: {} } })],
    [
      "a channel to listen on",
      request({ op: "send", kernel: "k", message: { ...message, channel: "iopub" } }),
    ],
  ])("are not: %s", (_, text) => {
    expect(decode(text)).toBeUndefined();
  });
});
