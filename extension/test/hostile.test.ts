// Traces that a stranger made: of no form, of too much, of texts that would act where they are shown.
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";

import { Fold, readTrajectory } from "../../rlm_kernel/notebook/static/tree.js";
import { Board } from "../src/board";
import { fileName } from "../src/stored";
import { eventsOf, MIME_TYPE, readFile, summarise, TraceError } from "../src/trace";
import { TraceView } from "../src/view";
import { bundle, lines, text } from "./recorded";

const HOSTILE = `"><img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>`;
const TURNED = "\u202ekcab\u2066 \u200fto \u2069front";
const BROKEN: unknown[] = [{ toString: 1 }, ["a"], 7, true, { "": { "": {} } }];

type Line = Record<string, unknown>;
const changed = (type: string, fields: Line) =>
  (lines() as Line[]).map((line) => (line.type === type ? { ...line, ...fields } : line));

const views: TraceView[] = [];

async function drawn(events: readonly object[]): Promise<TraceView> {
  const made = new TraceView({ mimeType: MIME_TYPE, resolver: null } as never, {} as never);
  views.push(made);
  document.body.replaceChildren(made.node);
  await made.renderModel({ data: { [MIME_TYPE]: bundle({ lines: events }) } } as never);
  if (made.node.querySelector(".rlm-panel")) {
    await vi.waitFor(() => {
      expect(made.node.querySelector(".rlm-panel")?.getAttribute("data-state") ?? "starting").not.toBe(
        "starting",
      );
    });
  }
  return made;
}

async function shownBy(made: TraceView, selector: string): Promise<HTMLElement> {
  return vi.waitFor(() => {
    const found = made.node.querySelector<HTMLElement>(selector);
    if (!found) throw new Error(`there is no ${selector}`);
    return found;
  });
}

beforeAll(() => {
  // jsdom has no canvas; what is painted on it is colour.
  const nothing: unknown = new Proxy(() => nothing, { get: () => nothing, set: () => true });
  vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockReturnValue(nothing as null);
});

afterEach(() => {
  while (views.length) views.pop()?.dispose();
  expect((window as { hacked?: number }).hacked).toBeUndefined();
  expect(document.querySelector("script, img[onerror]")).toBeNull();
});

describe("events of no form", () => {
  const places: [string, string][] = [
    ...["query", "model", "sub_model", "repl", "run", "limits", "contexts", "time"].map(
      (name): [string, string] => ["run_started", name],
    ),
    ...["call", "kind", "model", "turn", "messages"].map((name): [string, string] => ["call_started", name]),
    ...["text", "usage", "error"].map((name): [string, string] => ["call_finished", name]),
    ...["code", "cell", "turn"].map((name): [string, string] => ["cell_started", name]),
    ...["outputs", "status", "lost"].map((name): [string, string] => ["cell_finished", name]),
    ...["status", "text", "reason", "seconds"].map((name): [string, string] => ["run_finished", name]),
  ];

  it.each(places)("%s.%s are refused, or shown", async (type, name) => {
    for (const value of [...BROKEN, null]) {
      const made = await drawn(changed(type, { [name]: value }));
      const said = made.node.querySelector(".rlm-trace-missing")?.textContent ?? "";
      if (said) expect(said).toMatch("The trace's events are not those of a run.");
      else expect(made.node.querySelector(".rlm-state")?.textContent).toBeTruthy();
    }
  });

  it("inside of outputs and messages are refused", () => {
    const outputs = [{ kind: "display", text: "", data: { "image/png": 5 } }];
    for (const each of [
      changed("cell_finished", { outputs }),
      changed("cell_finished", { outputs: [null] }),
      changed("cell_finished", { outputs: [{ kind: "stdout", text: 1 }] }),
      changed("call_started", { messages: [{ role: "user", content: 1 }] }),
      changed("call_started", { messages: [{ role: "user", content: [1] }] }),
      changed("run_started", { limits: { usd: { a: 1 } } }),
    ]) {
      expect(() => eventsOf(each)).toThrow(TraceError);
    }
  });
});

