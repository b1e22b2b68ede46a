import { describe, expect, it } from "vitest";

import { eventsOf, readBundle, readFile, readLines, summarise, TraceError } from "../src/trace";
import { bundle, lines, text } from "./recorded";

describe("a bundle", () => {
  it("is read with its summary", () => {
    const { summary } = readBundle(bundle());
    expect(summary).toEqual({
      question: "How many?",
      state: "answered",
      costUsd: 0.25,
      calls: 3,
      seconds: 2,
    });
  });

  it("tells an unknown price from none", () => {
    expect(readBundle(bundle({ lines: [], summary: { cost_usd: null } })).summary.costUsd).toBeNull();
    expect(readBundle(bundle({ lines: [], summary: {} })).summary.costUsd).toBeUndefined();
  });

  it("may name a file, or say why there is none", () => {
    expect(readBundle(bundle({ path: "rlm-traces/x.jsonl" })).path).toBe("rlm-traces/x.jsonl");
    expect(readBundle(bundle({ lost: "no space left" })).lost).toBe("no space left");
    expect(readBundle(bundle({})).lost).toMatch("neither");
  });

  it.each([null, [], "text", 3, {}, { version: 2, lines: [] }, { version: "1" }])("is not %j", (value) => {
    expect(() => readBundle(value)).toThrow(TraceError);
  });

  it("keeps no numbers or texts that are none", () => {
    const summary = { question: 3, status: {}, calls: -1, seconds: "2", cost_usd: "much" };
    expect(readBundle(bundle({ lines: [1, {}, null], summary }))).toEqual({
      summary: { question: "", state: "", costUsd: undefined, calls: undefined, seconds: undefined },
      lines: [{}],
    });
  });
});

describe("a file", () => {
  it("is a bundle or a trajectory", () => {
    expect(readFile(JSON.stringify(bundle())).summary.question).toBe("How many?");
    expect(readFile(text(lines())).summary).toEqual({
      ...{ question: "How many <b>clauses</b> changed?", state: "answered", costUsd: 0.25, seconds: 2 },
      calls: 1,
    });
  });

  it("may end in the middle of a line, and nowhere else be broken", () => {
    const whole = text(lines());
    expect(readLines(whole.slice(0, -9))).toHaveLength(lines().length - 1);
    expect(() => readLines(`{"type": "te\n${whole}`)).toThrow("Line 1");
  });

  it.each(["", "\n", "{}", "[1]", '{"a": 1}\n{"b": 2}\n', "key,value\n1,2\n"])("is not %j", (content) => {
    expect(() => readFile(content)).toThrow(TraceError);
  });

  it("without an end is unfinished, and without a price has none", () => {
    expect(readFile(text(lines().slice(0, -1))).summary.state).toBe("unfinished");
    expect(readFile(text(lines(null))).summary.costUsd).toBeNull();
  });
});

describe("events", () => {
  it("of types that nobody knows never reach the tree", () => {
    const odd = ["constructor", "take", "node", "__proto__", "visible"].map((type) => ({ type, id: "root" }));
    const events = eventsOf([...odd, ...lines()]);
    expect(events.map((event) => event.type)).not.toContain("take");
    expect(summarise(events).state).toBe("answered");
  });

  it("that are those of no run are refused", () => {
    const broken = lines().map((line) => ("messages" in line ? { ...line, run: undefined, turn: {} } : line));
    expect(() => summarise(eventsOf([...broken, { type: "notice", text: { toString: 1 } }]))).toThrow(
      TraceError,
    );
  });
});
