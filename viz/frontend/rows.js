// The table of the points that are shown: only the rows in sight are in the page, so 100,000 rows scroll at once.

import { make } from "./controls.js";
import { valueText } from "./records.js";

const HEIGHT = 27; // pixels of a row
const SPARE = 8; // rows above and below those in sight

export class Rows {
  #table;
  #calls;
  #box;
  #body;
  #above;
  #below;
  #heads;
  #grid;
  #order = new Uint32Array(0);
  #columns = [];
  #chosen = -1;
  #selected = null;
  #sort = { name: "", isDescending: false };
  #waiting = 0;

  /** `calls`: `choose(point)` and `sort(name)`. */
  constructor(box, table, calls) {
    [this.#table, this.#calls, this.#box] = [table, calls, box];
    this.#body = make("tbody");
    this.#above = make("tr", { attributes: { "aria-hidden": "true" } });
    this.#below = make("tr", { attributes: { "aria-hidden": "true" } });
    this.#heads = make("tr", { attributes: { "aria-rowindex": "1" } });
    this.#grid = make("table", { attributes: { "aria-label": "Crystals that are shown" } }, make("thead", {}, this.#heads), this.#body);
    box.append(this.#grid);
    box.addEventListener("scroll", () => this.redraw());
    box.addEventListener("keydown", (event) => this.#key(event));
    this.#body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-point]");
      if (row) this.#calls.choose(Number(row.dataset.point));
    });
  }

  /** The columns, in their order, and which one sorts. */
  setColumns(columns, sort) {
    [this.#columns, this.#sort] = [columns, sort];
    this.#heads.replaceChildren(
      ...columns.map((column) => {
        const isSorting = column.name === sort.name;
        const mark = isSorting ? (sort.isDescending ? " ▼" : " ▲") : "";
        const button = make("button", { type: "button", title: `Sort by ${column.label}` }, `${column.label}${mark}`);
        button.addEventListener("click", () => this.#calls.sort(column.name));
        const head = make("th", { attributes: { scope: "col" } }, button);
        head.setAttribute("aria-sort", isSorting ? (sort.isDescending ? "descending" : "ascending") : "none");
        return head;
      }),
    );
    this.redraw();
  }

  /** The points of the rows, in their order, and which points are selected (a mask, or null). */
  setOrder(order, selected) {
    [this.#order, this.#selected] = [order, selected];
    this.#grid.setAttribute("aria-rowcount", order.length + 1);
    this.redraw();
  }

  setChosen(point, scrolls) {
    this.#chosen = point;
    if (scrolls) this.#reveal();
    this.redraw();
  }

  get order() {
    return this.#order;
  }

  redraw() {
    this.#waiting ||= requestAnimationFrame(() => {
      this.#waiting = 0;
      this.draw();
    });
  }

  draw() {
    const { scrollTop, clientHeight } = this.#box;
    const first = Math.max(0, Math.floor(scrollTop / HEIGHT) - SPARE);
    const last = Math.min(this.#order.length, first + Math.ceil(clientHeight / HEIGHT) + 2 * SPARE);
    this.#above.style.height = `${first * HEIGHT}px`;
    this.#below.style.height = `${(this.#order.length - last) * HEIGHT}px`;
    const rows = [];
    for (let n = first; n < last; n++) rows.push(this.#row(n));
    this.#body.replaceChildren(this.#above, ...rows, this.#below);
  }

  #row(n) {
    const point = this.#order[n];
    const row = make("tr", { attributes: { "data-point": point, "aria-rowindex": n + 2 } });
    if (point === this.#chosen) row.setAttribute("aria-current", "true");
    if (this.#selected?.[point]) row.className = "cf-selected";
    row.append(
      ...this.#columns.map((column) => {
        const text = valueText(column, point);
        return make("td", { className: column.kind === "number" ? "cf-number" : "", title: text.length > 18 ? text : "" }, text);
      }),
    );
    return row;
  }

  #place() {
    return this.#order.indexOf(this.#chosen);
  }

  #reveal() {
    const n = this.#place();
    if (n < 0) return;
    const { scrollTop, clientHeight } = this.#box;
    const room = clientHeight - 2 * HEIGHT;
    if (n * HEIGHT < scrollTop) this.#box.scrollTop = n * HEIGHT;
    else if (n * HEIGHT > scrollTop + room) this.#box.scrollTop = n * HEIGHT - room;
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.#box.clientHeight / HEIGHT) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.target !== this.#box) return;
    event.preventDefault();
    event.stopPropagation();
    const n = Math.min(this.#order.length - 1, Math.max(0, this.#place() + steps[event.key]));
    if (this.#order.length) this.#calls.choose(this.#order[n]);
  }
}