describe("keys and words that every object has", () => {
  it("are keys and words like others", async () => {
    const made = await drawn(
      (JSON.parse(JSON.stringify(lines()).replaceAll('"answered"', '"constructor"')) as Line[]).map((line) =>
        line.type === "cell_finished" ? { ...line, status: "toString" } : line,
      ),
    );
    expect(made.node.querySelector(".rlm-state")?.textContent).toBe("constructor");
    expect((await shownBy(made, '.rlm-row[data-kind="cell"]')).dataset.state).toBe("failed");
    const board = new Board(() => undefined);
    board.showRuns([{ key: "__proto__", summary: { question: "", state: "valueOf" } }]);
    expect(board.node.querySelector(".rlm-run-state")?.textContent).toBe("valueOf");
    board.dispose();
  });

  it("change no prototype", () => {
    const bad = `{"type": "notice", "run": "r1", "text": "n", "__proto__": {"hacked": 1}, "$__proto__": {"hacked": 1}}`;
    const file = `${text(lines())}${bad}\n{"type": "text", "sha256": "__proto__", "text": "x"}\n`;
    expect(readFile(file).summary.state).toBe("answered");
    expect(({} as { hacked?: number }).hacked).toBeUndefined();
  });
});

describe("too much", () => {
  it("of levels stands beside each other", () => {
    const nested = Array.from({ length: 20_000 }, (_, at) => ({
      ...{
        type: "call_started",
        run: "r1",
        time: 1,
        call: `n${at}`,
        cell: `n${at - 1}`,
        kind: "llm_query",
        model: "m",
      },
    }));
    const done = nested.map(({ call }) => ({
      type: "call_finished",
      run: "r1",
      time: 2,
      call,
      text: "",
      usage: {},
    }));
    const events = eventsOf([...lines(), ...nested, ...done]);
    expect(summarise(events).calls).toBe(20_001);
    const fold = new Fold() as Fold & {
      visible(): { level: number }[];
      nodes: Map<string, { open: boolean }>;
    };
    for (const event of events) fold.take(event);
    for (const node of fold.nodes.values()) node.open = true;
    expect(fold.visible().length).toBeGreaterThan(20_000);
  });

  it("of one text, named again and again, is refused before it is there", () => {
    const large = { type: "text", sha256: "l", text: "x".repeat(2 ** 20) };
    const many = {
      type: "notice",
      run: "r1",
      text: { $text: Array.from({ length: 1000 }, () => ({ t: "l" })) },
    };
    expect(() => eventsOf([...lines(), large, many])).toThrow("can't be put together");
  });

  it("of levels of JSON is refused", () => {
    const deep = `{"type": "notice", "run": "r1", "text": "", "x": ${"[".repeat(50_000)}${"]".repeat(50_000)}}`;
    expect(() => eventsOf(readFile(`${text(lines())}${deep}\n`).lines ?? [])).toThrow(TraceError);
  });

  it("of a question is cut", async () => {
    const made = await drawn(changed("run_started", { query: "word ".repeat(200_000) }));
    const question = made.node.querySelector(".rlm-question");
    expect(question?.textContent.length).toBeLessThan(300);
    expect(question?.getAttribute("title")?.length).toBeLessThan(3000);
  });
});

describe("ids", () => {
  it("that repeat, or name what they are in, make a tree all the same", async () => {
    const at = { run: "r1", time: 2, kind: "llm_query", model: "m" };
    const odd = [
      { ...at, type: "call_started", call: "root" },
      { ...at, type: "call_started", call: "same", batch: "same" },
      { ...at, type: "call_started", call: "same", batch: "same" },
      { ...at, type: "call_started", call: "c", cell: "c", batch: "k1" },
      {
        ...at,
        type: "run_started",
        run: "r1",
        parent_run: "r1",
        parent_call: "same",
        query: "q",
        sub_model: "m",
        repl: "x",
      },
      { ...at, type: "call_finished", call: "same", text: "x" },
      { ...at, type: "call_finished", call: "same", text: "x" },
      { ...at, type: "cell_started", cell: "r1/1", turn: 1, block: 1, code: "x" },
    ];
    const made = await drawn([...lines().slice(0, -1), ...odd, ...lines().slice(-1)]);
    await shownBy(made, ".rlm-row[data-node]");
    expect(made.node.querySelector(".rlm-state")?.textContent).toBe("answered");
  });
});

