// The in-browser bridge: a notebook's kernel asks for kernels of its own, and talks to them through the page.
//
// It opens a comm that names a BroadcastChannel: messages of a comm do not reach a kernel in JupyterLite while a
// cell runs, those of the channel do. Where there is no kernelspec `rlm-repl`, as in plain JupyterLab, no such
// comm is answered.
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import type { ISessionContext } from "@jupyterlab/apputils";
import type { Kernel } from "@jupyterlab/services";
import type { Widget } from "@lumino/widgets";

import { startKernel } from "./connected";
import { isObject, TARGET } from "./protocol";
import { Relay } from "./relay";
import type { Listener, ReplKernel } from "./relay";
import { ReplKernels } from "./replkernel";

/** One relay for each kernel that has asked. */
class Bridges {
  constructor(app: JupyterFrontEnd, repls: ReplKernels) {
    this.#kernels = app.serviceManager.kernels;
    this.#repls = repls;
    this.#kernels.runningChanged.connect((_, models) => {
      const running = new Set(models.map((model) => model.id));
      for (const id of [...this.#relays.keys()]) if (!running.has(id)) this.#drop(id);
    });
  }

  /** Answer `kernel` when it asks. */
  serve(kernel: Kernel.IKernelConnection): void {
    kernel.registerCommTarget(TARGET, (_, message) => {
      const { data } = message.content;
      if (!isObject(data) || typeof data.channel !== "string") return;
      // Of another version it is told ours, and says what to do.
      this.#open(kernel.id, data.channel);
    });
    kernel.statusChanged.connect((_, status) => {
      if (status === "restarting" || status === "autorestarting" || status === "dead") this.#drop(kernel.id);
    });
  }

  #open(id: string, channel: string): void {
    // Two views of one notebook hear the same comm.
    if (this.#relays.get(id)?.channel === channel) return;
    this.#drop(id);
    const start = (listener: Listener, givenUp: AbortSignal): Promise<ReplKernel> =>
      startKernel(this.#kernels, this.#repls, listener, givenUp);
    this.#relays.set(id, new Relay(new BroadcastChannel(channel), start));
  }

  #drop(id: string): void {
    this.#relays.get(id)?.dispose();
    this.#relays.delete(id);
  }

  readonly #kernels: Kernel.IManager;
  readonly #repls: ReplKernels;
  readonly #relays = new Map<string, Relay>();
}

interface WithKernel extends Widget {
  readonly context?: { readonly sessionContext: ISessionContext };
  readonly sessionContext?: ISessionContext;
}

export const bridge: JupyterFrontEndPlugin<void> = {
  id: "@rlm-kernel/labextension:bridge",
  description: "Starts kernels for a notebook's kernel in the browser.",
  autoStart: true,
  activate: async (app: JupyterFrontEnd) => {
    const repls = new ReplKernels(app);
    if (!(await repls.available)) return;
    const bridges = new Bridges(app, repls);
    const serve = (context: ISessionContext): void => {
      const kernel = context.session?.kernel;
      if (kernel) bridges.serve(kernel);
      context.kernelChanged.connect((_, { newValue }) => {
        if (newValue) bridges.serve(newValue);
      });
    };
    app.docRegistry.addWidgetExtension("Notebook", {
      createNew: (widget: WithKernel) => {
        if (widget.context) serve(widget.context.sessionContext);
      },
    });
  },
};
