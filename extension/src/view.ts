// A trace in an output or a document, drawn by the tree of the notebook's panel.
//
// Everything in a trace may be a stranger's: it reaches the page through the tree, as text and checked images,
// or as the text of a message. That makes the renderer safe for notebooks that are not trusted.
import type { IRenderMime } from "@jupyterlab/rendermime-interfaces";
import type { Message } from "@lumino/messaging";
import { Widget } from "@lumino/widgets";

import { finder, mount, type View } from "../../rlm_kernel/notebook/static/tree.js";
import { withLines, type Files } from "./stored";
import { eventsOf, readBundle, readFile, summarise, TraceError, type Bundle } from "./trace";

/** Where the file is that a trace names: a path for the contents service. */
export type Locate = (path: string) => Promise<string>;

export class TraceView extends Widget implements IRenderMime.IRenderer {
  private readonly options: IRenderMime.IRendererOptions;
  private readonly files: Files;
  private tree: View | null = null;
  private rendered = 0;

  constructor(options: IRenderMime.IRendererOptions, files: Files) {
    super();
    this.options = options;
    this.files = files;
    this.addClass("rlm-trace");
  }

  /** Draw the run: a bundle in an output, or the text of a file. What can't be drawn is said in its place. */
  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    this.rendered += 1;
    const turn = this.rendered;
    const data: unknown = model.data[this.options.mimeType];
    try {
      let bundle = typeof data === "string" ? readFile(data) : readBundle(data);
      if (bundle.path !== undefined) {
        this.say(bundle, "Loading the trace");
        bundle = await withLines(this.files, bundle, await this.locate(bundle.path));
      }
      // Meanwhile the output may have been renewed, or taken away.
      if (turn !== this.rendered || this.isDisposed) return;
      if (bundle.lines === undefined) throw new TraceError(`The trace is not here: ${bundle.lost ?? "lost"}`);
      this.draw(bundle.lines);
    } catch (error) {
      if (turn !== this.rendered || this.isDisposed) return;
      if (!(error instanceof TraceError)) throw error;
      this.say(summaryOf(data), error.message);
    }
  }

  override dispose(): void {
    this.tree?.dispose();
    this.tree = null;
    super.dispose();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.tree?.schedule();
  }

  private draw(lines: readonly object[]): void {
    const events = eventsOf(lines);
    summarise(events);
    this.clear();
    this.tree = mount(this.node, { fetch: finder(events) });
    this.tree.reset(events);
  }

  private say(bundle: Bundle | null, text: string): void {
    this.clear();
    const element = document.createElement("div");
    element.className = "rlm-trace-missing";
    const question = bundle?.summary.question;
    element.textContent = question ? `${question}\n${text}` : text;
    this.node.append(element);
  }

  private clear(): void {
    this.tree?.dispose();
    this.tree = null;
    this.node.replaceChildren();
  }

  private async locate(path: string): Promise<string> {
    const { resolver } = this.options;
    if (!resolver || /^[a-z][a-z0-9+.-]*:/i.test(path)) throw new TraceError(`The trace is at ${path}.`);
    if (path.startsWith("/")) {
      const found = await resolver.resolvePath?.(path);
      if (found?.scope !== "server")
        throw new TraceError(`The trace is at ${path}, where the server shows no files.`);
      return found.path;
    }
    return decodeURIComponent(await resolver.resolveUrl(encodeURI(path)));
  }
}

function summaryOf(data: unknown): Bundle | null {
  try {
    return typeof data === "string" ? null : readBundle(data);
  } catch {
    return null;
  }
}
