// Puts cells into the notebook, below the output that this stands in.
//
// No message of a kernel adds more than one cell (JupyterLab takes the first `set_next_input` of a reply, and
// no other). A page whose widget manager belongs to a document can: JupyterLab, Notebook. It is done once for
// each name, which the cells bear. Elsewhere the code is shown, to be copied.

const WIDGET = "application/vnd.jupyter.widget-view+json";

/** Return the notebook's own list of cells and the index of the one with our output; null where there is none. */
function place(model) {
  const notebook = model.widget_manager?.context?.model;
  const own = notebook?.sharedModel;
  if (typeof own?.insertCells !== "function") return null;
  for (let at = 0; at < notebook.cells.length; at += 1) {
    const outputs = notebook.cells.get(at).outputs;
    for (let each = 0; each < (outputs?.length ?? 0); each += 1) {
      if (outputs.get(each).data[WIDGET]?.model_id === model.get("_id")) return { own, at };
    }
  }
  return null;
}

function insert({ own, at }, name, sources) {
  if (own.cells.some((cell) => cell.getMetadata().rlm?.inserted === name)) return;
  const metadata = { tags: ["rlm-cell"], rlm: { inserted: name } };
  own.insertCells(at + 1, sources.map((source) => ({ cell_type: "code", source, metadata: structuredClone(metadata) })));
}

export default {
  render({ model, el }) {
    const found = place(model);
    const sources = model.get("_sources");
    if (found) {
      insert(found, model.get("_name"), sources);
      model.send({ op: "inserted" });
      return;
    }
    const note = document.createElement("p");
    note.textContent = model.get("_elsewhere");
    const code = document.createElement("pre");
    code.textContent = sources.join("\n\n");
    el.append(note, code);
  },
};
