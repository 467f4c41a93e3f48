// Attention from each query atom (row) to each key atom (column), on a canvas.

import { DECADES, shareOf, signed } from "./crystal.js";
import { mix, ramp } from "./structure.js";

const FONT = "11px system-ui, sans-serif";
const MIN_LABEL = 12; // pixels from one atom's label to the next
const BAR = 12;

export class Heatmap {
  #canvas;
  #crystal;
  #colors;
  #matrix = null;
  #quantity = { name: "attention", unit: "", isSigned: false };
  #signedColors;
  #scale = { highest: null, name: "own" };
  #selected = 0;
  #plot = { left: 0, top: 0, size: 0 };

  /** `onPick(atom)` is called on a click, `onPoint(text, event)` with the text for the cell under the pointer, or null. */
  constructor(canvas, crystal, onPick, onPoint) {
    this.#canvas = canvas;
    this.#crystal = crystal;
    // Byte order of ImageData: alpha, blue, green, red from the highest byte down.
    const table = (colors) =>
      Uint32Array.from({ length: 256 }, (_, n) => {
        const [red, green, blue] = [1, 3, 5].map((at) => parseInt(ramp(colors, n / 255).slice(at, at + 2), 16));
        return 0xff000000 | (blue << 16) | (green << 8) | red;
      });
    this.#colors = table(crystal.palette.heatmap);
    this.#signedColors = table(signedRamp(crystal));
    canvas.addEventListener("click", (event) => {
      const cell = this.#cellAt(event);
      if (cell) onPick(cell.query);
    });
    canvas.addEventListener("pointermove", (event) => onPoint(this.#say(this.#cellAt(event)), event));
    canvas.addEventListener("pointerleave", (event) => onPoint(null, event));
  }

  /**
   * Draw a matrix (row by row) of a quantity (see `quantityOf`) with a frame around the row of one atom. `scale` is the
   * name of a scale, and the value at its end: the largest of the matrix if it is null.
   */
  draw(matrix, selected, quantity, scale) {
    this.#matrix = matrix;
    this.#scale = scale;
    this.#quantity = quantity;
    this.#selected = selected;
    this.redraw();
  }

  /** Draw the same again at the present size of the canvas. */
  redraw() {
    if (!this.#matrix || !this.#canvas.clientWidth) return;
    const { labels, nQueries, palette } = this.#crystal;
    const [width, height] = [this.#canvas.clientWidth, this.#canvas.clientHeight];
    const density = window.devicePixelRatio || 1;
    Object.assign(this.#canvas, { width: Math.round(width * density), height: Math.round(height * density) });
    const pen = this.#canvas.getContext("2d");
    pen.scale(density, density);
    pen.font = FONT;
    pen.fillStyle = palette.ink;

    const widest = Math.max(...labels.map((label) => pen.measureText(label).width));
    const left = widest + 26;
    const below = widest + 30;
    const size = Math.max(40, Math.min(width - left - BAR - 56, height - below - 8));
    const top = 6;
    this.#plot = { left, top, size };

    let { highest } = this.#scale;
    if (highest === null) for (const value of this.#matrix) if (Math.abs(value) > highest) highest = Math.abs(value);
    highest ||= 1;
    pen.imageSmoothingEnabled = nQueries > size * density;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.#image(highest), left, top, size, size);
    pen.strokeStyle = palette.ink;
    pen.lineWidth = 1;
    pen.strokeRect(left - 0.5, top - 0.5, size + 1, size + 1);

    if (this.#quantity.isSigned) this.#drawSigns(pen, highest);
    this.#drawLabels(pen, widest);
    this.#drawBar(pen, highest);
    this.#drawFrame(pen);
  }

  /** Position of a cell on the canvas, pixels (for tests). */
  pixelOf(query, key) {
    const cell = this.#plot.size / this.#crystal.nQueries;
    return { x: this.#plot.left + (key + 0.5) * cell, y: this.#plot.top + (query + 0.5) * cell };
  }

  #image(highest) {
    const { nQueries } = this.#crystal;
    const image = new ImageData(nQueries, nQueries);
    const pixels = new Uint32Array(image.data.buffer);
    const isSigned = this.#quantity.isSigned;
    const [colors, half, zero] = isSigned ? [this.#signedColors, 127.5, 127.5] : [this.#colors, 255, 0];
    this.#matrix.forEach((value, n) => {
      pixels[n] = colors[Math.round(zero + half * Math.sign(value) * shareOf(value, highest, this.#scale.name))];
    });
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: nQueries, height: nQueries });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  /** + and − in cells that are not pale, if there is room: signs are seen in grey too. */
  #drawSigns(pen, highest) {
    const { nQueries } = this.#crystal;
    if (this.#plot.size / nQueries < MIN_LABEL) return;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    this.#matrix.forEach((value, n) => {
      const share = shareOf(value, highest, this.#scale.name);
      if (share < 0.02) return;
      const { x, y } = this.pixelOf(Math.floor(n / nQueries), n % nQueries);
      pen.fillStyle = share > 0.4 ? "#ffffff" : "#222222";
      pen.fillText(value < 0 ? "−" : "+", x, y);
    });
    pen.fillStyle = this.#crystal.palette.ink;
  }

  #drawLabels(pen, widest) {
    const { labels, nQueries } = this.#crystal;
    const { left, top, size } = this.#plot;
    const cell = size / nQueries;
    const upright = cell < widest + 4;
    const everyRow = Math.ceil(MIN_LABEL / cell);
    const everyColumn = Math.ceil(Math.min(MIN_LABEL, cell < MIN_LABEL ? MIN_LABEL : cell) / cell);
    pen.textBaseline = "middle";
    for (let atom = 0; atom < nQueries; atom++) {
      const middle = (atom + 0.5) * cell;
      if (atom % everyRow === 0) {
        pen.textAlign = "right";
        pen.fillText(labels[atom], left - 5, top + middle);
      }
      if (atom % everyColumn === 0) {
        pen.save();
        pen.translate(left + middle, top + size + 5);
        if (upright) pen.rotate(-Math.PI / 2);
        pen.textAlign = upright ? "right" : "center";
        pen.fillText(labels[atom], 0, upright ? 0 : 6);
        pen.restore();
      }
    }
    pen.textAlign = "center";
    pen.fillText("key atom", left + size / 2, top + size + (upright ? widest + 16 : 26));
    pen.save();
    pen.translate(8, top + size / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText("query atom", 0, 0);
    pen.restore();
  }

  #drawBar(pen, highest) {
    const { left, top, size } = this.#plot;
    const x = left + size + 10;
    const gradient = pen.createLinearGradient(0, top + size, 0, top);
    const { isSigned, name } = this.#quantity;
    const stops = isSigned ? signedRamp(this.#crystal) : this.#crystal.palette.heatmap;
    stops.forEach((color, n) => gradient.addColorStop(n / (stops.length - 1), color));
    pen.fillStyle = gradient;
    pen.fillRect(x, top, BAR, size);
    pen.fillStyle = this.#crystal.palette.ink;
    pen.textAlign = "left";
    pen.fillText(`${isSigned ? "+" : ""}${highest.toPrecision(2)}`, x + BAR + 4, top + 6);
    const least = this.#scale.name === "log" ? (highest / 10 ** DECADES).toExponential(0) : "0";
    pen.fillText(isSigned ? `−${highest.toPrecision(2)}` : least, x + BAR + 4, top + size - 5);
    pen.save();
    pen.translate(x + BAR + 12, top + size / 2);
    pen.rotate(Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(name, 0, 0);
    pen.restore();
  }

  #drawFrame(pen) {
    const { left, top, size } = this.#plot;
    const cell = size / this.#crystal.nQueries;
    // In a large crystal a row is thinner than its frame; then the frame lies around it.
    const height = Math.max(cell, 4);
    const y = top + (this.#selected + 0.5) * cell - height / 2;
    for (const [color, width] of [["white", 5], [this.#crystal.palette.attention, 3]]) {
      pen.strokeStyle = color;
      pen.lineWidth = width;
      pen.strokeRect(left, y, size, height);
    }
  }

  #cellAt(event) {
    const { left, top, size } = this.#plot;
    const { nQueries } = this.#crystal;
    const [key, query] = [event.offsetX - left, event.offsetY - top].map((x) => Math.floor((x / size) * nQueries));
    // The label of a row counts as part of the row.
    return query >= 0 && query < nQueries && key < nQueries && event.offsetX >= 0 ? { query, key } : null;
  }

  #say(cell) {
    if (!cell || cell.key < 0) return null;
    const { labels, nQueries } = this.#crystal;
    const value = this.#matrix[cell.query * nQueries + cell.key];
    const { name, unit, isSigned } = this.#quantity;
    const number = isSigned ? `${signed(value)} ${unit}` : value.toFixed(3);
    return `${labels[cell.query]} → ${labels[cell.key]}: ${name} ${number} (sum over periodic images)`;
  }
}

/** From what lowers the prediction most to what raises it most; no change is pale. */
const signedRamp = ({ palette }) => [mix(palette.lowers, "#000000", 0.35), palette.lowers, "#ffffff", palette.raises, mix(palette.raises, "#000000", 0.35)];
