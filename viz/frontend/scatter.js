// The map: points drawn by WebGL, with axes, hover, zoom, lasso and keys. Points are numbered as the rows of the table.

const MARGIN = { left: 62, right: 12, top: 10, bottom: 44 }; // pixels
const PAD = 0.04; // of the extent, around all points
const CELLS = 512; // of the grid that finds points, in each direction
const REACH = 9; // pixels from a point within which the pointer is on it
const ZOOM_STEP = 1.25;
const DRAG = 4; // pixels, before a click becomes a drag
const SIDEWAYS = 2.5; // how much more a step aside counts than one ahead, to find the next point by an arrow key

const VERTEX = `#version 300 es
in vec2 place; in vec4 color; in float shape;
uniform vec4 view; uniform float size;
out vec4 vColor; flat out int vShape;
void main() {
  gl_Position = vec4(place * view.xy + view.zw, 0.0, 1.0);
  gl_PointSize = size;
  vColor = color; vShape = int(shape + 0.5);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec4 vColor; flat in int vShape;
uniform float opacity; uniform float size; uniform vec3 rim;
out vec4 result;
void main() {
  if (size < 6.0 && vShape == 0) { // so small that a circle cannot be told from a square, and so many that it counts
    result = vec4(vColor.rgb, 1.0) * opacity;
    return;
  }
  vec2 p = (gl_PointCoord - 0.5) * 2.0;
  float d = length(p);
  if (vShape == 1) d = max(abs(p.x), abs(p.y)) * 1.15;
  if (vShape == 2) d = abs(p.x) + abs(p.y);
  if (vShape == 3) d = max(abs(p.x) * 0.87 - p.y * 0.5, p.y) * 1.3 + 0.05;
  if (vShape == 4) d = min(max(abs(p.x), abs(p.y) * 3.0), max(abs(p.y), abs(p.x) * 3.0));
  if (vShape == 5) { vec2 q = vec2(p.x + p.y, p.x - p.y) * 0.7; d = min(max(abs(q.x), abs(q.y) * 3.0), max(abs(q.y), abs(q.x) * 3.0)); }
  float soft = 2.0 / size;
  float alpha = 1.0 - smoothstep(1.0 - soft, 1.0, d);
  if (alpha <= 0.0) discard;
  vec3 color = mix(vColor.rgb, rim, size > 8.0 ? smoothstep(0.72, 0.95, d) * 0.6 : 0.0);
  float a = alpha * opacity * vColor.a;
  result = vec4(color * a, a);
}`;

export class Scatter {
  #container;
  #points; // the canvas of the points
  #over; // the canvas of axes and marks
  #palette;
  #calls;
  #gl = null;
  #uniforms = {};
  #buffers = {};
  #xs = new Float32Array(0);
  #ys = new Float32Array(0);
  #places = new Float32Array(0); // in units of the extent
  #extent = { x: [0, 1], y: [0, 1] };
  #window = { x: [0, 1], y: [0, 1] }; // what is seen, in units of the extent
  #mask = new Uint8Array(0);
  #selected = null;
  #counts = [0, 0];
  #colors = new Uint8Array(0);
  #shapes = new Uint8Array(0);
  #grid = null;
  #axes = { x: "", y: "" };
  #marks = { chosen: -1, near: [], intervals: null, isParity: false, words: [] };
  #path = [];
  #waiting = 0;
  #mode = "move";

