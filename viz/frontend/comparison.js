// One site in several models: a 3D picture for each, all with the same layer, head, atom and camera. `model` holds layer,
// head and atom, and a header and bytes for each scene. Texts that come from files are set as text, never as HTML.

import { edgeWeights, frameText, isTied, strongestEdges, decode } from "./crystal.js";
import { followTheme, keepKeys, legend, make, onArrows, pageModel, percent, slider, structureBox, tiedBadge, without3D } from "./controls.js";
import { Structure } from "./structure.js";

const STATE = ["layer", "head", "atom"];

/** Build the comparison in `el` and keep it up to date with `model`. Returns a function that ends it. */
function render({ model, el }) {
  const data = model.get("data");
  const crystals = model.get("headers").map((header, n) => decode(header, data[n]));
  const names = model.get("names");
  const sizes = model.get("sizes");
  const ui = build(crystals, names, sizes);
  el.append(ui.root);
  const state = () => Object.fromEntries(STATE.map((name) => [name, model.get(name)]));
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const pick = { onPick: (atom) => set("atom", atom) };
  let structures = [];
  let waiting = 0;

  const draw = () => {
    waiting = 0;
    const now = state();
    ui.show(now);
    crystals.forEach((crystal, n) => {
      const weights = edgeWeights(crystal, now.layer, now.head);
      const lines = strongestEdges(crystal, weights, now.atom, model.get("n_lines"));
      structures[n]?.draw({ ...now, frames: "selected", polyhedra: "selected" }, { edges: lines.edges, weights });
      ui.panels[n].show(caption(crystal, now, lines, weights), isTied(crystal, now.layer, now.head, now.atom));
    });
  };
  // Changes before the next frame of the browser are drawn together.
  const redraw = () => (waiting ||= requestAnimationFrame(draw));
  for (const name of STATE) model.on(`change:${name}`, redraw);

  const step = (name, by) => set(name, Math.min(sizes[name] - 1, Math.max(0, state()[name] + by)));
  const keys = { ArrowUp: ["layer", 1], ArrowDown: ["layer", -1], ArrowRight: ["head", 1], ArrowLeft: ["head", -1] };
  for (const panel of ui.panels) onArrows(panel.structure, keys, step);
  for (const name of ["layer", "head"]) {
    ui[name].input.addEventListener("input", () => set(name, Number(ui[name].input.value)));
  }
  ui.atom.addEventListener("change", () => set("atom", Number(ui.atom.value)));
  const stopThemes = crystals.map(({ palette }) => {
    delete ui.root.dataset.theme;
    return followTheme(ui.root, palette, redraw);
  });

  // A 3D viewer needs an element with a size: in a hidden tab it is made when the tab is shown.
  const watcher = new ResizeObserver(() => {
    if (structures.length || !ui.panels[0].structure.clientWidth) return;
    structures = crystals.map((crystal, n) => makeStructure(ui.panels[n], crystal, pick, model.get("view")));
    turnTogether(structures.filter(Boolean));
    redraw();
  });
  watcher.observe(ui.panels[0].structure);
  // For tests and for the console.
  ui.root.comparison = { crystals, model, structures: () => structures };

  return () => {
    watcher.disconnect();
    for (const stop of stopThemes) stop();
    for (const name of STATE) model.off(`change:${name}`, redraw);
  };
}

function makeStructure(panel, crystal, pick, view) {
  try {
    return new Structure(library, panel.structure, crystal, pick, view);
  } catch (error) {
    without3D(panel.structure, "frame_comparison_figure");
    return null;
  }
}

/** When one picture is turned or zoomed, all others follow. Redrawing alone moves none. */
function turnTogether(structures) {
  let last = "";
  for (const structure of structures) {
    structure.onView((view) => {
      if (view.join() === last) return;
      last = view.join();
      for (const other of structures) if (other !== structure) other.lookFrom(view);
    });
  }
}

// --- what is on the page ----------------------------------------------------------------------------------------------

function build(crystals, names, sizes) {
  const { labels, formula, palette } = crystals[0];
  const hasSets = crystals.some(({ otherAxis }) => otherAxis.length);
  const layer = slider("Layer", sizes.layer);
  const head = slider("Head", sizes.head);
  // Methods are compared at one layer and head, so there is no Play button.
  for (const part of [layer, head]) part.play.remove();
  const atom = make("select", { attributes: { "aria-label": "Atom whose frame and attention are shown" } });
  atom.append(...labels.slice(0, sizes.atom).map((label, n) => new Option(label, n)));
  const panels = names.map(panel);
  const root = make(
    "div",
    { className: "cf-explorer cf-comparison" },
    make(
      "div",
      { className: "cf-inside" },
      make("div", { className: "cf-head" }, make("span", { className: "cf-title" }, formula)),
      make("div", { className: "cf-controls" }, layer.group, head.group, make("label", {}, "Atom ", atom)),
      make("div", { className: "cf-panels" }, ...panels.map(({ root }) => root)),
      legend(palette, true, "attention, weak to strong, relative to the strongest line of each picture", hasSets),
    ),
  );
  keepKeys(root);
  const show = (now) => {
    layer.show(now.layer);
    head.show(now.head);
    atom.value = now.atom;
  };
  return { root, layer, head, atom, panels, show };
}

/** One model: its name, its picture and its caption. */
function panel(name) {
  const tied = tiedBadge();
  const structure = structureBox(name);
  const said = make("p", { className: "cf-caption", attributes: { "aria-live": "polite" } });
  const root = make(
    "div",
    { className: "cf-panel" },
    make("div", { className: "cf-head" }, make("span", { className: "cf-subtitle" }, name), tied),
    structure,
    said,
  );
  const show = (text, isTied) => {
    said.textContent = text;
    tied.hidden = !isTied;
  };
  return { root, structure, show };
}

function caption(crystal, { layer, head, atom }, { edges, itself }, weights) {
  const share = edges.reduce((sum, edge) => sum + weights[edge], 0);
  const text = `${edges.length} lines carry ${percent(share)} of the attention, ${percent(itself)} stays on the atom.`;
  return `${text} ${crystal.axes ? frameText(crystal, layer, head, atom) : "This model has no frames."}`;
}

export default { render, pageModel };
