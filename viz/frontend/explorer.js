// The explorer: controls, structure, heatmap and distance curve of one crystal. It runs in a notebook (anywidget) and in
// a separate page. `model` holds layer, head (null: mean over heads), atom, frames, polyhedra, number of lines and the
// display. Texts that come from files are set as text, never as HTML.

import { Board } from "./board.js";
import { cameraAt } from "./camera.js";
import {
  attentionByDistance, attentionMatrix, decode, edgeValues, frameText, isTied, largestOf, quantityOf, signed, siteValues, strongestEdges,
} from "./crystal.js";
import {
  button, choice, followTheme, formulaParts, keepKeys, legend, make, onArrows, pageModel, percent, slider, spaceGroupParts, structureBox, tick, tiedBadge, without3D,
} from "./controls.js";
import { cif, csv, lineRows, saveAs } from "./files.js";
import { Heatmap } from "./heatmap.js";
import { Panel, turnTogether } from "./panel.js";
import { Profile } from "./profile.js";
import { drawFlat } from "./sketch.js";
import { ELEMENT, startingDisplay, Structure, valueColor } from "./structure.js";
import { whyPanel } from "./why.js";

const PLAY_INTERVAL = 900; // ms
const STATE = ["layer", "head", "atom", "frames", "polyhedra", "n_lines", "display", "mode", "pinned"];
const SETTLE = 150; // ms after which a turned crystal has come to rest
const TURN = 10; // degrees for each key
const ZOOM = 1.15;

/** Build the explorer in `el` and keep it up to date with `model`. Returns a function that ends it. */
function render({ model, el }) {
  let end = renderCrystal({ model, el });
  // Another crystal: its header and data change together.
  let isWaiting = false;
  const replace = () => {
    isWaiting = false;
    end();
    end = renderCrystal({ model, el });
  };
  const soon = () => {
    if (!isWaiting) queueMicrotask(replace);
    isWaiting = true;
  };
  for (const name of ["header", "data"]) model.on(`change:${name}`, soon);
  return () => {
    for (const name of ["header", "data"]) model.off(`change:${name}`, soon);
    end();
    end = () => {};
  };
}

function renderCrystal({ model, el }) {
  const crystal = decode(model.get("header"), model.get("data"));
  const first = startingDisplay(crystal);
  const state = () => {
    const now = Object.fromEntries(STATE.map((name) => [name, model.get(name)]));
    return { ...now, mode: now.mode ?? "attention", pinned: now.pinned ?? {}, display: { ...first, ...now.display } };
  };
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const act = { set, state, show: (name, value) => set("display", { ...state().display, [name]: value }) };
  const ui = build(crystal, act);
  el.append(ui.root);
  const pick = (atom) => set("atom", atom);
  const heatmap = new Heatmap(ui.heatmap, crystal, pick, ui.point);
  const profile = new Profile(ui.profile, crystal, ui.point);
  const board = new Board(crystal, (layer, head) => {
    model.set("layer", layer);
    set("head", head);
  });
  ui.boardPlace.replaceWith(board.root);
  keepKeys(board.root);
  const pins = new Pins(ui, crystal, model);
  let structure = null;
  let waiting = 0;
  let shown = { lines: { edges: [] }, weights: [] };
  let flat = null; // a canvas instead of the structure, without WebGL
  const fixed = new Map(); // ends of fixed scales
  const fixedEnd = (mode, atom) => {
    const name = `${mode} ${atom}`;
    if (!fixed.has(name)) fixed.set(name, largestOf(crystal, mode, atom));
    return fixed.get(name);
  };

  const draw = () => {
    waiting = 0;
    const now = state();
    const { layer, head, atom, mode } = now;
    const weights = edgeValues(crystal, mode, layer, head);
    const quantity = quantityOf(crystal, mode);
    const lines = strongestEdges(crystal, weights, atom, now.n_lines);
    shown = { lines, weights, quantity };
    ui.show(now, caption(crystal, now, lines, weights, quantity), quantity);
    const { scale } = now.display;
    const ends = scale === "fixed" ? [fixedEnd(mode, null), fixedEnd(mode, atom)] : [null, undefined];
    heatmap.draw(attentionMatrix(crystal, weights, quantity.isSigned), atom, quantity, { name: scale, highest: ends[0] });
    if (!quantity.isSigned) {
      const decay = head === null ? null : crystal.decayLength[(layer * crystal.nHeads + head) * crystal.nQueries + atom];
      profile.draw(attentionByDistance(crystal, weights, atom), decay);
    }
    structure?.draw(now, { edges: lines.edges, weights, quantity, highest: ends[1] });
    if (flat) drawFlat(flat, crystal, now, { edges: lines.edges, weights, isSigned: quantity.isSigned }, cameraAt(model.get("view")));
    pins.draw(now, structure);
    board.show(now);
    if (ui.table.open) ui.fillTable(lineRows(crystal, lines, weights));
  };
  // Changes before the next frame of the browser are drawn together.
  const redraw = () => (waiting ||= requestAnimationFrame(draw));
  for (const name of STATE) model.on(`change:${name}`, redraw);

  const stopControls = connect(ui, crystal, act, () => structure, () => shown);
  const stopTheme = followTheme(ui.root, crystal.palette, redraw);
  ui.table.addEventListener("toggle", redraw);

  // A 3D viewer needs an element with a size: in a hidden tab it is made when the tab is shown.
  let settling = 0;
  const settle = () => {
    clearTimeout(settling);
    settling = setTimeout(() => structure && board.turn(structure.rows.map((row) => row.map((x) => Math.round(1e4 * x) / 1e4))), SETTLE);
  };
  const watcher = new ResizeObserver(() => {
    if (!structure && !flat && ui.structure.clientWidth) {
      [structure, flat] = makeStructure(ui, crystal, pick, model.get("view"));
      structure?.onView(() => settle());
      if (flat) board.turn(cameraAt(model.get("view")));
      redraw();
    }
    heatmap.redraw();
    profile.redraw();
  });
  for (const element of [ui.structure, ui.heatmap, ui.profile]) watcher.observe(element);
  // For tests and for the console.
  ui.root.explorer = { board, crystal, heatmap, model, pinned: () => pins.structure, structure: () => structure };

  return () => {
    watcher.disconnect();
    cancelAnimationFrame(waiting);
    clearTimeout(settling);
    stopControls();
    stopTheme();
    board.end();
    pins.end();
    structure?.end();
    ui.root.remove();
    for (const name of STATE) model.off(`change:${name}`, redraw);
  };
}