  /** `calls`: `choose(point)`, `hover(point, event)` with -1 for none, `lasso(points, adds)`. Throws without WebGL. */
  constructor(container, palette, calls) {
    this.#container = container;
    this.#palette = palette;
    this.#calls = calls;
    this.#points = Object.assign(document.createElement("canvas"), { className: "cf-points" });
    this.#over = Object.assign(document.createElement("canvas"), { className: "cf-marks" });
    for (const canvas of [this.#points, this.#over]) canvas.setAttribute("aria-hidden", "true");
    container.append(this.#points, this.#over);
    this.#start();
    this.#listen();
    this.#points.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.#points.addEventListener("webglcontextrestored", () => {
      this.#start();
      this.#upload();
    });
  }

  // --- what is drawn ------------------------------------------------------------------------------------------------

  /** Columns of both axes with their labels; the whole extent is shown. */
  setPlaces(xs, ys, labels, isSquare) {
    [this.#xs, this.#ys, this.#axes] = [xs, ys, labels];
    const [x, y] = [extentOf(xs), extentOf(ys)];
    const both = [Math.min(x[0], y[0]), Math.max(x[1], y[1])];
    this.#extent = isSquare ? { x: both, y: both } : { x, y };
    const n = xs.length;
    this.#places = new Float32Array(2 * n);
    const [[x0, x1], [y0, y1]] = [this.#extent.x, this.#extent.y];
    for (let point = 0; point < n; point++) {
      this.#places[2 * point] = (xs[point] - x0) / (x1 - x0);
      this.#places[2 * point + 1] = (ys[point] - y0) / (y1 - y0);
    }
    this.#window = { x: [0, 1], y: [0, 1] };
    this.#grid = null;
    this.#fill("place", this.#places);
    if (this.#mask.length) this.setShown(this.#mask, this.#selected);
  }

  /** RGBA and the number of the shape of each point. */
  setColors(colors, shapes) {
    [this.#colors, this.#shapes] = [colors, shapes];
    this.#fill("color", colors);
    this.#fill("shape", shapes);
    if (this.#mask.length) this.setShown(this.#mask, this.#selected);
    this.redraw();
  }

  /** Which points are shown, and which of them are selected (null for none). */
  setShown(mask, selected) {
    [this.#mask, this.#selected] = [mask, selected];
    const order = new Uint32Array(mask.length);
    let [first, last] = [0, mask.length];
    const places = this.#places;
    const shapes = this.#shapes;
    let isMixed = false; // whether some points have another shape than the first one: these are drawn above the others
    for (let point = 0; point < mask.length; point++) {
      if (!mask[point] || Number.isNaN(places[2 * point]) || Number.isNaN(places[2 * point + 1])) continue;
      if (selected?.[point]) order[--last] = point;
      else if (shapes[point]) isMixed = true;
      else order[first++] = point;
    }
    for (let point = 0; isMixed && point < mask.length; point++) {
      if (!shapes[point] || !mask[point] || selected?.[point]) continue;
      if (!Number.isNaN(places[2 * point]) && !Number.isNaN(places[2 * point + 1])) order[first++] = point;
    }
    this.#counts = [first, mask.length - last];
    order.copyWithin(first, last);
    const gl = this.#gl;
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.#buffers.order);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, order.subarray(0, first + this.#counts[1]), gl.DYNAMIC_DRAW);
    this.#grid = null;
    this.redraw();
  }

  /** The chosen point, its neighbours, ends of intervals, whether the diagonal is drawn, and words in the corner. */
  setMarks(marks) {
    Object.assign(this.#marks, marks);
    this.redraw();
  }

  setMode(mode) {
    this.#mode = mode;
    this.#container.dataset.mode = mode;
  }

  get size() {
    return [this.#container.clientWidth, this.#container.clientHeight];
  }

  redraw() {
    this.#waiting ||= requestAnimationFrame(() => {
      this.#waiting = 0;
      this.draw();
    });
  }

  draw() {
    this.#drawPoints();
    this.#drawMarks();
  }

  reset() {
    this.#window = { x: [0, 1], y: [0, 1] };
    this.redraw();
  }

  zoom(factor, [px, py] = this.#middle()) {
    const at = this.#unit(px, py);
    for (const [name, middle] of [["x", at[0]], ["y", at[1]]]) {
      const [low, high] = this.#window[name];
      const size = Math.min(4, Math.max(1e-6, (high - low) / factor));
      const share = (middle - low) / (high - low);
      this.#window[name] = [middle - share * size, middle + (1 - share) * size];
    }
    this.redraw();
  }

  /** Bring a point into the picture if it is outside. */
  reveal(point) {
    const [u, v] = [this.#places[2 * point], this.#places[2 * point + 1]];
    if (Number.isNaN(u) || Number.isNaN(v)) return;
    const isIn = ([low, high], at) => at >= low && at <= high;
    if (isIn(this.#window.x, u) && isIn(this.#window.y, v)) return;
    for (const [name, at] of [["x", u], ["y", v]]) {
      const half = (this.#window[name][1] - this.#window[name][0]) / 2;
      this.#window[name] = [at - half, at + half];
    }
    this.redraw();
  }

  // --- points under the pointer and beside others -------------------------------------------------------------------

  /** The shown point nearest to a place on the container (pixels), or -1. */
  pointAt(px, py, reach = REACH) {
    const { cells, starts, n } = (this.#grid ??= this.#makeGrid());
    const [width, height] = this.#plot();
    const perPixel = [(this.#window.x[1] - this.#window.x[0]) / width, (this.#window.y[1] - this.#window.y[0]) / height];
    const [u, v] = this.#unit(px, py);
    const range = (at, step) => [clampCell(at - reach * step), clampCell(at + reach * step)];
    const [[left, right], [low, high]] = [range(u, perPixel[0]), range(v, perPixel[1])];
    let [best, nearest] = [-1, reach * reach];
    if (!n) return best;
    for (let row = low; row <= high; row++) {
      for (let k = starts[row * CELLS + left]; k < starts[row * CELLS + right + 1]; k++) {
        const point = cells[k];
        const dx = (this.#places[2 * point] - u) / perPixel[0];
        const dy = (this.#places[2 * point + 1] - v) / perPixel[1];
        const away = dx * dx + dy * dy;
        if (away <= nearest) [best, nearest] = [point, away];
      }
    }
    return best;
  }

  /** The next shown point from `point` to the right (1, 0), up (0, 1), ...; the first one at the edge if it is -1. */
  pointBeside(point, right, up) {
    const [width, height] = this.#plot();
    const scale = [width / (this.#window.x[1] - this.#window.x[0]), height / (this.#window.y[1] - this.#window.y[0])];
    const from = point < 0 ? null : [this.#places[2 * point], this.#places[2 * point + 1]];
    let [best, least] = [-1, Infinity];
    for (let other = 0; other < this.#mask.length; other++) {
      if (!this.#mask[other] || other === point) continue;
      const [u, v] = [this.#places[2 * other], this.#places[2 * other + 1]];
      if (Number.isNaN(u) || Number.isNaN(v)) continue;
      const [dx, dy] = from ? [(u - from[0]) * scale[0], (v - from[1]) * scale[1]] : [u * scale[0], v * scale[1]];
      const ahead = dx * right + dy * up;
      if (from && (ahead < 0 || (ahead === 0 && !(dx === 0 && dy === 0 && other > point)))) continue;
      const cost = ahead + SIDEWAYS * Math.abs(dx * up + dy * right);
      if (cost < least) [best, least] = [other, cost];
    }
    return best;
  }

  /** The shown points inside a polygon of places on the container (pixels). */
  pointsIn(path) {
    const polygon = path.map(([px, py]) => this.#unit(px, py));
    const [left, right] = spanOf(polygon.map(([u]) => u));
    const [low, high] = spanOf(polygon.map(([, v]) => v));
    const found = [];
    for (let point = 0; point < this.#mask.length; point++) {
      if (!this.#mask[point]) continue;
      const u = this.#places[2 * point];
      const v = this.#places[2 * point + 1];
      if (u >= left && u <= right && v >= low && v <= high && isInside(polygon, u, v)) found.push(point);
    }
    return found;
  }

  /** Where a point is on the container, pixels. */
  pixelOf(point) {
    const [width, height] = this.#plot();
    const share = (at, [low, high]) => (at - low) / (high - low);
    return [
      MARGIN.left + share(this.#places[2 * point], this.#window.x) * width,
      MARGIN.top + (1 - share(this.#places[2 * point + 1], this.#window.y)) * height,
    ];
  }

  #makeGrid() {
    const [places, mask] = [this.#places, this.#mask];
    const starts = new Uint32Array(CELLS * CELLS + 1);
    const cellOf = new Int32Array(mask.length).fill(-1);
    let n = 0;
    for (let point = 0; point < mask.length; point++) {
      const u = places[2 * point];
      const v = places[2 * point + 1];
      if (!mask[point] || u !== u || v !== v) continue;
      cellOf[point] = clampCell(v) * CELLS + clampCell(u);
      starts[cellOf[point] + 1] += 1;
      n += 1;
    }
    for (let cell = 0; cell < CELLS * CELLS; cell++) starts[cell + 1] += starts[cell];
    const next = starts.slice();
    const cells = new Uint32Array(n);
    for (let point = 0; point < mask.length; point++) if (cellOf[point] >= 0) cells[next[cellOf[point]]++] = point;
    return { cells, starts, n };
  }

  // --- coordinates --------------------------------------------------------------------------------------------------

  #plot() {
    const [width, height] = this.size;
    return [Math.max(1, width - MARGIN.left - MARGIN.right), Math.max(1, height - MARGIN.top - MARGIN.bottom)];
  }

  #middle() {
    const [width, height] = this.#plot();
    return [MARGIN.left + width / 2, MARGIN.top + height / 2];
  }

  #unit(px, py) {
    const [width, height] = this.#plot();
    const { x, y } = this.#window;
    return [x[0] + ((px - MARGIN.left) / width) * (x[1] - x[0]), y[0] + (1 - (py - MARGIN.top) / height) * (y[1] - y[0])];
  }

  // --- WebGL --------------------------------------------------------------------------------------------------------

  #start() {
    const gl = this.#points.getContext("webgl2", { antialias: false, premultipliedAlpha: true });
    if (!gl) throw new Error("no WebGL");
    this.#gl = gl;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    for (const name of ["view", "size", "opacity", "rim"]) this.#uniforms[name] = gl.getUniformLocation(program, name);
    for (const name of ["place", "color", "shape", "order"]) this.#buffers[name] = gl.createBuffer();
    const attribute = (name, size, type, isShare) => {
      const at = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.#buffers[name]);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, type, isShare, 0, 0);
    };
    attribute("place", 2, gl.FLOAT, false);
    attribute("color", 4, gl.UNSIGNED_BYTE, true);
    attribute("shape", 1, gl.UNSIGNED_BYTE, false);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  #fill(name, array) {
    const gl = this.#gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.#buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
  }

  #upload() {
    this.#fill("place", this.#places);
    this.#fill("color", this.#colors);
    this.#fill("shape", this.#shapes);
    this.setShown(this.#mask, this.#selected);
  }

  #drawPoints() {
    const gl = this.#gl;
    const [width, height] = this.#plot();
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    const canvas = this.#points;
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    Object.assign(canvas.style, { left: `${MARGIN.left}px`, top: `${MARGIN.top}px`, width: `${width}px`, height: `${height}px` });
    gl.viewport(0, 0, wide, high);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const uniform = (name) => this.#uniforms[name];
    const { x, y } = this.#window;
    const [sx, sy] = [2 / (x[1] - x[0]), 2 / (y[1] - y[0])];
    gl.uniform4f(uniform("view"), sx, sy, -sx * x[0] - 1, -sy * y[0] - 1);
    const [rest, chosen] = this.#counts;
    const n = rest + chosen;
    const size = (n > 20000 ? 4 : n > 3000 ? 6 : n > 300 ? 8 : 10) * ratio;
    gl.uniform3fv(uniform("rim"), rgb(this.#palette.ink));
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.#buffers.order);
    const draw = (from, count, opacity, scale) => {
      if (!count) return;
      gl.uniform1f(uniform("opacity"), opacity);
      gl.uniform1f(uniform("size"), size * scale);
      gl.drawElements(gl.POINTS, count, gl.UNSIGNED_INT, 4 * from);
    };
    draw(0, rest, this.#selected ? 0.22 : n > 20000 ? 0.6 : 0.8, 1);
    draw(rest, chosen, 0.95, 1.15);
  }

  // --- axes and marks -----------------------------------------------------------------------------------------------

  #drawMarks() {
    const canvas = this.#over;
    const [width, height] = this.size;
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "12px system-ui, sans-serif";
    this.#drawAxes(pen);
    pen.save();
    pen.beginPath();
    const [plotWidth, plotHeight] = this.#plot();
    pen.rect(MARGIN.left, MARGIN.top, plotWidth, plotHeight);
    pen.clip();
    this.#drawChosen(pen);
    this.#drawPath(pen);
    pen.restore();
    this.#drawWords(pen);
  }

  #drawAxes(pen) {
    const [width, height] = this.#plot();
    const { ink, cell } = this.#palette;
    pen.strokeStyle = cell;
    pen.fillStyle = ink;
    pen.lineWidth = 1;
    pen.strokeRect(MARGIN.left + 0.5, MARGIN.top + 0.5, width - 1, height - 1);
    const bottom = MARGIN.top + height;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const { at, text } of this.#ticks("x", width / 75)) {
      const x = MARGIN.left + at * width;
      line(pen, [x, bottom], [x, bottom + 4]);
      pen.fillText(text, x, bottom + 6);
    }
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const { at, text } of this.#ticks("y", height / 45)) {
      const y = bottom - at * height;
      line(pen, [MARGIN.left - 4, y], [MARGIN.left, y]);
      pen.fillText(text, MARGIN.left - 6, y);
    }
    pen.textAlign = "center";
    pen.textBaseline = "bottom";
    pen.font = "13px system-ui, sans-serif";
    pen.fillText(fitted(pen, this.#axes.x, width), MARGIN.left + width / 2, bottom + MARGIN.bottom - 2);
    pen.save();
    pen.translate(2, MARGIN.top + height / 2);
    pen.rotate(-Math.PI / 2);
    pen.textBaseline = "top";
    pen.fillText(fitted(pen, this.#axes.y, height), 0, 0);
    pen.restore();
    if (this.#marks.isParity) {
      const [low, high] = this.#extent.x;
      pen.save();
      pen.beginPath();
      pen.rect(MARGIN.left, MARGIN.top, width, height);
      pen.clip();
      pen.setLineDash([5, 4]);
      line(pen, this.#pixels(low, low), this.#pixels(high, high));
      pen.restore();
    }
  }

  #ticks(name, about) {
    const [low, high] = this.#extent[name];
    const [from, to] = this.#window[name].map((share) => low + share * (high - low));
    const rough = (to - from) / Math.max(2, about);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const ticks = [];
    for (let n = Math.ceil(from / step); n * step <= to; n++) {
      const value = n * step;
      const text = Math.abs(value) >= 1e5 || (digits > 5 && value) ? value.toExponential(1) : value.toFixed(Math.min(digits, 8));
      ticks.push({ at: (value - from) / (to - from), text: text.replace("-", "−") });
    }
    return ticks;
  }

  #pixels(x, y) {
    const [width, height] = this.#plot();
    const share = (value, [low, high], [from, to]) => ((value - low) / (high - low) - from) / (to - from);
    return [
      MARGIN.left + share(x, this.#extent.x, this.#window.x) * width,
      MARGIN.top + (1 - share(y, this.#extent.y, this.#window.y)) * height,
    ];
  }

  #drawChosen(pen) {
    const { chosen, near, intervals } = this.#marks;
    pen.strokeStyle = this.#palette.ink;
    const ring = (point, radius, width) => {
      if (!(point >= 0) || Number.isNaN(this.#places[2 * point]) || Number.isNaN(this.#places[2 * point + 1])) return;
      pen.beginPath();
      pen.lineWidth = width;
      pen.arc(...this.pixelOf(point), radius, 0, 2 * Math.PI);
      pen.stroke();
    };
    pen.setLineDash([2, 2]);
    for (const point of near) ring(point, 8, 1.5);
    pen.setLineDash([]);
    if (chosen >= 0 && intervals && !Number.isNaN(intervals.low[chosen])) {
      const [x] = this.pixelOf(chosen);
      const [, top] = this.#pixels(0, intervals.high[chosen]);
      const [, bottom] = this.#pixels(0, intervals.low[chosen]);
      pen.lineWidth = 2;
      line(pen, [x, top], [x, bottom]);
      for (const y of [top, bottom]) line(pen, [x - 5, y], [x + 5, y]);
    }
    ring(chosen, 9, 2.5);
  }

  #drawPath(pen) {
    if (this.#path.length < 2) return;
    pen.beginPath();
    pen.lineWidth = 1.5;
    pen.setLineDash([4, 3]);
    this.#path.forEach(([x, y], n) => (n ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.stroke();
    pen.globalAlpha = 0.08;
    pen.fillStyle = this.#palette.ink;
    pen.fill();
    pen.globalAlpha = 1;
    pen.setLineDash([]);
  }

  #drawWords(pen) {
    const { words } = this.#marks;
    if (!words.length) return;
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "left";
    pen.textBaseline = "top";
    const wide = Math.max(...words.map((text) => pen.measureText(text).width));
    const [x, y] = [MARGIN.left + 6, MARGIN.top + 5];
    pen.globalAlpha = 0.8;
    pen.fillStyle = this.#palette.paper;
    pen.fillRect(x - 3, y - 2, wide + 6, 15 * words.length + 4);
    pen.globalAlpha = 1;
    pen.fillStyle = this.#palette.ink;
    words.forEach((text, n) => pen.fillText(text, x, y + 15 * n));
  }

  // --- hands --------------------------------------------------------------------------------------------------------

  #listen() {
    const container = this.#container;
    let [isActive, pressed, last, hovering] = [false, null, null, 0];
    const at = (event) => {
      const box = container.getBoundingClientRect();
      return [event.clientX - box.left - container.clientLeft, event.clientY - box.top - container.clientTop];
    };
    const finish = (event) => {
      const path = this.#path;
      this.#path = [];
      if (path.length > 2) this.#calls.lasso(this.pointsIn(path), event.ctrlKey || event.metaKey);
      this.redraw();
    };
    container.addEventListener("wheel", (event) => {
      if (!isActive) return; // without a click, the wheel scrolls the page
      event.preventDefault();
      this.zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 100) * 0.002), at(event));
    }, { passive: false });
    container.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      container.focus({ preventScroll: true });
      [isActive, pressed] = [true, at(event)];
      last = { place: pressed, draws: event.shiftKey !== (this.#mode === "lasso"), moved: false };
      container.setPointerCapture(event.pointerId);
    });
    container.addEventListener("pointermove", (event) => {
      const place = at(event);
      if (!last) {
        hovering ||= requestAnimationFrame(() => {
          hovering = 0;
          this.#calls.hover(this.pointAt(...place), event);
        });
        return;
      }
      if (!last.moved && Math.hypot(place[0] - pressed[0], place[1] - pressed[1]) < DRAG) return;
      if (!last.moved && last.draws) this.#path = [pressed];
      last.moved = true;
      this.#calls.hover(-1, event);
      if (last.draws) this.#path.push(place);
      else this.#move(place[0] - last.place[0], place[1] - last.place[1]);
      last.place = place;
      this.redraw();
    });
    container.addEventListener("pointerup", (event) => {
      if (!last) return;
      const { moved, draws } = last;
      last = null;
      if (moved) return draws ? finish(event) : undefined;
      const point = this.pointAt(...at(event));
      if (point >= 0) this.#calls.choose(point);
    });
    container.addEventListener("pointercancel", () => {
      [last, this.#path] = [null, []];
      this.redraw();
    });
    container.addEventListener("pointerleave", (event) => {
      isActive = false;
      cancelAnimationFrame(hovering);
      hovering = 0;
      this.#calls.hover(-1, event);
    });
    container.addEventListener("dblclick", () => this.reset());
  }

  #move(dx, dy) {
    const [width, height] = this.#plot();
    const shift = (name, by) => {
      const [low, high] = this.#window[name];
      this.#window[name] = [low + by * (high - low), high + by * (high - low)];
    };
    shift("x", -dx / width);
    shift("y", dy / height);
  }

  /** Keys that move the view: `+`, `-` and `0`. */
  key(name) {
    const actions = { "+": () => this.zoom(ZOOM_STEP), "=": () => this.zoom(ZOOM_STEP), "-": () => this.zoom(1 / ZOOM_STEP), 0: () => this.reset() };
    actions[name]?.();
    return name in actions;
  }
}

/** Least and greatest finite value, with room around; from 0 to 1 if there is none. */
function extentOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (let n = 0; n < values.length; n++) {
    const value = values[n];
    if (value < low && value > -Infinity) low = value;
    if (value > high && value < Infinity) high = value;
  }
  if (low > high) return [0, 1];
  const pad = PAD * (high - low) || Math.abs(low) * PAD || 0.5;
  return [low - pad, high + pad];
}

const spanOf = (values) => [Math.min(...values), Math.max(...values)];
const clampCell = (share) => Math.min(CELLS - 1, Math.max(0, Math.floor(share * CELLS)));
const rgb = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255);

function line(pen, from, to) {
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(...to);
  pen.stroke();
}

/** A text that is cut to a width. */
function fitted(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && pen.measureText(`${text.slice(0, length)}…`).width > width) length -= 1;
  return `${text.slice(0, length)}…`;
}

function isInside(polygon, u, v) {
  let inside = false;
  for (let n = 0, before = polygon.length - 1; n < polygon.length; before = n++) {
    const a = polygon[n][0];
    const b = polygon[n][1];
    const d = polygon[before][1];
    if (b > v !== d > v && u < ((polygon[before][0] - a) * (v - b)) / (d - b) + a) inside = !inside;
  }
  return inside;
}
