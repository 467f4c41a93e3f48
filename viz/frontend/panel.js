// Pictures side by side: each with a name and a caption, turned and zoomed together.

import { edgeValues, frameText, isTied, quantityOf, signed, strongestEdges } from "./crystal.js";
import { make, percent, structureBox, tiedBadge, without3D } from "./controls.js";
import { Structure } from "./structure.js";

/** One of several pictures. `figure` is the function of viz that draws a still picture where there is no WebGL. */
export class Panel {
  #crystal;
  #figure;
  #tied = tiedBadge();
  #said = make("p", { className: "cf-caption", attributes: { "aria-live": "polite" } });
  #name;

  /** `parts` are elements for the head of the panel, after its name. */
  constructor(name, crystal, figure, ...parts) {
    this.#crystal = crystal;
    this.#figure = figure;
    this.#name = make("span", { className: "cf-subtitle" }, name);
    this.box = structureBox(name);
    this.structure = null;
    const head = make("div", { className: "cf-head" }, this.#name, this.#tied, ...parts);
    this.root = make("div", { className: "cf-panel" }, head, this.box, this.#said);
  }

  /** Make the picture; the box must have a size. `calls` are those of `Structure`. */
  open(calls, view) {
    try {
      this.structure = new Structure(library, this.box, this.#crystal, calls, view);
    } catch (error) {
      without3D(this.box, this.#figure);
    }
  }

  /** Draw a state of `Structure`, with its mode and number of lines. */
  draw(state) {
    const { layer, head, atom, mode, n_lines } = state;
    const weights = edgeValues(this.#crystal, mode, layer, head);
    const quantity = quantityOf(this.#crystal, mode);
    const lines = strongestEdges(this.#crystal, weights, atom, n_lines);
    this.structure?.draw(state, { edges: lines.edges, weights, quantity });
    this.#said.textContent = this.#caption(state, lines, weights, quantity);
    this.#tied.hidden = head === null || !isTied(this.#crystal, layer, head, atom);
  }

  call(name) {
    this.#name.textContent = name;
  }

  end() {
    this.structure?.end();
    this.structure = null;
  }

  #caption({ layer, head, atom }, { edges, itself }, weights, { isSigned, unit }) {
    const sum = edges.reduce((total, edge) => total + weights[edge], 0);
    if (isSigned) return `${edges.length} lines, ${signed(sum)} ${unit} in total.`;
    const text = `${edges.length} lines carry ${percent(sum)} of the attention, ${percent(itself)} stays on the atom.`;
    if (!this.#crystal.axes) return `${text} This model has no frames.`;
    return head === null ? text : `${text} ${frameText(this.#crystal, layer, head, atom)}`;
  }
}

/**
 * When one picture is turned, moved or zoomed, the others follow: pictures of the same crystal (`isSame`) show the same
 * part of it, others turn and zoom by as much. Redrawing alone moves none. Returns a function that ends this.
 */
export function turnTogether(structures, isSame) {
  const last = new Map(structures.map((structure) => [structure, null]));
  let isFollowing = false;
  if (isSame) for (const structure of structures) structure.fitWith(structures.filter((other) => other !== structure));
  const stops = structures.map((structure) =>
    structure.onView((view) => {
      const before = last.get(structure);
      const scale = structure.scale;
      last.set(structure, { view: [...view], scale });
      if (isFollowing || (before && view.join() === before.view.join())) return;
      isFollowing = true;
      for (const other of structures) {
        if (other === structure) continue;
        if (isSame) other.lookFrom(view);
        else if (before) other.follow(view, scale / before.scale);
        last.set(other, { view: [...other.view()], scale: other.scale });
      }
      isFollowing = false;
    }),
  );
  return () => {
    for (const stop of stops) stop();
    for (const structure of structures) structure.fitWith([]);
  };
}
