// The extension's plugins. One that needs what a front end lacks does nothing there: tokens are optional.
import type { JupyterFrontEndPlugin } from "@jupyterlab/application";

import { bridge } from "./bridge";
import renderer from "./renderer";
import runs from "./runs";

const plugins: JupyterFrontEndPlugin<void>[] = [renderer, runs, bridge];

export default plugins;
