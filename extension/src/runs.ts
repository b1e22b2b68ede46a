// The side panel: the runs of the notebook at hand and the trajectories beside it, and what can be done to them.
import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette } from "@jupyterlab/apputils";
import type { IDocumentWidget } from "@jupyterlab/docregistry";
import { Debouncer } from "@lumino/polling";
import type { Widget } from "@lumino/widgets";

import { Trajectories, type StoredRun } from "./beside";
import { Board, type Entry } from "./board";
import { runIcon } from "./icon";
import { NotebookRuns, type NotebookRun } from "./notebook";
import { FACTORY } from "./renderer";
import { beside, fileName, readText, withLines } from "./stored";
import { isUnderWay, TraceError } from "./trace";

const COMMAND = "rlm:show-runs";
const PAUSE_MS = 300;

type NotebookPanel = IDocumentWidget<Widget & Partial<Located>>;

/** What of a notebook brings a cell into sight. */
interface Located {
  readonly widgets: readonly { readonly model: { readonly id: string } }[];
  activeCellIndex: number;
  scrollToItem(index: number, align?: string): Promise<void>;
}

class Desk {
  readonly board: Board;
  private readonly notebooks = new Map<Widget, NotebookRuns>();
  private readonly trajectories: Trajectories;
  private current: { panel: NotebookPanel; runs: NotebookRuns } | null = null;
  private stored: readonly StoredRun[] = [];
  private readonly looking = new Debouncer(() => this.look(), PAUSE_MS);

  constructor(private readonly app: JupyterFrontEnd) {
    this.board = new Board(() => {
      this.lookAgain();
    });
    this.trajectories = new Trajectories(app.serviceManager.contents);
    app.serviceManager.contents.fileChanged.connect(() => {
      this.lookAgain();
    });
    app.shell.currentChanged?.connect(() => {
      this.follow();
    });
    this.board.showRuns(null);
  }

  add(panel: NotebookPanel): void {
    const runs = new NotebookRuns(panel.context);
    this.notebooks.set(panel, runs);
    let ended = 0;
    runs.changed.connect(() => {
      if (this.current?.runs !== runs) return;
      this.show();
      // A run that has ended may have left a file.
      const over = runs.all().filter((each) => each.bundle).length;
      if (over !== ended) this.lookAgain();
      ended = over;
    });
    panel.disposed.connect(() => {
      this.notebooks.delete(panel);
      if (this.current?.panel === panel) this.current = null;
      this.follow();
    });
    void panel.context.ready.then(() => {
      this.follow();
    });
  }

  /** Let the panel follow the notebook that is worked on; one that is not a notebook changes nothing. */
  private follow(): void {
    const now = this.app.shell.currentWidget;
    const runs = now ? this.notebooks.get(now) : undefined;
    if (now && runs) this.current = { panel: now as NotebookPanel, runs };
    else if (!this.current) {
      const [last] = [...this.notebooks].slice(-1);
      if (last) this.current = { panel: last[0] as NotebookPanel, runs: last[1] };
    }
    this.show();
    this.lookAgain();
  }

  private show(): void {
    const { current } = this;
    this.board.showRuns(
      current ? current.runs.all().map((run) => this.entry(current.panel, current.runs, run)) : null,
    );
    // What an output refers to is in the list already.
    const shown = new Set(current?.runs.all().map((run) => this.pathOf(current.panel, run)));
    this.board.showFiles(
      this.stored.filter((each) => !shown.has(each.path)).map((each) => this.fileEntry(each)),
    );
  }

  private entry(panel: NotebookPanel, runs: NotebookRuns, run: NotebookRun): Entry {
    const underWay = run.live !== undefined && isUnderWay(run.summary);
    return {
      key: run.key,
      summary: run.summary,
      open: run.cell ? () => void this.act(this.reveal(panel, run.cell)) : undefined,
      save:
        run.bundle && run.bundle.lost === undefined
          ? () => void this.act(this.download(panel, run))
          : undefined,
      stop: underWay ? () => void this.act(runs.stop(run)) : undefined,
    };
  }

  private fileEntry(stored: StoredRun): Entry {
    const { path, name, summary } = stored;
    return {
      key: path,
      summary,
      file: name,
      open: () => void this.act(this.app.commands.execute("docmanager:open", { path, factory: FACTORY })),
      save: () => void this.act(this.downloadFile(path, name)),
    };
  }

  private async act(done: Promise<unknown>): Promise<void> {
    try {
      this.board.showProblem("");
      await done;
    } catch (error) {
      this.board.showProblem(error instanceof Error ? error.message : String(error));
    }
  }

  private async reveal(panel: NotebookPanel, cell: string): Promise<void> {
    this.app.shell.activateById(panel.id);
    const { content } = panel;
    const at = content.widgets?.findIndex((each) => each.model.id === cell) ?? -1;
    if (at < 0) return;
    content.activeCellIndex = at;
    await content.scrollToItem?.(at, "start");
  }

  private pathOf(panel: NotebookPanel, run: NotebookRun): string | undefined {
    const path = run.bundle?.path;
    return path === undefined ? undefined : beside(panel.context.path, path);
  }

  private async download(panel: NotebookPanel, run: NotebookRun): Promise<void> {
    const path = this.pathOf(panel, run);
    let bundle = run.bundle;
    if (bundle && path !== undefined)
      bundle = await withLines(this.app.serviceManager.contents, bundle, path);
    if (!bundle?.lines) throw new TraceError("The trace is not here.");
    const lines = bundle.lines.map((line) => `${JSON.stringify(line)}\n`);
    save(lines.join(""), fileName(path));
  }

  private async downloadFile(path: string, name: string): Promise<void> {
    save(await readText(this.app.serviceManager.contents, path), name);
  }

  private lookAgain(): void {
    if (this.board.isVisible) void this.looking.invoke().catch(() => undefined);
  }

  /** Look for trajectories; nobody who doesn't see the list needs it. */
  async look(): Promise<void> {
    const { current } = this;
    const stored = current ? await this.trajectories.beside(current.panel.context.path) : [];
    if (this.current !== current) return;
    this.stored = stored;
    this.show();
  }
}

function save(content: string, name: string): void {
  const address = URL.createObjectURL(new Blob([content], { type: "application/jsonl" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // The browser has taken it when the page is next idle; a minute is more than it needs.
  setTimeout(() => {
    URL.revokeObjectURL(address);
  }, 60_000);
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: "@rlm-kernel/labextension:runs",
  description: "Lists runs of the open notebook and trajectories beside it, and stops them.",
  autoStart: true,
  optional: [ILayoutRestorer, ICommandPalette],
  activate: (app: JupyterFrontEnd, restorer: ILayoutRestorer | null, palette: ICommandPalette | null) => {
    const desk = new Desk(app);
    const { board } = desk;
    board.id = "rlm-runs";
    board.title.caption = "RLM runs";
    board.title.icon = runIcon;
    app.docRegistry.addWidgetExtension("Notebook", {
      createNew: (panel: NotebookPanel) => {
        desk.add(panel);
      },
    });
    app.shell.add(board, "right", { rank: 900, type: "RLM" });
    restorer?.add(board, board.id);
    app.commands.addCommand(COMMAND, {
      label: "Show RLM Runs",
      caption: "List the runs of this notebook",
      icon: runIcon,
      describedBy: { args: { type: "object", properties: {} } },
      execute: () => {
        app.shell.activateById(board.id);
        return desk.look();
      },
    });
    palette?.addItem({ command: COMMAND, category: "Notebook" });
  },
};

export default plugin;
