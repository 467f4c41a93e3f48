// Views side by side, of several models, structures, layers, heads or atoms. `model` holds layer, head and atom, which all
// views share unless `own` has them (a list with one for each view), and a header and bytes for each scene.

import { decode } from "./crystal.js";
import { followTheme, formulaParts, keepKeys, legend, make, onArrows, pageModel, slider, tick } from "./controls.js";
import { Panel, turnTogether } from "./panel.js";

const CHOICES = ["layer", "head", "atom"];

/** Build the comparison in `el` and keep it up to date with `model`. Returns a function that ends it. */
function render({ model, el }) {
  const data = model.get("data");
  const crystals = model.get("headers").map((header, n) => decode(header, data[n]));
  const sizes = model.get("sizes");
  const state = (n) => {
    const own = model.get("own");
    const now = Object.fromEntries(CHOICES.map((name) => [name, own[name] ? own[name][n] : model.get(name)]));
    return { ...now, frames: "selected", polyhedra: "selected", mode: "attention", n_lines: model.get("n_lines") };
  };
  /** Set a choice of one view, which is that of all views unless they have their own. */
  const set = (n, name, value) => {
    const own = model.get("own");
    if (own[name]) model.set("own", { ...own, [name]: own[name].map((before, k) => (k === n ? value : before)) });
    else model.set(name, value);
    model.save_changes();
  };
  /** Let all views have the same, that of the first one, or let each have its own. */
  const share = (name, isShared) => {
    const { [name]: values, ...others } = model.get("own");
    if (isShared && values) model.set(name, values[0]);
    model.set("own", isShared ? others : { ...others, [name]: crystals.map(() => model.get(name)) });
    model.save_changes();
  };
  const ui = build(crystals, model.get("names"), sizes, { set, share });
  el.append(ui.root);
  let waiting = 0;
  let isOpen = false;

  const draw = () => {
    waiting = 0;
    ui.show(model.get("own"), state);
    ui.panels.forEach((panel, n) => panel.draw(state(n)));
  };
  // Changes before the next frame of the browser are drawn together.
  const redraw = () => (waiting ||= requestAnimationFrame(draw));
  for (const name of [...CHOICES, "own"]) model.on(`change:${name}`, redraw);

  const keys = { ArrowUp: ["layer", 1], ArrowDown: ["layer", -1], ArrowRight: ["head", 1], ArrowLeft: ["head", -1] };
  ui.panels.forEach((panel, n) => {
    onArrows(panel.box, keys, (name, by) => set(n, name, Math.min(sizes[name] - 1, Math.max(0, state(n)[name] + by))));
  });
  const stopThemes = crystals.map(({ palette }) => followTheme(ui.root, palette, redraw));

  // A 3D viewer needs an element with a size: in a hidden tab it is made when the tab is shown.
  const watcher = new ResizeObserver(() => {
    if (isOpen || !ui.panels[0].box.clientWidth) return;
    isOpen = true;
    ui.panels.forEach((panel, n) => panel.open({ onPick: (atom) => set(n, "atom", atom) }, model.get("view")));
    turnTogether(ui.panels.map(({ structure }) => structure).filter(Boolean), model.get("is_same"));
    redraw();
  });
  watcher.observe(ui.panels[0].box);
  // For tests and for the console.
  ui.root.comparison = { crystals, model, structures: () => ui.panels.map(({ structure }) => structure).filter(Boolean) };

  return () => {
    cancelAnimationFrame(waiting);
    watcher.disconnect();
    for (const stop of stopThemes) stop();
    for (const panel of ui.panels) panel.end();
    for (const name of [...CHOICES, "own"]) model.off(`change:${name}`, redraw);
  };
}

// --- what is on the page ----------------------------------------------------------------------------------------------

function build(crystals, names, sizes, { set, share }) {
  const { palette } = crystals[0];
  const formulas = [...new Set(crystals.map(({ formula }) => formula))];
  const title = formulas.flatMap((formula, n) => [...(n ? [", "] : []), ...formulaParts(formula)]);
  const hasSets = crystals.some(({ otherAxis }) => otherAxis.length);
  const common = chooser(crystals[0], sizes, "", (name, value) => set(0, name, value));
  const shared = Object.fromEntries(CHOICES.map((name) => [name, tick(`same ${name}`, (isSame) => share(name, isSame))]));
  const choosers = names.map((name, n) => chooser(crystals[n], sizes, ` of ${name}`, (what, value) => set(n, what, value)));
  const panels = names.map((name, n) => new Panel(name, crystals[n], "frame_comparison_figure", choosers[n].root));
  const root = make(
    "div",
    { className: "cf-explorer cf-comparison" },
    make(
      "div",
      { className: "cf-inside" },
      make("div", { className: "cf-head" }, make("span", { className: "cf-title" }, ...title)),
      make("div", { className: "cf-controls" }, common.root, ...CHOICES.map((name) => shared[name].group)),
      make("div", { className: "cf-panels" }, ...panels.map((panel) => panel.root)),
      legend(palette, true, "attention, weak to strong, relative to the strongest line of each picture", hasSets),
    ),
  );
  keepKeys(root);
  const show = (own, state) => {
    for (const name of CHOICES) {
      shared[name].input.checked = !own[name];
      common.show(name, state(0)[name], !own[name]);
      choosers.forEach((one, n) => one.show(name, state(n)[name], Boolean(own[name])));
    }
  };
  return { root, panels, show };
}

/** Controls of layer, head and atom, of one view or of all; `of` ends their names. */
function chooser({ labels }, sizes, of, set) {
  const sliders = {};
  const parts = {};
  for (const name of ["layer", "head"]) {
    const one = slider(name === "layer" ? "Layer" : "Head", sizes[name]);
    one.play.remove(); // a comparison stays at one place
    if (of) one.input.setAttribute("aria-label", `${name === "layer" ? "Layer" : "Head"}${of}`);
    one.input.addEventListener("input", () => set(name, Number(one.input.value)));
    [sliders[name], parts[name]] = [one, one.group];
  }
  const list = make("select", { attributes: { "aria-label": of ? `Atom${of}` : "Atom whose frame and attention are shown" } });
  list.append(...labels.slice(0, sizes.atom).map((label, n) => new Option(label, n)));
  list.addEventListener("change", () => set("atom", Number(list.value)));
  parts.atom = make("label", {}, "Atom ", list);
  const root = make("span", { className: "cf-controls cf-chooser" }, ...Object.values(parts));
  const show = (name, value, isThere) => {
    parts[name].hidden = !isThere;
    if (name === "atom") list.value = value;
    else sliders[name].show(value);
    root.hidden = Object.values(parts).every(({ hidden }) => hidden);
  };
  return { root, show };
}

/** The model on a page: the bytes of all scenes follow each other, `bytes` says how many each has. */
function comparisonModel({ bytes, data, ...values }) {
  let end = 0;
  const parts = bytes.map((size) => new DataView(data.buffer, data.byteOffset + (end += size) - size, size));
  return pageModel({ ...values, data: parts });
}

export default { render, pageModel: comparisonModel };
