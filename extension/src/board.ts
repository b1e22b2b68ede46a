// The list of runs in the side panel: plain elements, renewed in place, so that what has the focus keeps it.
import { Widget } from "@lumino/widgets";

import { cost, seconds, WORDS } from "../../rlm_kernel/notebook/static/tree.js";
import { isUnderWay, type Summary } from "./trace";

/** A row of the list; an action that a row doesn't offer isn't there. */
export interface Entry {
  readonly key: string;
  /** Undefined for a file that was not read. */
  readonly summary?: Summary;
  /** The name of the file that it is in. */
  readonly file?: string;
  readonly open?: () => void;
  readonly save?: () => void;
  readonly stop?: () => void;
}

interface Section {
  readonly list: HTMLUListElement;
  readonly empty: HTMLElement;
  readonly rows: Map<string, Row>;
}

export class Board extends Widget {
  private readonly sections: readonly [Section, Section];
  private readonly problem: HTMLElement;

  /** `onRefresh` is called when the list of files is to be made anew, also since it comes into sight. */
  constructor(private readonly onRefresh: () => void) {
    super();
    this.addClass("rlm-runs");
    this.node.tabIndex = -1;
    this.problem = make("p", "rlm-runs-problem", this.node);
    this.problem.setAttribute("role", "alert");
    this.problem.hidden = true;
    const here = this.section("In this notebook", "No run in this notebook.");
    const files = this.section("Trajectories beside it", "No trajectory beside this notebook.", onRefresh);
    this.sections = [here, files];
    this.node.addEventListener("keydown", (event) => {
      this.key(event);
    });
  }

  /** Show the runs of the notebook; null where none is open. */
  showRuns(entries: readonly Entry[] | null): void {
    fill(this.sections[0], entries ?? [], entries ? "No run in this notebook." : "No notebook is open.");
    this.rove();
  }

  showFiles(entries: readonly Entry[]): void {
    fill(this.sections[1], entries, "No trajectory beside this notebook.");
    this.rove();
  }

  /** Say what went wrong; an empty text takes it back. */
  showProblem(text: string): void {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }

  protected override onAfterShow(): void {
    this.onRefresh();
  }

  protected override onActivateRequest(): void {
    (this.rows().find((row) => row.tabIndex === 0) ?? this.node).focus();
  }

  private section(title: string, nothing: string, onRefresh?: () => void): Section {
    const element = make("section", "rlm-runs-section", this.node);
    element.setAttribute("aria-label", title);
    const head = make("header", "rlm-runs-title", element);
    make("h2", "", head, title);
    if (onRefresh)
      button(head, "Refresh", "look for trajectories again").addEventListener("click", onRefresh);
    const list = make("ul", "rlm-runs-list", element);
    const empty = make("p", "rlm-runs-empty", element, nothing);
    return { list, empty, rows: new Map() };
  }

  private rows(): HTMLElement[] {
    return [...this.node.querySelectorAll<HTMLElement>(".rlm-run")];
  }

  /** Let the Tab key reach one row; from there on the arrows move. */
  private rove(to?: HTMLElement): void {
    const rows = this.rows();
    const chosen = to ?? rows.find((row) => row.tabIndex === 0) ?? rows[0];
    for (const row of rows) row.tabIndex = row === chosen ? 0 : -1;
    to?.focus();
  }

  private key(event: KeyboardEvent): void {
    const rows = this.rows();
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined) {
      const row = rows[to];
      if (row) this.rove(row);
    } else if (event.key === "Enter" && event.target === rows[at]) {
      rows[at].querySelector<HTMLButtonElement>("button:not([hidden])")?.click();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

/** One row's elements. */
class Row {
  readonly element: HTMLLIElement;
  private entry: Entry;
  private readonly state: HTMLElement;
  private readonly figures: HTMLElement;
  private readonly question: HTMLElement;
  private readonly file: HTMLElement;
  private readonly buttons: Readonly<Record<"open" | "save" | "stop", HTMLButtonElement>>;

  constructor(entry: Entry) {
    this.entry = entry;
    this.element = make("li", "rlm-run");
    this.element.tabIndex = -1;
    const head = make("div", "rlm-run-line", this.element);
    this.state = make("span", "rlm-run-state", head);
    this.figures = make("span", "rlm-run-figures", head);
    this.question = make("div", "rlm-run-question", this.element);
    this.file = make("div", "rlm-run-file", this.element);
    const line = make("div", "rlm-run-buttons", this.element);
    this.buttons = {
      open: button(line, "Open", "show this run"),
      save: button(
        line,
        "Export",
        "download the trace as JSON lines; jupyter rlm export makes other forms of it",
      ),
      stop: button(line, "Stop", "stop this run; what it has found so far is kept"),
    };
    for (const name of ["open", "save", "stop"] as const) {
      this.buttons[name].addEventListener("click", () => this.entry[name]?.());
    }
  }

  show(entry: Entry): void {
    this.entry = entry;
    const { summary, file } = entry;
    const word = summary ? (WORDS[summary.state] ?? summary.state) : "large file";
    this.element.dataset.state = summary?.state ?? "";
    put(this.state, word);
    put(this.figures, summary ? figures(summary) : "");
    put(this.question, summary?.question ?? "");
    this.question.title = summary?.question ?? "";
    put(this.file, file ?? "");
    this.file.hidden = !file;
    for (const name of ["open", "save", "stop"] as const) this.buttons[name].hidden = !entry[name];
    this.element.setAttribute("aria-label", [word, summary?.question, file].filter(Boolean).join(", "));
  }
}

function fill(section: Section, entries: readonly Entry[], nothing: string): void {
  const { list, rows } = section;
  const keys = new Set(entries.map((entry) => entry.key));
  for (const [key, row] of rows) {
    if (keys.has(key)) continue;
    row.element.remove();
    rows.delete(key);
  }
  entries.forEach((entry, at) => {
    let row = rows.get(entry.key);
    if (!row) rows.set(entry.key, (row = new Row(entry)));
    row.show(entry);
    if (list.children[at] !== row.element) list.insertBefore(row.element, list.children[at] ?? null);
  });
  put(section.empty, nothing);
  section.empty.hidden = entries.length > 0;
}

function figures(summary: Summary): string {
  const parts: string[] = [];
  if (summary.seconds !== undefined && !isUnderWay(summary)) parts.push(seconds(summary.seconds));
  if (summary.costUsd !== undefined) {
    parts.push(cost({ cost: summary.costUsd ?? 0, unknown: summary.costUsd === null ? 1 : 0, calls: 0 }));
  }
  return parts.join(" \u00b7 ");
}

function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  parent?: HTMLElement,
  text?: string,
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
}

function button(parent: HTMLElement, label: string, title: string): HTMLButtonElement {
  const element = make("button", "rlm-runs-button", parent, label);
  element.type = "button";
  element.title = title;
  return element;
}

function put(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
