import { LabIcon } from "@jupyterlab/ui-components";

// A root with three branches, in the colour of the theme's icons.
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <circle cx="5" cy="12" r="3"/><circle cx="19" cy="5" r="2.5"/><circle cx="19" cy="12" r="2.5"/>
    <circle cx="19" cy="19" r="2.5"/>
  </g>
  <path class="jp-icon-selectable-stroke jp-icon3-stroke" fill="none" stroke="#616161" stroke-width="1.5"
    d="M5 12h14M5 12c6 0 5-7 14-7M5 12c6 0 5 7 14 7"/>
</svg>`;

export const runIcon = new LabIcon({ name: "rlm-kernel:run", svgstr: SVG });
