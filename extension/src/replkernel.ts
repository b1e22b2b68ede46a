// The kernelspec `rlm-repl`: JupyterLite's Pyodide kernel, without the drive and with a stdin of its own.
//
// JupyterLite is not there in plain JupyterLab, so its modules are asked for at run time, and nothing is
// registered where there are none. Kernel class, runtime and packages are those of the page's own Python kernel.
import type { JupyterFrontEnd } from "@jupyterlab/application";
import { PageConfig, URLExt } from "@jupyterlab/coreutils";
import type { KernelMessage } from "@jupyterlab/services";
import type { IKernel, IKernelClient } from "@jupyterlite/services";

import { REPL_KERNEL } from "./protocol";
import type { JupyterMessage } from "./protocol";
import { Stdin } from "./stdin";

/** The settings of the page's Python kernel: where Pyodide and its packages are. */
const PYTHON = "@jupyterlite/pyodide-kernel-extension:kernel";
/** Those that differ for ours, under the same names. */
const OWN = "@rlm-kernel/labextension:repl";

/** What the worker needs for a kernel; all else is loaded when code imports it. */
const PACKAGES = ["micropip", "piplite", "ipykernel", "comm", "pyodide-kernel", "jedi", "ipython"];

const FATAL = /^Pyodide has (suffered a fatal error|exited)/;

export interface Watcher {
  /** A cell waits for input; what is answered is an `input_reply`. */
  input(request: JupyterMessage, answer: (reply: JupyterMessage) => void): void;
  /** The kernel will not answer any more. */
  broken(reason: string): void;
}

/** The kernels of this kernelspec, by id, for those who have started them. */
export class ReplKernels {
  constructor(app: JupyterFrontEnd) {
    this.available = this.#register(app);
  }

  /** Whether this is JupyterLite, and the kernelspec is registered. */
  readonly available: Promise<boolean>;

  watch(id: string, watcher: Watcher): void {
    this.#watchers.set(id, watcher);
    const reason = this.#broken.get(id);
    if (reason !== undefined) watcher.broken(reason);
  }

  unwatch(id: string): void {
    this.#watchers.delete(id);
  }

  async #register(app: JupyterFrontEnd): Promise<boolean> {
    const lite = await import("@jupyterlite/services").catch(() => undefined);
    const specs = lite && (await app.resolveOptionalService(lite.IKernelSpecs));
    if (!specs) return false;
    this.#client = await app.resolveOptionalService(lite.IKernelClient);
    specs.register({
      spec: {
        name: REPL_KERNEL,
        display_name: "Python (RLM's REPL)",
        language: "python",
        argv: [],
        resources: {},
      },
      create: (options) => this.#create(options),
    });
    return true;
  }

  async #create(options: IKernel.IOptions): Promise<IKernel> {
    const { PyodideKernel } = await import("@jupyterlite/pyodide-kernel");
    this.#stdin ??= new Stdin();
    const { id } = options;
    const context = this.#stdin.open((request, answer) => {
      this.#input(id, request, answer);
    });
    const kernel = new PyodideKernel({
      ...options,
      ...settings(),
      location: "",
      mountDrive: false,
      browsingContextId: context,
      logger: ({ payload }) => {
        if (FATAL.test(payload.data)) this.#break(id, payload.data.split("\n", 2).join(" "));
      },
    });
    this.#broken.delete(id);
    kernel.ready.catch((reason: unknown) => {
      this.#stdin?.close(context);
      this.#break(id, String(reason));
    });
    return kernel;
  }

  #input(id: string, request: JupyterMessage, answer: (reply: JupyterMessage) => void): void {
    const watcher = this.#watchers.get(id);
    if (watcher) {
      watcher.input(request, answer);
      return;
    }
    // A person has chosen this kernel for a notebook.
    void this.#client?.handleStdin(request as unknown as KernelMessage.IInputRequestMsg).then((reply) => {
      answer(reply as unknown as JupyterMessage);
    });
  }

  #break(id: string, reason: string): void {
    this.#broken.set(id, reason);
    this.#watchers.get(id)?.broken(reason);
  }

  #client: IKernelClient | null = null;
  #stdin: Stdin | undefined;
  readonly #watchers = new Map<string, Watcher>();
  readonly #broken = new Map<string, string>();
}

interface Settings {
  pyodideUrl: string;
  pipliteWheelUrl?: string;
  pipliteUrls: string[];
  disablePyPIFallback: boolean;
  loadPyodideOptions: Record<string, unknown>;
}

function settings(): Settings {
  const all = JSON.parse(PageConfig.getOption("litePluginSettings") || "{}") as Record<
    string,
    Partial<Settings>
  >;
  const given = { ...all[PYTHON], ...all[OWN] };
  if (!given.pyodideUrl) throw new Error(`the page's settings of ${PYTHON} have no pyodideUrl`);
  const options: Record<string, unknown> = {
    ...all[PYTHON]?.loadPyodideOptions,
    packages: PACKAGES,
    ...all[OWN]?.loadPyodideOptions,
  };
  for (const [name, value] of Object.entries(options)) {
    if (name.endsWith("URL") && typeof value === "string") {
      options[name] = new URL(value, PageConfig.getBaseUrl()).href;
    }
  }
  return {
    pyodideUrl: URLExt.parse(given.pyodideUrl).href,
    ...(given.pipliteWheelUrl ? { pipliteWheelUrl: URLExt.parse(given.pipliteWheelUrl).href } : {}),
    pipliteUrls: (given.pipliteUrls ?? []).map((url) => URLExt.parse(url).href),
    disablePyPIFallback: given.disablePyPIFallback ?? false,
    loadPyodideOptions: options,
  };
}