describe("texts that would act", () => {
  it("are shown as texts everywhere", async () => {
    const outputs = [
      {
        kind: HOSTILE,
        text: HOSTILE,
        name: HOSTILE,
        value: HOSTILE,
        data: { "image/png": HOSTILE, "image/svg+xml": HOSTILE },
      },
    ];
    let events = lines() as Line[];
    for (const [type, fields] of Object.entries({
      run_started: { query: HOSTILE, model: HOSTILE, repl: HOSTILE },
      call_started: { model: HOSTILE, messages: [{ role: HOSTILE, content: HOSTILE }] },
      cell_started: { code: HOSTILE, cell: HOSTILE },
      cell_finished: { cell: HOSTILE, outputs, lost: HOSTILE, status: HOSTILE },
      run_finished: { text: HOSTILE, reason: HOSTILE, status: HOSTILE },
    })) {
      events = events.map((line) => (line.type === type ? { ...line, ...fields } : line));
    }
    const made = await drawn(events);
    (await shownBy(made, '.rlm-row[data-kind="cell"]')).click();
    await vi.waitFor(() => {
      expect(made.node.querySelector(".rlm-detail")?.textContent).toContain("lost");
    });
    expect(made.node.querySelector("img")).toBeNull();
    (await shownBy(made, ".rlm-tab:nth-of-type(3)")).click();
    await vi.waitFor(() => {
      expect(made.node.querySelector(".rlm-code pre")?.textContent).toContain(HOSTILE);
    });
  });

  it("don't turn round what stands beside them", async () => {
    const made = await drawn(
      changed("cell_started", { code: TURNED }).map((line) =>
        line.type === "run_started" ? { ...line, query: TURNED, model: TURNED } : line,
      ),
    );
    await shownBy(made, '.rlm-row[data-kind="cell"]');
    const header = await shownBy(made, ".rlm-head");
    const rows = await shownBy(made, ".rlm-tree");
    for (const each of [header, rows]) {
      expect(each.innerHTML).toContain("kcab to front");
      expect(each.innerHTML).not.toMatch(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/);
    }
  });

  it("leave control characters out when they are copied", async () => {
    const copied: string[] = [];
    const writeText = (what: string) => Promise.resolve(void copied.push(what));
    vi.stubGlobal("navigator", { clipboard: { writeText } });
    const code = "print('\u001b[201~\u0007')\r\nx = 1\rrm\u0000 = 2\u009b\t# end\n";
    const made = await drawn(changed("cell_started", { code }));
    (await shownBy(made, ".rlm-tab:nth-of-type(3)")).click();
    await vi.waitFor(() => {
      expect(made.node.querySelector(".rlm-code pre")?.textContent).toContain("print(");
    });
    (await shownBy(made, ".rlm-code .rlm-copy")).click();
    vi.unstubAllGlobals();
    expect(copied).toEqual(["# %% turn 1, block 1\nprint('[201~')\nx = 1\nrm = 2\t# end\n"]);
  });

  it("of a child run stay comments in the script, whatever ends a line", async () => {
    const at = { run: "r2", time: 2.15 };
    const child = [
      {
        type: "call_started",
        run: "r1",
        time: 2.15,
        call: "child",
        cell: "k1",
        kind: "rlm_query",
        model: "m",
      },
      {
        type: "run_started",
        ...at,
        parent_run: "r1",
        parent_call: "child",
        query: "q\rimport os\u2028x",
        model: "m",
        sub_model: "m",
        repl: "local",
      },
      {
        type: "cell_started",
        ...at,
        cell: "k2",
        turn: 1,
        block: 1,
        code: "a = 1\rimport os\r\nb\u2028c\u2029d\u0085e",
      },
    ];
    const made = await drawn([...lines().slice(0, -1), ...child, ...lines().slice(-1)]);
    (await shownBy(made, ".rlm-tab:nth-of-type(3)")).click();
    const pre = await shownBy(made, ".rlm-code pre");
    const own = pre.textContent.slice(pre.textContent.indexOf("of the child run"));
    expect(
      own
        .split(/\r\n?|\n|\u2028|\u2029/)
        .slice(1)
        .filter((line) => line && !line.startsWith("# ")),
    ).toEqual([]);
  });
});

describe("the name of a download", () => {
  it.each([
    ["rlm-traces/x.jsonl", "x.jsonl"],
    ["x/open-me.html", "open-me.html.jsonl"],
    ["..\\..\\run.exe", "run.exe.jsonl"],
    ["", "run.jsonl"],
    [undefined, "run.jsonl"],
  ])("%j is that of JSON lines", (path, name) => {
    expect(fileName(path)).toBe(name);
  });
});

it("a text is put together from slices in characters", () => {
  const [event] = readTrajectory([
    { type: "text", sha256: "s", text: "a\u{1f600}bc" },
    { type: "text", sha256: "p", text: "plain" },
    { type: "notice", text: { $text: [{ s: ["s", 1, 3] }, "-", { s: ["p", 1, 3] }, { s: ["s", 0, 1] }] } },
  ]);
  expect(event?.text).toBe("\u{1f600}b-laa");
});
