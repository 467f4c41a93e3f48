// The explorer: controls, structure, heatmap and distance curve of one crystal. It runs in a notebook (anywidget) and in
// a separate page. `model` holds layer, head (null: mean over heads), atom, frames and polyhedra. Texts that come from
// files are set as text, never as HTML.

import { attentionByDistance, attentionMatrix, edgeWeights, frameText, isTied, strongestEdges, decode } from "./crystal.js";
import { keepKeys, legend, make, onArrows, pageModel, percent, slider, structureBox, tiedBadge, without3D } from "./controls.js";
import { Heatmap } from "./heatmap.js";
import { Profile } from "./profile.js";
import { Structure } from "./structure.js";

const PLAY_INTERVAL = 900; // ms
const PNG_SCALE = 4;
const STATE = ["layer", "head", "atom", "frames", "polyhedra"];

/** Build the explorer in `el` and keep it up to date with `model`. Returns a function that ends it. */
function render({ model, el }) {
  const crystal = decode(model.get("header"), model.get("data"));
  const ui = build(crystal);
  el.append(ui.root);
  const state = () => Object.fromEntries(STATE.map((name) => [name, model.get(name)]));
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const pick = (atom) => set("atom", atom);
  const heatmap = new Heatmap(ui.heatmap, crystal, pick, ui.point);
  const profile = new Profile(ui.profile, crystal, ui.point);
  let structure = null;
  let waiting = 0;

  const draw = () => {
    waiting = 0;
    const now = state();
    const { layer, head, atom } = now;
    const weights = edgeWeights(crystal, layer, head);
    const lines = strongestEdges(crystal, weights, atom, model.get("n_lines"));
    heatmap.draw(attentionMatrix(crystal, weights), atom);
    const decay = head === null ? null : crystal.decayLength[(layer * crystal.nHeads + head) * crystal.nQueries + atom];
    profile.draw(attentionByDistance(crystal, weights, atom), decay);
    structure?.draw(now, { edges: lines.edges, weights });
    ui.show(now, caption(crystal, now, lines, weights), model.get("n_lines"));
  };
  // Changes before the next frame of the browser are drawn together.
  const redraw = () => (waiting ||= requestAnimationFrame(draw));
  for (const name of STATE) model.on(`change:${name}`, redraw);

  const stopControls = connect(ui, crystal, state, set);
  ui.png.addEventListener("click", () => save(structure.png(PNG_SCALE), fileName(crystal, state())));

  // A 3D viewer needs an element with a size: in a hidden tab it is made when the tab is shown.
  const watcher = new ResizeObserver(() => {
    if (!structure && ui.structure.clientWidth) {
      structure = makeStructure(ui, crystal, pick, model.get("view"));
      redraw();
    }
    heatmap.redraw();
    profile.redraw();
  });
  for (const element of [ui.structure, ui.heatmap, ui.profile]) watcher.observe(element);
  // For tests and for the console.
  ui.root.explorer = { crystal, heatmap, model, structure: () => structure };

  return () => {
    watcher.disconnect();
    stopControls();
    for (const name of STATE) model.off(`change:${name}`, redraw);
  };
}

function makeStructure(ui, crystal, pick, view) {
  try {
    return new Structure(library, ui.structure, crystal, pick, view);
  } catch (error) {
    without3D(ui.structure, "structure_figure");
    ui.png.disabled = true;
    return null;
  }
}

const WHICH = [
  ["all atoms", "all"],
  ["this atom", "selected"],
  ["none", "none"],
];

// --- what is on the page ----------------------------------------------------------------------------------------------

