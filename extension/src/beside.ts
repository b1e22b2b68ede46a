// The trajectories in a notebook's folder, and in the one that its runs write to: what each of them was.
//
// A file is read once as long as it isn't changed, and a large one only when it is opened.
import { PathExt } from "@jupyterlab/coreutils";
import type { Contents } from "@jupyterlab/services";

import { beside, readText, type Files } from "./stored";
import { eventsOf, readFile, TraceError, type Summary } from "./trace";

/** As rlm_kernel/notebook/bundle.py names it. */
const FOLDER = "rlm-traces";
const MOST_FILES = 100;
const READ_BYTES = 4 * 2 ** 20;

export interface StoredRun {
  readonly path: string;
  readonly name: string;
  /** Undefined for a file that is too large to be read for its place in a list. */
  readonly summary?: Summary;
}

export class Trajectories {
  private readonly known = new Map<string, { stamp: string; run: StoredRun | null }>();

  constructor(private readonly files: Files) {}

  /** Return the runs in files beside the notebook at `notebook`, the latest first. */
  async beside(notebook: string): Promise<StoredRun[]> {
    const folder = beside(notebook, ".");
    const own = await this.list(folder);
    const traces = own.find((each) => each.type === "directory" && each.name === FOLDER);
    const files = [...own, ...(traces ? await this.list(traces.path) : [])]
      .filter(
        (each) => each.type === "file" && (each.name.endsWith(".rlm.json") || each.name.endsWith(".jsonl")),
      )
      .sort((a, b) => b.last_modified.localeCompare(a.last_modified))
      .slice(0, MOST_FILES);
    const runs: StoredRun[] = [];
    // One after another: a server has other things to do.
    for (const file of files) {
      const run = await this.read(file);
      if (run) runs.push(run);
    }
    return runs;
  }

  private async list(path: string): Promise<Contents.IModel[]> {
    try {
      const content: unknown = (await this.files.get(path, { type: "directory", content: true })).content;
      return Array.isArray(content) ? (content as Contents.IModel[]) : [];
    } catch {
      return []; // a folder that is gone, or that the server doesn't show
    }
  }

  private async read(file: Contents.IModel): Promise<StoredRun | null> {
    const stamp = `${file.last_modified} ${file.size ?? ""}`;
    const known = this.known.get(file.path);
    if (known?.stamp === stamp) return known.run;
    const name = PathExt.basename(file.path);
    let run: StoredRun | null;
    if (file.size !== undefined && file.size > READ_BYTES) {
      run = { path: file.path, name };
    } else {
      try {
        const bundle = readFile(await readText(this.files, file.path, READ_BYTES));
        if (bundle.lines) eventsOf(bundle.lines);
        run = { path: file.path, name, summary: bundle.summary };
      } catch (error) {
        if (!(error instanceof TraceError)) throw error;
        run = null; // JSON lines of something else
      }
    }
    this.known.set(file.path, { stamp, run });
    return run;
  }
}
