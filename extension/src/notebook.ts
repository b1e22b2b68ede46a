// The runs of one open notebook: those that its outputs hold, and those that its kernel has under way.
//
// Outputs are read wherever they change, a few times a second at most; a live run's place among them is the
// output that shows its panel. Of the notebook just what is used is named here: its package draws much in.
import type { ISessionContext } from "@jupyterlab/apputils";
import type { DocumentRegistry } from "@jupyterlab/docregistry";
import { Debouncer } from "@lumino/polling";
import { Signal, type ISignal } from "@lumino/signaling";

import { LiveRuns, stop, type LiveRun } from "./live";
import { isFields, isUnderWay, MIME_TYPE, readBundle, TraceError, type Bundle, type Summary } from "./trace";

const WIDGET = "application/vnd.jupyter.widget-view+json";
const PAUSE_MS = 150;

interface List<T> {
  readonly length: number;
  get(at: number): T;
}

/** A notebook's cells, as far as they are used here. */
export interface Cells extends DocumentRegistry.IModel {
  readonly cells: List<{ readonly id: string; readonly outputs?: List<{ readonly data: object }> }>;
}

export interface NotebookRun {
  /** What names it as long as it is in the list. */
  readonly key: string;
  readonly summary: Summary;
  /** The id of the cell with its output; empty where it has none. */
  readonly cell: string;
  readonly bundle?: Bundle;
  readonly live?: LiveRun;
}

export class NotebookRuns {
  readonly context: DocumentRegistry.IContext<DocumentRegistry.IModel>;
  readonly live = new LiveRuns();
  private runs: readonly NotebookRun[] = [];
  private readonly signal = new Signal<this, void>(this);
  private readonly reading = new Debouncer(() => {
    this.read();
  }, PAUSE_MS);

  constructor(context: DocumentRegistry.IContext<DocumentRegistry.IModel>) {
    this.context = context;
    const { sessionContext } = context;
    sessionContext.iopubMessage.connect((_, message) => {
      this.live.take(message);
    });
    sessionContext.kernelChanged.connect(() => {
      this.live.clear();
    });
    sessionContext.statusChanged.connect((_, status) => {
      if (status === "dead" || status === "restarting" || status === "autorestarting") this.live.clear();
    });
    this.live.changed.connect(() => {
      this.later();
    });
    context.model.contentChanged.connect(() => {
      this.later();
    });
    void context.ready.then(() => {
      this.later();
    });
    context.disposed.connect(() => {
      this.dispose();
    });
  }

  get changed(): ISignal<this, void> {
    return this.signal;
  }

  get disposed(): boolean {
    return this.reading.isDisposed;
  }

  /** The runs in the order of the notebook; then those that have no output. */
  all(): readonly NotebookRun[] {
    return this.runs;
  }

  /** Stop a run that is under way. */
  async stop(run: NotebookRun): Promise<void> {
    const kernel = this.session().session?.kernel;
    if (kernel && run.live) await stop(kernel, this.live, run.live);
  }

  private session(): ISessionContext {
    return this.context.sessionContext;
  }

  private dispose(): void {
    if (this.disposed) return;
    this.reading.dispose();
    Signal.clearData(this);
  }

  private later(): void {
    if (!this.disposed) void this.reading.invoke().catch(() => undefined);
  }

  private read(): void {
    const model = this.context.model as Partial<Cells>;
    const runs: NotebookRun[] = [];
    const placed = new Set<string>();
    for (const cell of items(model.cells)) {
      let number = 0;
      for (const output of items(cell.outputs)) {
        const run = this.inOutput(output.data, cell.id, `${cell.id} ${number}`);
        number += 1;
        if (!run) continue;
        if (run.live) placed.add(run.live.comm);
        runs.push(run);
      }
    }
    for (const live of this.live.all()) {
      // One that is over and has no output is no longer on the page.
      if (placed.has(live.comm) || !isUnderWay(live.summary)) continue;
      runs.push({ key: live.comm, summary: live.summary, cell: "", live });
    }
    this.runs = runs;
    this.signal.emit();
  }

  private inOutput(data: object, cell: string, key: string): NotebookRun | null {
    const bundles: Record<string, unknown> = { ...data };
    if (MIME_TYPE in bundles) {
      try {
        const bundle = readBundle(bundles[MIME_TYPE]);
        return { key, summary: bundle.summary, cell, bundle };
      } catch (error) {
        if (!(error instanceof TraceError)) throw error;
        return null;
      }
    }
    const view = bundles[WIDGET];
    const comm = isFields(view) && typeof view.model_id === "string" ? view.model_id : "";
    const live = this.live.get(comm);
    return live ? { key, summary: live.summary, cell, live } : null;
  }
}

function* items<T>(list: List<T> | undefined): Generator<T> {
  if (!list) return;
  for (let at = 0; at < list.length; at += 1) yield list.get(at);
}
