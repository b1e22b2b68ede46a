import { beforeEach, describe, expect, it } from "vitest";

import { Board, type Entry } from "../src/board";

let board: Board;
let done: string[];

const entry = (key: string, state: string, more: Partial<Entry> = {}): Entry => ({
  ...{ key, summary: { question: `Question ${key}?`, state, costUsd: 0.5, seconds: 4 } },
  open: () => done.push(`open ${key}`),
  ...more,
});
const rows = () => [...board.node.querySelectorAll<HTMLElement>(".rlm-run")];
const press = (key: string) => {
  document.activeElement?.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }),
  );
};
const buttons = (row: HTMLElement | undefined) =>
  [...(row?.querySelectorAll<HTMLButtonElement>("button:not([hidden])") ?? [])].map(
    (each) => each.textContent,
  );

beforeEach(() => {
  done = [];
  board = new Board(() => done.push("refresh"));
  document.body.replaceChildren(board.node);
});

describe("the list of runs", () => {
  it("tells state, figures and question, and offers what there is", () => {
    const stop = () => done.push("stop");
    board.showRuns([
      entry("a", "running", { stop }),
      entry("b", "exhausted", { save: () => done.push("save b") }),
    ]);
    expect(rows().map((row) => row.querySelector(".rlm-run-line")?.textContent)).toEqual([
      "running$0.5000",
      "out of turns4.00 s \u00b7 $0.5000",
    ]);
    expect(rows().map(buttons)).toEqual([
      ["Open", "Stop"],
      ["Open", "Export"],
    ]);
    for (const each of board.node.querySelectorAll<HTMLButtonElement>(".rlm-run button:not([hidden])"))
      each.click();
    expect(done).toEqual(["open a", "stop", "open b", "save b"]);
  });

  it("shows an unknown price as such, and what a stranger wrote as text", () => {
    const question = "<img src=x onerror=alert(1)>";
    board.showRuns([entry("a", "<b>", { summary: { question, state: "<b>", costUsd: null } })]);
    expect(board.node.querySelector(".rlm-run-figures")?.textContent).toBe("?");
    expect(board.node.querySelector("img, b")).toBeNull();
    expect(board.node.textContent).toContain(question);
  });

  it("is walked through by keys, across both parts", () => {
    board.showRuns([entry("a", "running"), entry("b", "answered")]);
    board.showFiles([entry("c", "failed", { file: "c.jsonl" })]);
    expect(rows().map((row) => row.tabIndex)).toEqual([0, -1, -1]);
    rows()[0]?.focus();
    press("ArrowUp");
    press("ArrowDown");
    press("ArrowDown");
    expect(document.activeElement).toBe(rows()[2]);
    press("Enter");
    press("Home");
    press("Enter");
    expect(done).toEqual(["open c", "open a"]);
    expect(rows().map((row) => row.tabIndex)).toEqual([0, -1, -1]);
  });

  it("keeps elements, order and focus when it is renewed", () => {
    board.showRuns([entry("a", "running"), entry("b", "running")]);
    const [first, second] = rows();
    second?.focus();
    board.showRuns([entry("z", "failed"), entry("a", "answered"), entry("b", "running")]);
    expect(rows().slice(1)).toEqual([first, second]);
    expect(document.activeElement).toBe(second);
    board.showRuns([entry("a", "answered")]);
    expect(rows()).toEqual([first]);
    expect(first?.tabIndex).toBe(0);
  });

  it("says that there is nothing, and what went wrong", () => {
    board.showRuns(null);
    board.showFiles([]);
    expect(board.node.textContent).toContain("No notebook is open.");
    board.showRuns([]);
    expect(board.node.textContent).toContain("No run in this notebook.");
    board.showProblem("gone");
    expect(board.node.querySelector("[role=alert]")?.textContent).toBe("gone");
  });
});