/** The picture in 3D; without WebGL a canvas instead. */
function makeStructure(ui, crystal, onPick, view) {
  try {
    return [new Structure(library, ui.structure, crystal, { onPick, onPoint: ui.point }, view), null];
  } catch (error) {
    for (const element of ui.needs3D) element.disabled = true;
    return [null, without3D(ui.structure, "structure_figure")];
  }
}

/** A second picture beside the first: of the layer, head and atom that were pinned. */
class Pins {
  #ui;
  #crystal;
  #model;
  #panel = null;
  #part = () => {}; // ends turning together

  constructor(ui, crystal, model) {
    [this.#ui, this.#crystal, this.#model] = [ui, crystal, model];
  }

  get structure() {
    return this.#panel?.structure ?? null;
  }

  draw(now, structure) {
    const isPinned = Number.isInteger(now.pinned.layer);
    this.#ui.root.classList.toggle("cf-has-pin", isPinned);
    this.#ui.view.pin.setAttribute("aria-pressed", String(isPinned));
    if (!isPinned || !structure) return this.end();
    if (!this.#panel) this.#open(structure);
    const { layer, head, atom } = now.pinned;
    const which = head === null ? "mean over heads" : `head ${head}`;
    this.#panel.call(`Pinned: ${this.#crystal.labels[atom]}, layer ${layer}, ${which}`);
    this.#panel.draw({ ...now, layer, head, atom });
  }

  #open(structure) {
    const unpin = button("✕", "Take the pinned view away", () => this.#set({}));
    const swap = button("⇄", "Exchange the two views", () => {
      const pinned = this.#model.get("pinned");
      const now = Object.fromEntries(["layer", "head", "atom"].map((name) => [name, this.#model.get(name)]));
      for (const [name, value] of Object.entries(pinned)) this.#model.set(name, value);
      this.#set(now);
    });
    this.#panel = new Panel("Pinned view", this.#crystal, "structure_figure", make("span", { className: "cf-controls" }, swap, unpin));
    this.#ui.pinned.replaceChildren(this.#panel.root);
    keepKeys(this.#ui.pinned);
    const pick = (atom) => this.#set({ ...this.#model.get("pinned"), atom });
    this.#panel.open({ onPick: pick, onPoint: this.#ui.point }, this.#model.get("view"));
    if (!this.structure) return;
    this.#part = turnTogether([structure, this.structure], true);
  }

  #set(pinned) {
    this.#model.set("pinned", pinned);
    this.#model.save_changes();
  }

  end() {
    this.#part();
    this.#part = () => {};
    this.#panel?.end();
    this.#panel = null;
    this.#ui.pinned.replaceChildren();
  }
}

const WHICH = [
  ["all atoms", "all"],
  ["this atom", "selected"],
  ["none", "none"],
];
const REPEATS = [[1, 1, 1], [2, 1, 1], [1, 2, 1], [1, 1, 2], [2, 2, 1], [2, 2, 2], [3, 3, 1], [3, 3, 3]];
const KEYS = [
  ["↑ ↓", "next or previous layer"],
  ["→ ←", "next or previous head"],
  ["Shift + arrows", "turn the crystal"],
  ["+ −", "zoom in and out; also the wheel, after a click on the picture"],
  ["0, double click", "the view at first"],
  ["a b c", "look along a lattice vector"],
  ["f", "fly to the chosen atom, and turn about it"],
  ["u", "the view before the last change"],
  ["n p", "next or previous unique site"],
  ["s", "pin this layer, head and atom beside; again: take the pinned view away"],
  ["m, Shift + click", "measure; also the button, then clicks: two atoms a distance, three an angle, four a dihedral angle"],
  ["Esc", "forget the measurement"],
  ["?", "this help"],
];
const MEANINGS = [
  ["Relevance", "the derivative of the prediction with respect to the logarithm of the weight of a neighbour: to first order what it loses without it. Dashed: lowers the prediction."],
  ["Effect of removal", "the change of the prediction if this neighbour alone is hidden from this atom, in all layers and heads."],
  ["Contributions", "colours and numbers of the atoms: they and the base add up to the prediction."],
  ["Lines", "where the chosen atom attends: wide and dark is strong. Pale atoms are in other cells."],
  ["e₁ e₂ e₃", "the axes of the local frame of this head. Pale axes are those of other frames of a weighted set, or of a frame that changes nothing."],
  ["Polyhedra", "around atoms with four or more ligands, by the bond rule of the analysis. Large cations beside a framework have none."],
  ["σ", "decay length: attention falls with distance r as exp(−r²/2σ²)."],
];

// --- what is on the page ----------------------------------------------------------------------------------------------

function build(crystal, act) {
  const { labels, nLayers, nHeads, palette, axes } = crystal;
  const layer = slider("Layer", nLayers);
  const head = slider("Head", nHeads);
  const mean = make("input", { type: "checkbox", attributes: { "aria-label": "Mean over heads" } });
  const atom = atomList(crystal);
  const frames = choice("Frames", "Atoms whose frames are drawn", WHICH, (value) => act.set("frames", value));
  const polyhedra = choice("Polyhedra", "Atoms around which polyhedra are drawn", WHICH, (value) => act.set("polyhedra", value));
  polyhedra.input.disabled = !crystal.faces.length;

  const view = {
    reset: button("⟲", "Show the whole crystal (0)"),
    a: button("a", "Look along a"),
    b: button("b", "Look along b"),
    c: button("c", "Look along c"),
    fly: button("◎", "Fly to the chosen atom (f)"),
    undo: button("↶", "The view before the last change (u)"),
    measure: button("measure", "Measure by clicks on atoms: two a distance, three an angle, four a dihedral angle"),
    pin: button("pin", "Pin this layer, head and atom beside (s)"),
    full: button("full", "Fill the screen"),
    help: button("?", "Keys and meanings (?)"),
  };
  const saves = {
    png: button("PNG", "Save the structure as a PNG picture"),
    svg: button("SVG", "Save the structure as an SVG picture"),
    csv: button("CSV", "Save the attention lines as a table (CSV)"),
    cif: button("CIF", "Save the crystal (CIF)"),
  };
  const size = choice("", "Size of the PNG picture", [["4×", 4], ["2×", 2], ["1×", 1], ["4×, clear", "clear"]], () => {});
  const modes = [["attention", "attention"], ["relevance", "relevance"]];
  if (crystal.removal) modes.push(["effect of removal", "removal"]);
  const mode = choice("Lines show", "What lines and heatmap show", modes, (value) => act.set("mode", value));
  const ticks = {
    bonds: tick("bonds", (value) => act.show("bonds", value)),
    edges: tick("cell", (value) => act.show("edges", value)),
    images: tick("images", (value) => act.show("images", value)),
    labels: tick("labels", (value) => act.show("labels", value)),
    ...(crystal.gradient && { gradient: tick("gradient", (value) => act.show("gradient", value)) }),
  };
  const nLines = make("input", { type: "number", min: 0, max: 999, attributes: { "aria-label": "Number of attention lines" } });
  nLines.addEventListener("change", () => act.set("n_lines", Math.max(0, Math.round(Number(nLines.value) || 0))));
  const cells = [
    ...crystal.cells.map(({ name }, n) => [name, String(n)]),
    ...(crystal.cellEdges.length ? REPEATS.slice(1).map((repeats) => [repeats.join(" × "), repeats.join()]) : []),
  ];
  const cell = choice("Cell", "Cell that is drawn", cells, (value) => {
    const repeats = value.includes(",") ? value.split(",").map(Number) : [1, 1, 1];
    act.set("display", { ...act.state().display, cell: value.includes(",") ? 0 : Number(value), repeats });
  });

  const colors = [["elements", ELEMENT], ...siteValues(crystal).map(({ name }) => [name, name])];
  const color = choice("Colour", "What colours the atoms", colors, (value) => act.show("color", value));
  const scales = [["of this head", "own"], ["fixed", "fixed"], ["logarithmic", "log"]];
  const scale = choice("Scale", "Scale of heatmap and lines: of this head, the same for all layers and heads, or logarithmic", scales, (value) => act.show("scale", value));

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
  const distance = make("p", { className: "cf-measure", hidden: true, attributes: { "aria-live": "polite" } });
  const tip = make("div", { className: "cf-tip", hidden: true });
  const name = crystal.name ? ` · ${crystal.name}` : "";
  const title = make("span", { className: "cf-title" }, ...(crystal.isRegion ? [crystal.title] : [...formulaParts(crystal.formula), name]));
  const profileTitle = make("div", { className: "cf-subtitle" });
  const heatmapTitle = make("div", { className: "cf-subtitle" });
  const rows = make("tbody");
  const heads = ["rank", "atom", "image", "distance (Å)", "attention"].map((text) => make("th", { attributes: { scope: "col" } }, text));
  const tableTitle = make("summary", {}, "Attention lines as a table");
  const why = whyPanel(crystal);
  const table = make(
    "details",
    { className: "cf-table" },
    tableTitle,
    make("table", {}, make("thead", {}, make("tr", {}, ...heads)), rows),
  );
  const elements = elementLegend(crystal, act);
  const strength = legend(palette, axes, "attention, weak to strong", crystal.otherAxis.length > 0);
  const signs = make(
    "div",
    { className: "cf-legend" },
    make("span", { className: "cf-raising" }),
    make("span", { className: "cf-lowering" }, "lowers it"),
    make("span", {}, "arrows: where a moving atom raises it"),
  );
  const valueScale = make("div", { className: "cf-values", hidden: true });

  const tied = tiedBadge();
  const badge = (text, about) => make("span", { className: "cf-badge", title: about }, ...[text].flat());
  const head_line = make(
    "div",
    { className: "cf-head" },
    title,
    ...(crystal.spaceGroup ? [badge(spaceGroupParts(crystal.spaceGroup), "Space group")] : []),
    badge(`frames: ${crystal.method}`, "Frame method"),
    tied,
  );
  const predictions = make("p", { className: "cf-predictions" }, ...crystal.prediction.map(prediction));
  const flags = crystal.flags.map(({ title: text, reason }) => make("p", { className: "cf-badge cf-flag" }, `${text}: ${reason}`));
  const controls = make(
    "div",
    { className: "cf-controls" },
    ...(crystal.explanation ? [mode.group] : []),
    layer.group,
    head.group,
    make("label", {}, mean, "mean over heads"),
    make("label", {}, "Atom ", atom),
  );
  const bar = make(
    "div",
    { className: "cf-controls cf-bar" },
    make("span", { className: "cf-group" }, ...Object.values(view)),
    ...Object.values(ticks).map(({ group }) => group),
    frames.group,
    polyhedra.group,
    make("label", {}, "Lines ", nLines),
    scale.group,
    cell.group,
    ...(colors.length > 1 ? [color.group] : []),
    make("span", { className: "cf-group" }, saves.png, size.group, saves.svg, saves.csv, saves.cif),
  );
  const help = helpDialog();
  const pinned = make("div", { className: "cf-pinned" });
  const boardPlace = make("div");

  const root = make(
    "div",
    { className: "cf-explorer" },
    make(
      "div",
      { className: "cf-inside" },
      head_line,
      predictions,
      ...flags,
      controls,
      make(
        "div",
        { className: "cf-pictures" },
        make(
          "div",
          { className: "cf-left" },
          structure,
          said,
          bar,
          distance,
          elements.root,
          valueScale,
          strength,
          ...(why ? [signs] : []),
        ),
        pinned,
        make(
          "div",
          { className: "cf-right" },
          make("div", {}, heatmapTitle, heatmap),
          make("div", {}, profileTitle, profile),
          ...(why ? [why] : []),
        ),
      ),
      boardPlace,
      table,
      make("p", { className: "cf-footer" }, crystal.origin),
      tip,
      help,
    ),
  );
  keepKeys(root);

  const show = (now, text, quantity) => {
    mode.input.value = now.mode;
    strength.querySelector(".cf-lines").hidden = quantity.isSigned;
    signs.firstChild.textContent = now.mode === "removal" ? "hiding it raises the prediction" : "raises the prediction";
    profile.toggleAttribute("hidden", quantity.isSigned);
    profileTitle.hidden = quantity.isSigned;
    heads[4].textContent = quantity.unit ? `${quantity.name} (${quantity.unit})` : quantity.name;
    tableTitle.textContent = quantity.isSigned ? "Lines as a table" : "Attention lines as a table";
    layer.show(now.layer);
    head.show(now.head);
    mean.checked = now.head === null;
    atom.value = now.atom;
    frames.input.value = now.frames;
    frames.input.disabled = !axes || now.head === null;
    polyhedra.input.value = now.polyhedra;
    nLines.value = now.n_lines;
    for (const [name, { input }] of Object.entries(ticks)) input.checked = now.display[name];
    const { repeats, cell: chosen } = now.display;
    cell.input.value = repeats.some((n) => n > 1) ? repeats.join() : String(chosen);
    elements.show(now.display.hidden);
    const shown = siteValues(crystal).find((value) => value.name === now.display.color);
    elements.root.classList.toggle("cf-uncoloured", Boolean(shown));
    color.input.value = shown?.name ?? ELEMENT;
    scale.input.value = now.display.scale;
    valueScale.hidden = !shown;
    if (shown) valueScale.replaceChildren(...valueLegend(crystal, shown));
    const all = quantity.isSigned ? "all heads together" : "mean of all heads";
    const where = `layer ${now.layer}, ${now.head === null ? all : `head ${now.head}`}`;
    const name = quantity.name[0].toUpperCase() + quantity.name.slice(1);
    heatmapTitle.textContent = now.mode === "removal" ? `${name}, all layers and heads` : `${name}, ${where}`;
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
    tip.style.left = `${Math.max(4, Math.min(event.clientX - box.left + 12, box.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${event.clientY - box.top - 34}px`;
  };
  const fillTable = (lines) => {
    const cells = (row) => ["rank", "atom", "image", "distance", "attention"].map((name) => make("td", {}, String(row[name])));
    rows.replaceChildren(...lines.map((row) => make("tr", {}, ...cells(row))));
  };
  const say = (text) => {
    distance.hidden = !text;
    distance.textContent = text;
  };
  const { full: _full, help: _help, ...ofPicture } = view;
  const needs3D = [...Object.values(ofPicture), saves.png, saves.svg];
  return {
    root, layer, head, mean, atom, structure, heatmap, profile, table, view, saves, size: size.input, help, needs3D,
    show, point, fillTable, say, pinned, boardPlace, state: act.state,
  };
}

/** The atoms by unique site: `Ti 2a × 2: Ti1, Ti2`. */
function atomList({ labels, nQueries, sites }) {
  const list = make("select", { attributes: { "aria-label": "Atom whose attention is shown" } });
  const option = (atom) => new Option(labels[atom], atom);
  if (sites.every(({ atoms }) => atoms.length === 1)) {
    list.append(...Array.from({ length: nQueries }, (_, atom) => option(atom)));
    return list;
  }
  for (const { name, atoms } of sites) {
    const group = make("optgroup", { label: `${name}${atoms.length > 1 ? `, ${atoms.length} atoms` : ""}` });
    group.append(...atoms.map(option));
    list.append(group);
  }
  return list;
}

/** A button for each element, which hides and shows it. */
function elementLegend({ elements }, act) {
  const buttons = elements.map(({ symbol, color }) => {
    const mark = make("span", { className: "cf-ball" });
    mark.style.background = color;
    const element = make("button", { type: "button", className: "cf-element", title: `Hide or show ${symbol}` }, mark, symbol);
    element.setAttribute("aria-label", `Show ${symbol}`);
    element.addEventListener("click", () => {
      const { hidden } = act.state().display;
      act.show("hidden", hidden.includes(symbol) ? hidden.filter((other) => other !== symbol) : [...hidden, symbol]);
    });
    return element;
  });
  const show = (hidden) => {
    elements.forEach(({ symbol }, n) => buttons[n].setAttribute("aria-pressed", String(!hidden.includes(symbol))));
  };
  return { root: make("div", { className: "cf-elements", attributes: { role: "group", "aria-label": "Elements" } }, ...buttons), show };
}

function helpDialog() {
  const list = (pairs) => make("dl", {}, ...pairs.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
  const close = button("Close", "Close the help");
  const dialog = make("dialog", { className: "cf-help", attributes: { "aria-label": "Help" } }, make("b", {}, "Keys, when the picture has the focus"), list(KEYS), make("b", {}, "What is drawn"), list(MEANINGS), close);
  close.addEventListener("click", () => dialog.close());
  return dialog;
}

/** A prediction in words from Python, with its interval if there is one. */
function prediction({ name, value, unit, interval }) {
  const range = interval ? make("span", { className: "cf-interval", title: interval.about }, ` (${interval.text})`) : "";
  return make("span", { className: "cf-prediction" }, `${name} `, make("b", {}, value), unit && `\u00a0${unit}`, range);
}

/** The colours of a value of the atoms. */
function valueLegend(crystal, shown) {
  const { name, unit, low, high, isSigned } = shown;
  const most = Math.max(-low, high);
  const ends = isSigned ? [-most, most] : [low, high];
  const colors = Array.from({ length: 9 }, (_, n) => valueColor(crystal, shown, ends[0] + (n / 8) * (ends[1] - ends[0])));
  const bar = make("span", { className: "cf-value-scale" });
  bar.style.background = `linear-gradient(to right, ${colors.join(", ")})`;
  const number = (value) => (isSigned ? signed(value) : value.toPrecision(3));
  return [make("span", {}, `atoms: ${name}${unit ? ` (${unit})` : ""} `), make("span", {}, number(ends[0])), bar, make("span", {}, number(ends[1]))];
}

/** Let controls and keys set values of the model. Returns a function that stops playing. */
function connect(ui, crystal, { set, state }, structure, shown) {
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

  const nextSite = (by) => {
    const { sites } = crystal;
    const here = sites.findIndex(({ atoms }) => atoms.includes(state().atom));
    set("atom", sites[(here + by + sites.length) % sites.length].atoms[0]);
  };
  const measure = () => ui.say(structure()?.measure() ?? "");
  const measureByClick = (isMeasuring) => {
    const picture = structure();
    if (!picture) return;
    picture.isMeasuring = isMeasuring;
    ui.view.measure.setAttribute("aria-pressed", String(isMeasuring));
    ui.say(isMeasuring ? "Choose the first atom" : "");
  };
  const forget = () => {
    structure()?.forget();
    measureByClick(false);
  };
  const actions = {
    0: () => structure()?.reset(),
    f: () => structure()?.fly(),
    a: () => structure()?.lookAlong(0),
    b: () => structure()?.lookAlong(1),
    c: () => structure()?.lookAlong(2),
    "+": () => structure()?.zoom(ZOOM),
    "=": () => structure()?.zoom(ZOOM),
    "-": () => structure()?.zoom(1 / ZOOM),
    u: () => structure()?.undo(),
    s: () => {
      const { layer, head, atom, pinned } = state();
      set("pinned", Number.isInteger(pinned.layer) ? {} : { layer, head, atom });
    },
    n: () => nextSite(1),
    p: () => nextSite(-1),
    m: measure,
    "?": () => ui.help.showModal(),
    Escape: forget,
  };
  const turns = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, TURN], ArrowDown: [0, -TURN] };
  ui.structure.addEventListener("keydown", (event) => {
    const turn = event.shiftKey && turns[event.key];
    const action = turn ? () => structure()?.turn(...turn) : actions[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    action();
  });
  onArrows(ui.structure, { ArrowUp: ["layer", 1], ArrowDown: ["layer", -1], ArrowRight: ["head", 1], ArrowLeft: ["head", -1] }, step);
  onArrows(ui.heatmap, { ArrowUp: ["atom", -1], ArrowDown: ["atom", 1] }, step);
  ui.structure.addEventListener("pointerup", (event) => {
    const words = (event.shiftKey || structure()?.isMeasuring) && structure()?.measurement();
    if (words) ui.say(words);
  });
  ui.view.measure.addEventListener("click", () => (structure()?.isMeasuring ? forget() : measureByClick(true)));

  for (const [name, key] of [["reset", "0"], ["a", "a"], ["b", "b"], ["c", "c"], ["fly", "f"], ["undo", "u"], ["pin", "s"], ["help", "?"]]) {
    ui.view[name].addEventListener("click", actions[key]);
  }
  ui.view.full.addEventListener("click", () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else ui.root.requestFullscreen?.();
  });
  const name = (ending) => fileName(crystal, state(), ending);
  ui.saves.png.addEventListener("click", async () => {
    const isClear = ui.size.value === "clear";
    saveAs(await structure().png(isClear ? 4 : Number(ui.size.value), isClear), name("png"));
  });
  ui.saves.svg.addEventListener("click", () => saveAs(structure().svg(), name("svg"), "image/svg+xml"));
  ui.saves.csv.addEventListener("click", () => {
    const { lines, weights, quantity } = shown();
    const about = caption(crystal, state(), lines, weights, quantity);
    saveAs(csv(lineRows(crystal, lines, weights), about, quantity), name("csv"), "text/csv");
  });
  ui.saves.cif.addEventListener("click", () => saveAs(cif(crystal), `${crystal.formula}.cif`, "chemical/x-cif"));
  return () => Object.keys(timers).forEach(stop);
}

// --- words ------------------------------------------------------------------------------------------------------------

/** The caption; the same as in viz/drawings.py. */
function caption(crystal, { layer, head, atom, n_lines: nLines }, { edges, itself }, weights, quantity) {
  if (quantity.isSigned) return signedCaption(crystal, { layer, head, atom }, edges, weights, quantity);
  const which = head === null ? "mean of all heads" : `head ${head}`;
  let text = `${crystal.labels[atom]}, layer ${layer}, ${which}`;
  if (edges.length) {
    const share = edges.reduce((sum, edge) => sum + weights[edge], 0);
    const n = Math.min(nLines, edges.length);
    const ties = edges.length > n ? ` and ${edges.length - n} as strong as the last` : "";
    text += `: the ${n} strongest lines${ties} carry ${percent(share)} of its attention`;
    text += `, ${percent(itself)} stays on the atom`;
  }
  if (!crystal.axes) return `${text}. This model has no frames (method none).`;
  if (head === null) return `${text}. Each head has its own frames: choose a head to see axes.`;
  return `${text}. ${frameText(crystal, layer, head, atom)}`;
}

function signedCaption(crystal, { layer, head, atom }, edges, weights, { name, unit }) {
  const of = name === "relevance" ? `, layer ${layer}, ${head === null ? "all heads together" : `head ${head}`}` : "";
  const sum = (sign) => edges.reduce((total, edge) => total + (sign * weights[edge] > 0 ? weights[edge] : 0), 0);
  const what = name === "relevance" ? "relevance" : "change of the prediction if each of them alone is hidden";
  const { isOrderBetter, aboutOrder } = crystal.explanation;
  const caution = name === "relevance" && !isOrderBetter ? `. ${aboutOrder}` : "";
  const inTotal = `${signed(sum(1))} and ${signed(sum(-1))}${unit && ` ${unit}`} in total`;
  return `${crystal.labels[atom]}${of}: ${what}, ${edges.length} lines, ${inTotal}${caution}`;
}

function fileName(crystal, { layer, head, atom }, ending) {
  const which = head === null ? "mean" : `head${head}`;
  return `${crystal.formula}-${crystal.labels[atom]}-layer${layer}-${which}.${ending}`;
}

export default { render, pageModel };
