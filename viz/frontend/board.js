// All layers (rows) and heads (columns) at a glance: a sketch of what the chosen atom sees in each. A click chooses one.

import { edgeValues, edgeWeights, strongestEdges } from "./crystal.js";
import { make, percent } from "./controls.js";
import { NEAREST, sketch } from "./sketch.js";

const SLICE = 8; // ms of drawing in one frame of the browser, so that nothing else waits
const SEEN = 0.9; // share of all lines that ends inside the sketches, which share one scale
const N_LINES = 12; // more would hide each other

export class Board {
  #crystal;
  #pick;
  #cells = [];
  #state = null;
  #camera = null;
  #drawnAs = "";
  #waiting = [];
  #frame = 0;
  #isSeen = false;
  #watcher;

  /** `pick(layer, head)` is called when a cell is chosen. */
  constructor(crystal, pick) {
    this.#crystal = crystal;
    this.#pick = pick;
    const { nLayers, nHeads } = crystal;
    const head = (text) => make("span", { className: "cf-board-head", attributes: { "aria-hidden": "true" } }, text);
    const rows = Array.from({ length: nLayers }, (_, layer) => {
      const cells = Array.from({ length: nHeads }, (_, number) => this.#cell(layer, number));
      this.#cells.push(...cells);
      return [head(`layer ${layer}`), ...cells.map(({ button }) => button)];
    });
    const grid = make(
      "div",
      { className: "cf-board-grid", attributes: { role: "radiogroup", "aria-label": "All layers and heads" } },
      head(""),
      ...Array.from({ length: nHeads }, (_, number) => head(`head ${number}`)),
      ...rows.flat(),
    );
    grid.style.setProperty("--heads", nHeads);
    this.words = make("p", { className: "cf-board-words" });
    this.root = make(
      "details",
      { className: "cf-board", open: true },
      make("summary", {}, "All layers and heads"),
      this.words,
      make("div", { className: "cf-scroll" }, grid),
    );
    // Nothing is drawn while the board is out of sight.
    this.#watcher = new IntersectionObserver(([{ isIntersecting }]) => {
      this.#isSeen = isIntersecting;
      this.#refresh();
    });
    this.#watcher.observe(grid);
  }

  #cell(layer, head) {
    const canvas = make("canvas", { attributes: { "aria-hidden": "true" } });
    const words = make("span", { className: "cf-board-number" });
    const attributes = { role: "radio", "aria-checked": "false", "aria-label": `Layer ${layer}, head ${head}` };
    const button = make("button", { type: "button", tabIndex: -1, attributes }, canvas, words);
    button.addEventListener("click", () => this.#pick(layer, head));
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    button.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      const { nLayers, nHeads } = this.#crystal;
      const [down, right] = [Math.min(nLayers - 1, Math.max(0, layer + step[0])), Math.min(nHeads - 1, Math.max(0, head + step[1]))];
      this.#cells[down * nHeads + right].button.focus();
      this.#pick(down, right);
    });
    return { layer, head, canvas, words, button };
  }

  /** Mark the chosen head at once, and draw the sketches soon, if they have changed. */
  show(state) {
    this.#state = state;
    const { layer, head } = state;
    const { nHeads } = this.#crystal;
    this.#cells.forEach(({ button }, n) => {
      const isChosen = head !== null && n === layer * nHeads + head;
      button.setAttribute("aria-checked", String(isChosen));
      button.tabIndex = isChosen || (head === null && n === layer * nHeads) ? 0 : -1;
    });
    this.#refresh();
  }

  /** See everything from the side of a camera: rows right, up and towards the viewer. */
  turn(camera) {
    this.#camera = camera;
    this.#refresh();
  }

  /** Whether all sketches are as they should be (for tests). */
  get isDrawn() {
    return this.#drawnAs !== "" && !this.#waiting.length;
  }

  end() {
    cancelAnimationFrame(this.#frame);
    this.#watcher.disconnect();
  }

  #refresh() {
    if (!this.#state || !this.#camera || !this.#isSeen) return;
    const { atom, mode } = this.#state;
    const { paper } = this.#crystal.palette;
    const name = JSON.stringify([atom, mode === "relevance", paper, this.#camera, this.#cells[0].button.clientWidth]);
    if (name === this.#drawnAs) return;
    this.#drawnAs = name;
    this.words.textContent =
      `What ${this.#crystal.labels[atom]} sees in each head. Under each sketch: the mean distance of the neighbours by ` +
      "attention, and the share of the attention that stays on the atom.";
    const found = this.#cells.map((cell) => ({ ...cell, ...this.#lines(cell) }));
    const lengths = found.flatMap(({ edges }) => edges.map((edge) => this.#crystal.edgeLength[edge])).sort((a, b) => a - b);
    const reach = Math.max(NEAREST, lengths[Math.floor(SEEN * (lengths.length - 1))] ?? 0);
    this.#waiting = found.map((cell) => () => this.#draw(cell, reach));
    this.#frame ||= requestAnimationFrame(() => this.#slice());
  }

  #lines({ layer, head }) {
    const { atom, mode } = this.#state;
    const isSigned = mode === "relevance";
    const weights = edgeValues(this.#crystal, isSigned ? mode : "attention", layer, head);
    const { edges } = strongestEdges(this.#crystal, weights, atom, N_LINES);
    return { edges, weights, isSigned };
  }

  #slice() {
    const end = performance.now() + SLICE;
    while (this.#waiting.length && performance.now() < end) this.#waiting.shift()();
    this.#frame = this.#waiting.length ? requestAnimationFrame(() => this.#slice()) : 0;
  }

  #draw({ layer, head, canvas, words, button, edges, weights, isSigned }, reach) {
    const size = canvas.clientWidth;
    const density = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: Math.round(size * density), height: Math.round(size * density) });
    const pen = canvas.getContext("2d");
    pen.scale(density, density);
    const { atom } = this.#state;
    sketch(pen, size, this.#crystal, { layer, head, atom }, { edges, weights, isSigned }, this.#camera, reach);
    const { distance, itself } = this.#numbers(layer, head, atom);
    words.textContent = `${distance ? `${distance.toFixed(1)} Å` : "–"}, ${percent(itself)}`;
    const where = distance ? `neighbours at ${distance.toFixed(2)} Å on average, ` : "";
    const long = `Layer ${layer}, head ${head}: ${where}${percent(itself)} of the attention stays on the atom`;
    Object.assign(button, { title: long });
    button.setAttribute("aria-label", long);
  }

  /** Mean distance of the neighbours by attention (Å), and the share that stays on the atom. */
  #numbers(layer, head, atom) {
    const { edgeStart, edgeLength } = this.#crystal;
    const weights = edgeWeights(this.#crystal, layer, head);
    let [itself, away, sum] = [0, 0, 0]; // shares, and distances by share
    for (let edge = edgeStart[atom]; edge < edgeStart[atom + 1]; edge++) {
      if (edgeLength[edge] === 0) itself += weights[edge];
      else [away, sum] = [away + weights[edge], sum + weights[edge] * edgeLength[edge]];
    }
    return { distance: away > this.#crystal.faint ? sum / away : 0, itself };
  }
}