function build(crystal) {
  const { labels, nLayers, nHeads, palette, axes } = crystal;
  const layer = slider("Layer", nLayers);
  const head = slider("Head", nHeads);
  const mean = make("input", { type: "checkbox", attributes: { "aria-label": "Mean over heads" } });
  const atom = make("select", { attributes: { "aria-label": "Atom whose attention is shown" } });
  atom.append(...labels.slice(0, crystal.nQueries).map((label, n) => new Option(label, n)));
  const frames = make("select", { attributes: { "aria-label": "Atoms whose frames are drawn" } });
  frames.append(...WHICH.map((choice) => new Option(...choice)));
  const polyhedra = make("select", { attributes: { "aria-label": "Atoms around which polyhedra are drawn" } });
  polyhedra.append(...WHICH.map((choice) => new Option(...choice)));
  polyhedra.disabled = !crystal.faces.length;
  const png = make("button", { type: "button", title: "Save the structure as a PNG picture" }, "PNG");
  png.setAttribute("aria-label", "Save the structure as a PNG picture");

  const structure = structureBox("Crystal structure");
  const heatmap = make("canvas", {
    className: "cf-heatmap",
    tabIndex: 0,
    attributes: {
      role: "application",
      "aria-roledescription": "heatmap",
      "aria-label": "Attention from query atoms (rows) to key atoms (columns). Arrow keys up and down, or a click, choose the atom.",
    },
  });
  const profile = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  profile.setAttribute("class", "cf-profile");
  profile.setAttribute("role", "img");
  const said = make("p", { className: "cf-caption", attributes: { "aria-live": "polite" } });
  const tip = make("div", { className: "cf-tip", hidden: true });
  const title = make("span", { className: "cf-title" });
  const profileTitle = make("div", { className: "cf-subtitle" });
  const heatmapTitle = make("div", { className: "cf-subtitle" });

  const tied = tiedBadge();
  const head_line = make(
    "div",
    { className: "cf-head" },
    title,
    make("span", { className: "cf-badge", title: "Frame method" }, `frames: ${crystal.method}`),
    tied,
    ...crystal.prediction.map(prediction),
  );
  const controls = make(
    "div",
    { className: "cf-controls" },
    layer.group,
    head.group,
    make("label", {}, mean, "mean over heads"),
    make("label", {}, "Atom ", atom),
    make("label", {}, "Frames ", frames),
    make("label", {}, "Polyhedra ", polyhedra),
    png,
  );

  const root = make(
    "div",
    { className: "cf-explorer" },
    make(
      "div",
      { className: "cf-inside" },
      head_line,
      controls,
      said,
      make(
        "div",
        { className: "cf-pictures" },
        make("div", { className: "cf-left" }, structure, legend(palette, axes, "attention, weak to strong", crystal.otherAxis.length > 0)),
        make("div", { className: "cf-right" }, heatmapTitle, heatmap, profileTitle, profile),
      ),
      tip,
    ),
  );
  keepKeys(root);
  root.style.setProperty("--ink", palette.ink);
  title.textContent = crystal.title;

  const show = (now, text) => {
    layer.show(now.layer);
    head.show(now.head);
    mean.checked = now.head === null;
    atom.value = now.atom;
    frames.value = now.frames;
    frames.disabled = !axes || now.head === null;
    polyhedra.value = now.polyhedra;
    const where = `layer ${now.layer}, ${now.head === null ? "mean of all heads" : `head ${now.head}`}`;
    heatmapTitle.textContent = `Attention, ${where}`;
    profileTitle.textContent = `Attention of ${labels[now.atom]} by distance (bars: per shell, line: total within)`;
    profile.setAttribute("aria-label", `${profileTitle.textContent}, ${where}`);
    tied.hidden = now.head === null || !isTied(crystal, now.layer, now.head, now.atom);
    said.textContent = text;
  };
  const point = (text, event) => {
    tip.hidden = text === null;
    if (text === null) return;
    tip.textContent = text;
    const box = root.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX - box.left + 12, box.width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${event.clientY - box.top - 34}px`;
  };
  return { root, layer, head, mean, atom, frames, polyhedra, png, structure, heatmap, profile, show, point };
}

function prediction({ name, value, unit }) {
  return make("span", { className: "cf-prediction" }, `${name} `, make("b", {}, value.toPrecision(4)), ` ${unit}`);
}

/** Let controls and keys set values of the model. Returns a function that stops playing. */
function connect(ui, crystal, state, set) {
  const timers = { layer: 0, head: 0 };
  const sizes = { layer: crystal.nLayers, head: crystal.nHeads, atom: crystal.nQueries };
  const step = (name, by) => {
    const value = state()[name];
    const last = sizes[name] - 1;
    set(name, value === null ? (by > 0 ? 0 : last) : Math.min(last, Math.max(0, value + by)));
  };
  const stop = (name) => {
    clearInterval(timers[name]);
    timers[name] = 0;
    ui[name].play.textContent = "▶";
    ui[name].play.setAttribute("aria-pressed", "false");
  };
  for (const name of ["layer", "head"]) {
    const { input, play, size } = ui[name];
    input.addEventListener("input", () => set(name, Number(input.value)));
    play.addEventListener("click", () => {
      if (timers[name]) return stop(name);
      timers[name] = setInterval(() => set(name, ((state()[name] ?? -1) + 1) % size), PLAY_INTERVAL);
      play.textContent = "⏸";
      play.setAttribute("aria-pressed", "true");
    });
  }
  ui.mean.addEventListener("change", () => set("head", ui.mean.checked ? null : Number(ui.head.input.value)));
  ui.atom.addEventListener("change", () => set("atom", Number(ui.atom.value)));
  ui.frames.addEventListener("change", () => set("frames", ui.frames.value));
  ui.polyhedra.addEventListener("change", () => set("polyhedra", ui.polyhedra.value));
  onArrows(ui.structure, { ArrowUp: ["layer", 1], ArrowDown: ["layer", -1], ArrowRight: ["head", 1], ArrowLeft: ["head", -1] }, step);
  onArrows(ui.heatmap, { ArrowUp: ["atom", -1], ArrowDown: ["atom", 1] }, step);
  return () => Object.keys(timers).forEach(stop);
}

// --- words ------------------------------------------------------------------------------------------------------------

/** The caption; the same as in viz/drawings.py. */
function caption(crystal, { layer, head, atom }, { edges, itself }, weights) {
  const which = head === null ? "mean of all heads" : `head ${head}`;
  let text = `${crystal.labels[atom]}, layer ${layer}, ${which}`;
  if (edges.length) {
    const share = edges.reduce((sum, edge) => sum + weights[edge], 0);
    text += `: the ${edges.length} strongest lines carry ${percent(share)} of its attention`;
    text += `, ${percent(itself)} stays on the atom`;
  }
  if (!crystal.axes) return `${text}. This model has no frames (method none).`;
  if (head === null) return `${text}. Each head has its own frames: choose a head to see axes.`;
  return `${text}. ${frameText(crystal, layer, head, atom)}`;
}

function fileName(crystal, { layer, head, atom }) {
  const which = head === null ? "mean" : `head${head}`;
  return `${crystal.formula}-${crystal.labels[atom]}-layer${layer}-${which}.png`;
}

function save(url, name) {
  make("a", { href: url, download: name }).click();
}

export default { render, pageModel };
