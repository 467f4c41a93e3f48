// Attention of one atom by distance: a bar for each shell, and the total within each distance as a curve.

const [LEFT, RIGHT, TOP, BELOW] = [44, 12, 20, 36];

export class Profile {
  #svg;
  #palette;
  #onPoint;
  #content = null;

  /** `onPoint(text, event)` is called with the text for the nearest shell, or null. */
  constructor(svg, crystal, onPoint) {
    this.#svg = svg;
    this.#palette = crystal.palette;
    this.#onPoint = onPoint;
  }

  /** Draw the shells from `attentionByDistance`; `decayLength` (Å) is marked unless it is null. */
  draw(shells, decayLength) {
    this.#content = { shells, decayLength };
    this.redraw();
  }

  /** Draw the same again at the present size. */
  redraw() {
    const [width, height] = [this.#svg.clientWidth, this.#svg.clientHeight];
    if (!this.#content || !width) return;
    const { shells, decayLength } = this.#content;
    const { ink, attention } = this.#palette;
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#svg.replaceChildren();
    const farthest = Math.max(1, shells[shells.length - 1].distance) * 1.03;
    const x = (distance) => LEFT + (distance / farthest) * (width - LEFT - RIGHT);
    const y = (share) => height - BELOW - (share / 1.03) * (height - BELOW - TOP);

    for (const share of [0, 0.5, 1]) {
      this.#add("line", { x1: LEFT, x2: width - RIGHT, y1: y(share), y2: y(share), stroke: share ? "var(--line)" : ink });
      this.#text(share === 0.5 ? "0.5" : String(share), LEFT - 6, y(share) + 4, "end");
    }
    const step = farthest > 12 ? 4 : farthest > 5 ? 2 : 1;
    for (let distance = 0; distance <= farthest; distance += step) {
      this.#add("line", { x1: x(distance), x2: x(distance), y1: y(0), y2: y(0) + 4, stroke: ink });
      this.#text(String(distance), x(distance), y(0) + 16, "middle");
    }
    this.#text("distance (Å)", (LEFT + width - RIGHT) / 2, height - 5, "middle");
    this.#text("attention", 12, (y(0) + y(1)) / 2, "middle", { transform: `rotate(-90 12 ${(y(0) + y(1)) / 2})` });

    if (decayLength !== null && decayLength < farthest) {
      const at = x(decayLength);
      this.#add("line", { x1: at, x2: at, y1: y(0), y2: y(1), stroke: ink, "stroke-dasharray": "4 3", "stroke-opacity": 0.7 });
      this.#text(`σ ${decayLength.toFixed(2)} Å`, Math.max(at, LEFT + 30), y(1) - 5, "middle");
    }
    for (const shell of shells) {
      const bar = { x: x(shell.distance) - 2.5, y: y(shell.attention), width: 5, height: y(0) - y(shell.attention) };
      this.#add("rect", { ...bar, fill: attention });
    }
    const path = shells.map(({ distance, within }, n) => (n ? `H${x(distance)}V${y(within)}` : `M${x(distance)} ${y(within)}`));
    this.#add("path", { d: path.join("") + `H${width - RIGHT}`, fill: "none", stroke: ink, "stroke-width": 1.5 });
    this.#listen(shells, x, y, farthest);
  }

  /** Bars are narrow, so the pointer selects the nearest shell. */
  #listen(shells, x, y, farthest) {
    const area = { x: LEFT - 6, y: y(1), width: x(farthest) - LEFT + 6, height: y(0) - y(1), fill: "transparent" };
    const pad = this.#add("rect", area);
    pad.addEventListener("pointermove", (event) => {
      const distance = (shell) => Math.abs(x(shell.distance) - event.offsetX);
      const shell = shells.reduce((best, other) => (distance(other) < distance(best) ? other : best));
      const atoms = shell.nNeighbors === 1 ? "1 atom" : `${shell.nNeighbors} atoms`;
      const where = shell.distance ? `${shell.distance.toFixed(2)} Å, ${atoms}` : "the atom itself";
      this.#onPoint(`${where}: attention ${shell.attention.toFixed(3)}, total within ${shell.within.toFixed(3)}`, event);
    });
    pad.addEventListener("pointerleave", (event) => this.#onPoint(null, event));
  }

  #add(name, attributes) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    this.#svg.append(node);
    return node;
  }

  #text(text, x, y, anchor, attributes = {}) {
    const node = this.#add("text", { x, y, "text-anchor": anchor, fill: this.#palette.ink, "font-size": 11, ...attributes });
    node.textContent = text;
  }
}
