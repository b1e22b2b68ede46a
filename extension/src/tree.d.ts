// What the tree of the notebook's panel exports: rlm_kernel/notebook/static/tree.js, which is used as it stands.
declare module "*/static/tree.js" {
  /** An event of a run as JSON: one of those of rlm_kernel/events.py. */
  export interface RunEvent {
    readonly type: string;
    readonly [name: string]: unknown;
  }

  export interface Sum {
    readonly cost: number;
    readonly unknown: number;
    readonly calls: number;
  }

  export interface Host {
    readonly fetch?: (id: string) => Promise<RunEvent[]>;
    readonly onStop?: () => void;
    readonly onSay?: (text: string) => void;
  }

  export interface View {
    push(events: readonly RunEvent[]): void;
    reset(events: readonly RunEvent[]): void;
    schedule(): void;
    dispose(): void;
  }

  export class Fold {
    readonly root: { readonly sum: Sum; readonly began: number };
    readonly info: RunEvent | null;
    readonly end: RunEvent | null;
    take(event: RunEvent): void;
  }

  export const WORDS: Readonly<Record<string, string>>;
  export function cost(sum: Sum): string;
  export function seconds(value: number): string;
  export function mount(element: HTMLElement, host?: Host): View;
  export function readTrajectory(lines: readonly object[]): RunEvent[];
  export function finder(events: readonly RunEvent[]): (id: string) => Promise<RunEvent[]>;
}
