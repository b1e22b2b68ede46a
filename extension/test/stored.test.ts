import { describe, expect, it } from "vitest";

import { Trajectories } from "../src/beside";
import { beside, readText, withLines, type Files } from "../src/stored";
import { readBundle } from "../src/trace";
import { bundle, lines, text } from "./recorded";

interface Entry {
  content: string;
  size?: number;
}

/** A contents service over texts by path; it counts what was read. */
function folder(entries: Record<string, Entry | string>): Files & { read: string[] } {
  const files = new Map(
    Object.entries(entries).map(([path, entry]) => [
      path,
      typeof entry === "string" ? { content: entry } : entry,
    ]),
  );
  const read: string[] = [];
  const model = (path: string, entry: Entry) => ({
    ...{ path, name: path.split("/").pop(), type: "file", size: entry.size ?? entry.content.length },
    last_modified: `2026-11-21T10:00:0${[...files.keys()].indexOf(path)}Z`,
  });
  const get = (path: string, options?: { content?: boolean; type?: string }) => {
    if (options?.type === "directory") {
      const prefix = path ? `${path}/` : "";
      const inside = [...files].filter(([each]) => each.startsWith(prefix));
      const own = inside
        .filter(([each]) => !each.slice(prefix.length).includes("/"))
        .map((each) => model(...each));
      const folders = new Set(inside.map(([each]) => each.slice(prefix.length).split("/")));
      const names = new Set([...folders].filter((parts) => parts.length > 1).map(([name]) => name ?? ""));
      return Promise.resolve({
        content: [...own, ...[...names].map((name) => ({ path: prefix + name, name, type: "directory" }))],
      });
    }
    const entry = files.get(path);
    if (!entry) return Promise.reject(new Error("404"));
    if (options?.content !== false) read.push(path);
    return Promise.resolve({ ...model(path, entry), content: entry.content });
  };
  return { get, read } as unknown as Files & { read: string[] };
}

describe("paths", () => {
  it.each([
    ["a/b.ipynb", "rlm-traces/x.jsonl", "a/rlm-traces/x.jsonl"],
    ["b.ipynb", "./x.jsonl", "x.jsonl"],
    ["a/b/c.ipynb", "../x.jsonl", "a/x.jsonl"],
    ["a/b.ipynb", "../../../x.jsonl", "x.jsonl"],
    ["RTC:a/b.ipynb", "x.jsonl", "RTC:a/x.jsonl"],
  ])("beside %s, %s is %s", (notebook, path, expected) => {
    expect(beside(notebook, path)).toBe(expected);
  });
});

describe("a stored trace", () => {
  it("is followed from a bundle to its file", async () => {
    const given = readBundle(bundle({ path: "t/x.jsonl" }));
    const stored = await withLines(folder({ "a/t/x.jsonl": text(lines()) }), given, "a/t/x.jsonl");
    expect(stored.lines).toHaveLength(lines().length);
    expect(stored.summary.question).toBe("How many?");
  });

  it("that is another bundle without lines is refused", async () => {
    const files = folder({ "x.jsonl": JSON.stringify(bundle({ path: "x.jsonl" })) });
    await expect(withLines(files, readBundle(bundle({ path: "x.jsonl" })), "x.jsonl")).rejects.toThrow(
      "no trajectory",
    );
  });

  it("that is missing or too large is said by its name", async () => {
    await expect(readText(folder({}), "t/x.jsonl")).rejects.toThrow("no file t/x.jsonl");
    const files = folder({ "x.jsonl": { content: "{}", size: 10_000 } });
    await expect(readText(files, "x.jsonl", 100)).rejects.toThrow("x.jsonl has 10,000 bytes");
    expect(files.read).toEqual([]);
  });
});

describe("trajectories beside a notebook", () => {
  it("are found in its folder and that of its runs, and read once", async () => {
    const files = folder({
      "a/n.ipynb": "{}",
      "a/rlm-traces/1.jsonl": text(lines()),
      "a/data.jsonl": '{"row": 1}\n{"row": 2}\n',
      "a/kept.rlm.json": JSON.stringify(bundle()),
      "a/large.jsonl": { content: "", size: 1e9 },
      "b/other.rlm.json": JSON.stringify(bundle()),
    });
    const trajectories = new Trajectories(files);
    const found = await trajectories.beside("a/n.ipynb");
    expect(found.map((each) => [each.path, each.summary?.state])).toEqual([
      ["a/large.jsonl", undefined],
      ["a/kept.rlm.json", "answered"],
      ["a/rlm-traces/1.jsonl", "answered"],
    ]);
    const read = files.read.length;
    expect(await trajectories.beside("a/n.ipynb")).toEqual(found);
    expect(files.read).toHaveLength(read);
  });

  it("are none in a folder that is gone", async () => {
    expect(
      await new Trajectories({ get: () => Promise.reject(new Error("404")) }).beside("x/n.ipynb"),
    ).toEqual([]);
  });
});
