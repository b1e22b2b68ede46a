// Reading traces through Jupyter's contents service: on a server or in the browser, it is the same to us.
import type { Contents } from "@jupyterlab/services";

import { readFile, TraceError, type Bundle } from "./trace";

const MOST_BYTES = 64 * 2 ** 20;

/** What of the contents service is needed here. */
export type Files = Pick<Contents.IManager, "get">;

/** Return what stands in a text file of at most `most` bytes. */
export async function readText(files: Files, path: string, most = MOST_BYTES): Promise<string> {
  let size: number | undefined;
  let content: unknown;
  try {
    ({ size } = await files.get(path, { content: false }));
    if (size === undefined || size <= most) {
      content = (await files.get(path, { type: "file", format: "text", content: true })).content;
    }
  } catch {
    throw new TraceError(`There is no file ${path} that the server shows.`);
  }
  if (typeof content !== "string") {
    throw new TraceError(
      `${path} has ${size?.toLocaleString("en") ?? "too many"} bytes: too many to show here.`,
    );
  }
  return content;
}

/** Return `bundle` with the lines of the trajectory at `path`. */
export async function withLines(files: Files, bundle: Bundle, path: string): Promise<Bundle> {
  const { lines } = readFile(await readText(files, path));
  if (lines === undefined) throw new TraceError(`${path} is no trajectory.`);
  return { summary: bundle.summary, lines };
}

/** Return `path`, which is relative to the file `to`, as the contents service has it. */
export function beside(to: string, path: string): string {
  const drive = /^[^/]*:/.exec(to)?.[0] ?? "";
  const parts = path.startsWith("/") ? [] : to.slice(drive.length).split("/").slice(0, -1);
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return drive + parts.join("/");
}

/** A notebook may name any path; what is downloaded is JSON lines whatever a stranger calls it. */
export function fileName(path: string | undefined): string {
  const name = path?.split(/[\\/]/).pop() ?? "";
  return name.endsWith(".jsonl") ? name : `${name || "run"}.jsonl`;
}
