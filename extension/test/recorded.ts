// A small run as its trajectory's lines: question, two turns, a batch, an answer.
const RUN = "r1";
const usage = (input: number, output: number, cost: string | null) => ({
  input_tokens: input,
  output_tokens: output,
  cached_tokens: 0,
  cost_usd: cost,
});

export function lines(price: string | null = "0.25"): object[] {
  const at = { run: RUN, depth: 0 };
  return [
    { type: "trajectory", version: 1 },
    { type: "text", sha256: "abc", text: "How many <b>clauses</b> changed?" },
    {
      ...{ type: "run_started", ...at, time: 1, parent_run: null, parent_call: null },
      ...{
        query: { $text: [{ t: "abc" }] },
        model: "root",
        sub_model: "sub",
        repl: "local",
        limits: {},
        contexts: [],
      },
    },
    {
      type: "call_started",
      ...at,
      time: 1.1,
      call: "c1",
      kind: "root",
      model: "root",
      turn: 1,
      messages: [],
    },
    {
      ...{ type: "call_finished", ...at, time: 2, call: "c1", model: "root", text: "I look." },
      usage: usage(10, 5, price),
    },
    { type: "cell_started", ...at, time: 2.1, cell: "k1", turn: 1, block: 1, code: "print(1)" },
    {
      ...{ type: "cell_finished", ...at, time: 2.2, cell: "k1", turn: 1, status: "ok" },
      outputs: [{ kind: "stream", text: "1" }],
    },
    {
      type: "run_finished",
      ...at,
      time: 3,
      status: "answered",
      text: "Two.",
      seconds: 2,
      usage: usage(10, 5, price),
    },
  ];
}

export const text = (each: readonly object[]): string =>
  each.map((line) => `${JSON.stringify(line)}\n`).join("");

export function bundle(fields: object = { lines: lines() }): Record<string, unknown> {
  const summary = { question: "How many?", status: "answered", calls: 3, seconds: 2, cost_usd: "0.25" };
  return { version: 1, summary, ...fields };
}
