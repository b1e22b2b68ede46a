// What jsdom lacks of a browser, and the tree or Jupyter's packages use.
const nothing = () => undefined;

class NoResizes implements ResizeObserver {
  observe = nothing;
  unobserve = nothing;
  disconnect = nothing;
}

Object.assign(globalThis, { ResizeObserver: NoResizes, DragEvent: MouseEvent });
HTMLCanvasElement.prototype.getContext = () => null;
