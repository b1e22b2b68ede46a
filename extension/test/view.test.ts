import { beforeEach, describe, expect, it, vi } from "vitest";

import { MIME_TYPE } from "../src/trace";
import { TraceView } from "../src/view";
import { bundle, lines, text } from "./recorded";

let asked: string[];

function view(content?: string): TraceView {
  const get = (path: string, options?: { content?: boolean }) => {
    asked.push(path);
    if (content === undefined) return Promise.reject(new Error("404"));
    return Promise.resolve({ size: content.length, content: options?.content === false ? null : content });
  };
  const resolver = {
    resolveUrl: (path: string) => Promise.resolve(`a%20folder/${path}`),
    resolvePath: (path: string) =>
      Promise.resolve(path.startsWith("/srv/") ? { path: path.slice(5), scope: "server" } : null),
  };
  const made = new TraceView({ mimeType: MIME_TYPE, resolver } as never, { get } as never);
  document.body.replaceChildren(made.node);
  return made;
}

const model = (data: unknown) => ({ data: { [MIME_TYPE]: data } }) as never;
const shown = (made: TraceView) => made.node.textContent;

beforeEach(() => {
  asked = [];
});

describe("a trace in an output", () => {
  it("is drawn as the panel's tree, what models wrote as text", async () => {
    const made = view();
    await made.renderModel(model(bundle()));
    await vi.waitFor(() => {
      expect(made.node.querySelector(".rlm-state")?.textContent).toBe("answered");
    });
    expect(made.node.querySelector(".rlm-question")?.textContent).toBe("How many <b>clauses</b> changed?");
    expect(made.node.querySelector("b")).toBeNull();
    expect(made.node.querySelectorAll(".rlm-panel")).toHaveLength(1);
    await made.renderModel(model(bundle()));
    expect(made.node.querySelectorAll(".rlm-panel")).toHaveLength(1);
    made.dispose();
  });

  it("is fetched from the file that it names", async () => {
    const made = view(text(lines()));
    await made.renderModel(model(bundle({ path: "rlm traces/x.jsonl" })));
    expect(new Set(asked)).toEqual(new Set(["a folder/rlm traces/x.jsonl"]));
    expect(made.node.querySelector(".rlm-panel")).not.toBeNull();
  });

  it("is found by the path of a kernel", async () => {
    const made = view(text(lines()));
    await made.renderModel(model(bundle({ path: "/srv/x.jsonl" })));
    expect(asked[0]).toBe("x.jsonl");
    await made.renderModel(model(bundle({ path: "/elsewhere/x.jsonl" })));
    expect(shown(made)).toBe(
      "How many?\nThe trace is at /elsewhere/x.jsonl, where the server shows no files.",
    );
  });

  it("says what is missing", async () => {
    const made = view();
    await made.renderModel(model(bundle({ path: "rlm-traces/x.jsonl" })));
    expect(shown(made)).toBe(
      "How many?\nThere is no file a folder/rlm-traces/x.jsonl that the server shows.",
    );
    await made.renderModel(model(bundle({ lost: "no space left" })));
    expect(shown(made)).toContain("no space left");
    await made.renderModel(model({ version: 7 }));
    expect(shown(made)).toBe("The trace has version 7; this page knows 1.");
  });

  it("never asks another host", async () => {
    for (const path of ["https://example.org/x.jsonl", "file:///etc/passwd", "data:text/plain,x"]) {
      const made = view(text(lines()));
      await made.renderModel(model(bundle({ path })));
      expect(shown(made)).toContain(`The trace is at ${path}.`);
    }
    expect(asked).toEqual([]);
  });
});

describe("a file", () => {
  it("of either form is drawn", async () => {
    for (const content of [JSON.stringify(bundle()), text(lines())]) {
      const made = view();
      await made.renderModel(model(content));
      expect(made.node.querySelector(".rlm-panel")).not.toBeNull();
    }
  });

  it("of another kind is said to be none", async () => {
    const made = view();
    await made.renderModel(model("<img src=x onerror=alert(1)>"));
    expect(made.node.querySelector("img")).toBeNull();
    expect(shown(made)).toBe("No run has begun in this trace.");
  });
});
