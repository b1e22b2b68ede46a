// Traces in outputs, and files that hold one, open as the tree.
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ILayoutRestorer } from "@jupyterlab/application";
import { WidgetTracker } from "@jupyterlab/apputils";
import { MimeDocumentFactory, type MimeDocument } from "@jupyterlab/docregistry";
import { IRenderMimeRegistry } from "@jupyterlab/rendermime";
import type { IRenderMime } from "@jupyterlab/rendermime-interfaces";

import { runIcon } from "./icon";
import { MIME_TYPE } from "./trace";
import { TraceView } from "./view";

/** The name by which a file is opened as a run. */
export const FACTORY = "RLM run";

const plugin: JupyterFrontEndPlugin<void> = {
  id: "@rlm-kernel/labextension:renderer",
  description: "Shows the trace of a run as a tree, in outputs and files.",
  autoStart: true,
  requires: [IRenderMimeRegistry],
  optional: [ILayoutRestorer],
  activate: (app: JupyterFrontEnd, rendermime: IRenderMimeRegistry, restorer: ILayoutRestorer | null) => {
    const factory: IRenderMime.IRendererFactory = {
      safe: true,
      mimeTypes: [MIME_TYPE],
      createRenderer: (options) => new TraceView(options, app.serviceManager.contents),
    };
    // Before HTML, which is the same run for those who have no renderer.
    rendermime.addFactory(factory, 10);

    const { docRegistry } = app;
    docRegistry.addFileType({
      name: "rlm-run",
      displayName: "RLM run",
      extensions: [".rlm.json"],
      mimeTypes: [MIME_TYPE],
      fileFormat: "text",
      icon: runIcon,
    });
    // As rlm_kernel/notebook/bundle.py names what it writes beside a notebook.
    docRegistry.addFileType({
      name: "rlm-trajectory",
      displayName: "RLM trajectory",
      pattern: "^\\d{8}T\\d{6}-[0-9a-f]{6}\\.jsonl$",
      mimeTypes: [MIME_TYPE],
      fileFormat: "text",
      icon: runIcon,
    });
    const documents = new MimeDocumentFactory({
      name: FACTORY,
      primaryFileType: docRegistry.getFileType("rlm-run"),
      fileTypes: ["rlm-run", "rlm-trajectory", "jsonl"],
      defaultFor: ["rlm-run", "rlm-trajectory"],
      rendermime,
      dataType: "string",
      factory,
    });
    docRegistry.addWidgetFactory(documents);

    const tracker = new WidgetTracker<MimeDocument>({ namespace: "rlm-run" });
    documents.widgetCreated.connect((_, widget) => {
      widget.title.icon = runIcon;
      widget.context.pathChanged.connect(() => void tracker.save(widget));
      void tracker.add(widget);
    });
    void restorer?.restore(tracker, {
      command: "docmanager:open",
      args: (widget) => ({ path: widget.context.path, factory: FACTORY }),
      name: (widget) => widget.context.path,
    });
  },
};

export default plugin;
