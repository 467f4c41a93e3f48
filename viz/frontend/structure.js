// The crystal in 3D. Atoms, bonds and cell are drawn once; everything that depends on layer, head and atom at every step.

import { cameraAt, cameraOf, looking, projector, quaternionOf } from "./camera.js";
import { ballName, bondsAmong, cellContents } from "./cells.js";
import { frameOf, isDead, otherAxes, positionOf, shareOf, signed, siteValues } from "./crystal.js";
import { Meshes, toPoint } from "./mesh.js";
import { fill, node, paint, placed } from "./overlay.js";
import { Bodies } from "./vector.js";

// Å, as in viz/drawings.py.
const AXIS_LENGTH = 1.5;
const AXIS_RADIUS = 0.085; // thicker than any attention line, as axes of `max` frames lie along edges
const OTHERS = 0.7;
const BOND = 0.03;
const LINE = [0.035, 0.065]; // weakest and strongest; even the weakest hides the bond below it
const GHOST = 0.7; // size of atoms at the end of attention lines that are not drawn otherwise
const RAMP_STEPS = 8;
const RING_SIDES = 24;
const SOLID = "#56B4E9"; // mixed into the colours of elements, many of which are grey
// Pixels, so that nothing vanishes in a large cell.
const LEAST = { line: 1.5, axis: 1.8, cell: 0.6, length: 44 };
const MARGIN = 30; // pixels around the crystal at first
const NEAR = 5; // pixels from a line or an axis within which the pointer is on it
const RESCALE = 1.3; // after zooming by this factor, the least sizes are applied anew
const ATTENTION = { name: "attention", unit: "", isSigned: false };
const DASHES = 7; // pieces of a line that lowers the prediction, every second one coloured: signs are seen in grey too
const MARKED = 60; // balls; the numbers of more would hide each other
const LONGEST = 1.6; // Å, of the arrow of the largest gradient
const FLY = 6; // Å around an atom that are seen after flying to it

/** The colour of an atom if no value colours it. */
export const ELEMENT = "element";
const NO_VALUE = "#9A9A9A";
const PALEST = "#F2F2F2"; // no contribution
const KEPT_VIEWS = 50;
const LIVING = new Set(); // the pictures that there are

/** What is drawn besides layer, head and atom, at first. */
export const startingDisplay = (crystal) => ({
  bonds: !crystal.isMetallic,
  edges: true,
  images: true,
  labels: true,
  hidden: [],
  cell: 0,
  repeats: [1, 1, 1],
  color: ELEMENT,
  scale: "own",
  gradient: false,
});

export class Structure {
  #viewer;
  #crystal;
  #container;
  #overlay;
  #contents = null;
  #state = null;
  #lines = { edges: [], weights: [], quantity: ATTENTION };
  #fleeting = { shapes: [], models: [] };
  #solids = null;
  #drawnAs = "";
  #scaleAsDrawn = 0;
  #place = { atom: -1, image: [0, 0, 0] };
  #lasting = []; // the balls of the cell, which stay from step to step
  #balls = []; // all that can be picked: {site, image, point, radius}
  #rods = []; // attention lines and axes: {start, end, words}
  #tips = []; // ends of the axes of all frames that are drawn
  #texts = [];
  #measured = [];
  #listeners = [];
  #first;
  #redraw = 0;
  #before = []; // views to go back to
  #companions = []; // pictures of the same crystal, which show the same part of it
  #ears = new AbortController();
  /** Whether a click on an atom measures instead of choosing it. */
  isMeasuring = false;
  #late = null; // what to draw as soon as the container has a size
  #shownAt = null; // size of the container and scale, as last seen
  #watcher = new ResizeObserver(() => {
    if (this.#late && this.#hasSize) this.#late();
    else this.#resized();
  });

  /**
   * `library` is 3Dmol, `container` an element with a size. `onPick(atom, image, event)` is called on a click on an atom,
   * and `onPoint(words, event)` with what is under the pointer, or null. Throws an error if there is no WebGL.
   */
  constructor(library, container, crystal, { onPick, onPoint = () => {} }, view) {
    this.#crystal = crystal;
    this.#container = container;
    const antialias = !isSoftware();
    this.#viewer = library.createViewer(container, { backgroundColor: crystal.palette.paper, disableFog: true, antialias });
    this.#viewer.setProjection("orthographic");
    this.#overlay = node("svg", { class: "cf-overlay", "aria-hidden": "true" });
    container.append(this.#overlay);
    this.#viewer.setViewChangeCallback((seen) => this.#moved(seen));
    this.#first = cameraAt(view);
    LIVING.add(this);
    this.#listen(onPick, onPoint);
    this.#watcher.observe(container);
  }

  /** Take the picture away. The last one gives back the WebGL context that all share: a browser has about 16 of them. */
  end() {
    if (!LIVING.delete(this)) return;
    this.#ears.abort();
    this.#watcher.disconnect();
    cancelAnimationFrame(this.#redraw);
    this.#state = null;
    if (!LIVING.size) this.context?.getExtension("WEBGL_lose_context")?.loseContext();
    this.#container.replaceChildren();
  }

  /** The WebGL context. 3Dmol draws all pictures of a page, or of a widget, with one. */
  get context() {
    return this.#viewer.getRenderer().getContext();
  }

  /**
   * Draw `{layer, head, atom, frames, polyhedra, display}` with the lines `{edges, weights, quantity}`; where the picture
   * is out of sight and has no size, once it has one.
   */
  draw(state, lines) {
    this.#late = this.#hasSize ? null : () => this.draw(state, lines);
    if (this.#late) return;
    const isFirst = !this.#state;
    this.#state = { ...state, display: state.display ?? startingDisplay(this.#crystal) };
    this.#lines = { quantity: ATTENTION, ...lines };
    if (isFirst) this.#turnTo(this.#first);
    else this.#drawAll();
  }

  /** Draw another crystal from the next call of `draw` on. */
  change(crystal) {
    this.#crystal = crystal;
    [this.#state, this.#solids, this.#drawnAs] = [null, null, ""];
    [this.#lasting, this.#balls, this.#measured, this.#before] = [[], [], [], []];
    this.#place = { atom: -1, image: [0, 0, 0] };
  }

  #drawAll() {
    const viewer = this.#viewer;
    this.#scaleAsDrawn = this.scale;
    this.#drawCrystal();
    this.#clear();
    const meshes = new Meshes();
    this.#rods = [];
    this.#tips = [];
    this.#texts = [...this.#valueTexts(), ...this.#cellTexts()];
    this.#drawStep(meshes);
    const ghosts = this.#ghosts();
    if (ghosts.length) this.#fleeting.models = [this.#addBalls(ghosts, GHOST, 0.6)];
    this.#balls = [...this.#lasting, ...ghosts.map((ball) => this.#ball(ball, GHOST))];
    this.#fleeting.shapes = [...meshes.addTo(viewer), ...this.#drawSolids()];
    viewer.render(); // calls #moved, which places the labels
  }

  // --- the camera ---------------------------------------------------------------------------------------------------

  /** JupyterLab takes the size of a cell that is scrolled out of sight, and a page that of what it hides. */
  get #hasSize() {
    return this.#container.clientWidth > 0 && this.#container.clientHeight > 0;
  }

  get #isSeen() {
    return this.#state && this.#hasSize;
  }

  /** Pixels per Å. */
  get scale() {
    return cameraOf(this.#viewer, this.#container.clientWidth).scale;
  }

  /** Directions of the camera: to the right, up, and towards the viewer. */
  get rows() {
    return cameraOf(this.#viewer, this.#container.clientWidth).rows;
  }

  /** The view at first: everything that is drawn fills the picture. */
  reset() {
    this.#keepView();
    this.#turnTo(this.#first);
  }

  /** Go back to the view before the last change. */
  undo() {
    const view = this.#before.pop();
    if (!view) return;
    this.#viewer.setView(view);
    this.#viewer.render();
  }

  #keepView() {
    const view = this.#viewer.getView();
    if (view.join() === this.#before[this.#before.length - 1]?.join()) return;
    this.#before.push([...view]);
    if (this.#before.length > KEPT_VIEWS) this.#before.shift();
  }

  /** Look along the lattice vector `axis` (0, 1 or 2) of the drawn cell. */
  lookAlong(axis) {
    const { axes } = this.#contents;
    this.#keepView();
    this.#turnTo(looking(axes[axis], axes[(axis + 2) % 3]));
  }

  /** Turn by degrees to the right and up. */
  turn(right, up) {
    this.#keepView();
    this.#viewer.rotate(right, "vy");
    this.#viewer.rotate(-up, "vx");
    this.#viewer.render();
  }

  /** Zoom in by a factor. */
  zoom(factor) {
    this.#keepView();
    this.#viewer.zoom(factor);
    this.#viewer.render();
  }

  /** Move the crystal by pixels to the right and down. */
  #slide(right, down) {
    const { rows, scale } = cameraOf(this.#viewer, this.#container.clientWidth);
    const view = this.#viewer.getView();
    const moved = [0, 1, 2].map((k) => view[k] + (right * rows[0][k] - down * rows[1][k]) / scale);
    this.#viewer.setView([...moved, ...view.slice(3)]);
    this.#viewer.render();
  }

  /** Bring the chosen atom to the middle, and turn about it from now on. */
  fly() {
    if (!this.#isSeen) return;
    const size = Math.min(this.#container.clientWidth, this.#container.clientHeight);
    this.#keepView();
    this.#lookAt(this.#positionOf(this.#state.atom), size / (2 * FLY));
  }

  /** The camera as 3Dmol describes it. */
  view() {
    return this.#viewer.getView();
  }

  /** Call `call(view)` whenever the picture is drawn, turned or zoomed. Returns a function that ends this. */
  onView(call) {
    this.#listeners.push(call);
    return () => (this.#listeners = this.#listeners.filter((other) => other !== call));
  }

  /** Use the camera of another picture. */
  lookFrom(view) {
    this.#viewer.setView(view);
  }

  /** From now on, the view at first holds what these pictures show, too. */
  fitWith(companions) {
    this.#companions = companions;
  }

  /** Turn as the camera of another picture, and zoom by a factor. */
  follow(view, factor) {
    const [x, y, z, distance] = this.#viewer.getView();
    this.#viewer.setView([x, y, z, distance, ...view.slice(4)]);
    this.#viewer.zoom(factor);
    this.#viewer.render();
  }

  #turnTo(rows) {
    if (!this.#isSeen) return;
    const turn = quaternionOf(rows);
    const [x, y, z, distance] = this.#viewer.getView();
    this.#viewer.setView([x, y, z, distance, ...turn]);
    // Twice: lines and axes have a least size in pixels, so what is to be seen depends on the scale.
    for (let pass = 0; pass < 2; pass++) {
      this.#drawAll();
      this.#fit(rows);
    }
    this.#drawAll();
  }

  #fit(rows) {
    const { clientWidth, clientHeight } = this.#container;
    const points = [this, ...this.#companions].flatMap((picture) => picture.seen());
    const spans = rows.map((row) => {
      const along = points.map((point) => row[0] * point[0] + row[1] * point[1] + row[2] * point[2]);
      return [Math.min(...along), Math.max(...along)];
    });
    const middle = spans.map(([low, high]) => (low + high) / 2);
    const center = [0, 1, 2].map((k) => rows[0][k] * middle[0] + rows[1][k] * middle[1] + rows[2][k] * middle[2]);
    const margin = Math.min(MARGIN, clientWidth / 8);
    const [wide, high] = spans.map(([low, most]) => Math.max(most - low, 2));
    this.#lookAt(center, Math.min((clientWidth - 2 * margin) / wide, (clientHeight - 2 * margin) / high));
  }

  #lookAt(center, scale) {
    const viewer = this.#viewer;
    const [, , , distance, ...turn] = viewer.getView();
    viewer.setView([...center.map((x) => -x), distance, ...turn]);
    const depth = 20 + Math.max(...this.seen().map((point) => Math.hypot(...point.map((x, k) => x - center[k]))));
    viewer.setSlab(-depth, depth);
    viewer.zoom(scale / this.scale);
    viewer.render();
  }

  /** What must be in the picture: balls, the cell if it is full, lines, and axes. */
  seen() {
    if (!this.#state) return [];
    const { edges } = this.#contents;
    const isFull = !this.#crystal.vacuum.some(Boolean);
    const cell = isFull && this.#state.display.edges ? edges.flat() : [];
    const balls = this.#balls.flatMap(({ point, radius }) => [point.map((x) => x - radius), point.map((x) => x + radius)]);
    return [...balls, ...cell, ...this.#tips, ...this.#rods.flatMap(({ start, end }) => [start, end])];
  }

  /** In a container of another size, show at least what was to be seen before. */
  #resized() {
    if (!this.#isSeen) return;
    const { clientWidth: width, clientHeight: height } = this.#container;
    const before = this.#shownAt;
    this.#viewer.resize();
    if (before) {
      const scale = before.scale * Math.min(width / before.width, height / before.height);
      this.#viewer.zoom(scale / this.scale);
    }
    this.#shownAt = { width, height, scale: this.scale };
    this.#viewer.render();
  }

  #moved(seen) {
    if (!this.#isSeen) return;
    const { clientWidth: width, clientHeight: height } = this.#container;
    // After a change of size, `#resized` is still to come.
    if (!this.#shownAt || (width === this.#shownAt.width && height === this.#shownAt.height)) {
      this.#shownAt = { width, height, scale: this.scale };
    }
    this.#label();
    for (const call of this.#listeners) call(seen);
    const change = this.scale / this.#scaleAsDrawn;
    if (change < RESCALE && change > 1 / RESCALE) return;
    this.#redraw ||= requestAnimationFrame(() => {
      this.#redraw = 0;
      if (this.#isSeen) this.#drawAll();
    });
  }

  // --- pictures to keep ---------------------------------------------------------------------------------------------

  /** A PNG picture as a data URL, `scale` times as wide and high as on screen. */
  async png(scale, isTransparent = false) {
    const viewer = this.#viewer;
    const { palette } = this.#crystal;
    const { texts, lines } = this.#words();
    const { width, height } = this.#container.style;
    const [right, down] = [this.#container.clientWidth, this.#container.clientHeight];
    if (isTransparent) viewer.setBackgroundColor(palette.paper, 0);
    Object.assign(this.#container.style, { width: `${scale * right}px`, height: `${scale * down}px` });
    viewer.resize();
    const picture = new Image();
    picture.src = viewer.pngURI();
    Object.assign(this.#container.style, { width, height });
    viewer.setBackgroundColor(palette.paper, 1);
    viewer.resize();
    this.#label();
    await picture.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
    const pen = canvas.getContext("2d");
    pen.drawImage(picture, 0, 0);
    paint(pen, texts, lines, palette.paper, picture.width / right);
    return canvas.toDataURL("image/png");
  }

  /** The picture as an SVG document. */
  svg() {
    const bodies = new Bodies();
    const kept = [[...this.#rods], [...this.#texts]];
    this.#drawStep(bodies);
    [this.#rods, this.#texts] = kept;
    this.#drawSticks(bodies);
    const { polyhedra, atom } = this.#state;
    if (polyhedra !== "none") this.#fillSolids(bodies, bodies, polyhedra === "all" ? null : atom);
    for (const { site, point, radius } of this.#balls) bodies.ball(this.#colorOf(site), point, radius);
    const { clientWidth, clientHeight } = this.#container;
    const { texts, lines } = this.#words();
    const { paper } = this.#crystal.palette;
    return bodies.svg(this.#project(), this.scale, clientWidth, clientHeight, paper, texts, lines);
  }

  // --- what is under the pointer ------------------------------------------------------------------------------------

  /** Position of an atom on the page, pixels (for tests). */
  pixelOf(atom, image = this.#imageOf(atom)) {
    const [x, y] = this.#project()(positionOf(this.#crystal, atom, image));
    const box = this.#container.getBoundingClientRect();
    return { x: x + box.left + this.#container.clientLeft, y: y + box.top + this.#container.clientTop };
  }

  /** Where everything is, pixels in the picture (for tests). */
  layout() {
    const project = this.#project();
    const flat = ({ start, end, kind, radius }) => {
      return { kind, start: project(start), end: project(end), width: 2 * radius * this.scale };
    };
    return {
      balls: this.#balls.map(({ site, image, point, radius }) => ({ site, image, at: project(point), radius: radius * this.scale })),
      rods: this.#rods.map(flat),
      texts: this.#words().texts,
      scale: this.scale,
    };
  }

  #listen(onPick, onPoint) {
    const container = this.#container;
    const { signal } = this.#ears;
    let [active, pressed, waiting] = [false, null, 0];
    const hint = Object.assign(document.createElement("div"), { className: "cf-hint", hidden: true });
    hint.textContent = "Click the picture first; then the wheel zooms.";
    container.append(hint);
    const at = (event) => {
      const box = container.getBoundingClientRect();
      return [event.clientX - box.left - container.clientLeft, event.clientY - box.top - container.clientTop];
    };
    // Without a click, the wheel scrolls the page.
    const wheel = (event) => {
      event.stopImmediatePropagation();
      if (!active) {
        hint.hidden = false;
        return;
      }
      event.preventDefault();
      this.zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 100) * 0.002));
    };
    container.addEventListener("wheel", wheel, { capture: true, passive: false, signal });
    container.addEventListener("pointerdown", (event) => {
      // A second finger begins a zoom, and chooses nothing.
      [active, pressed] = [true, event.isPrimary ? at(event) : null];
      this.#keepView();
      hint.hidden = true;
      container.focus({ preventScroll: true });
    }, { capture: true, signal });
    container.addEventListener("pointerup", (event) => {
      const place = at(event);
      const still = pressed && Math.hypot(place[0] - pressed[0], place[1] - pressed[1]) < 4;
      pressed = null;
      const ball = still && !event.button && this.#ballAt(place);
      // A finger cannot point without touching.
      if (still && event.pointerType === "touch") onPoint(this.#wordsAt(place), event);
      if (!ball) return;
      if (event.shiftKey || this.isMeasuring) this.measure(ball);
      // Atoms around a region cannot be chosen: the trace does not hold their attention.
      else if (ball.site < this.#crystal.nQueries) {
        this.#place = { atom: ball.site, image: ball.image };
        onPick(ball.site);
        if (ball.site === this.#state.atom) this.#drawAll();
      }
    }, { capture: true, signal });
    container.addEventListener("dblclick", () => this.reset(), { signal });
    container.addEventListener("pointermove", (event) => {
      if (event.buttons) return onPoint(null, event);
      waiting ||= requestAnimationFrame(() => {
        waiting = 0;
        onPoint(this.#state ? this.#wordsAt(at(event)) : null, event);
      });
    }, { signal });
    container.addEventListener("pointerleave", (event) => {
      cancelAnimationFrame(waiting);
      [active, waiting] = [false, 0];
      hint.hidden = true;
      if (event.pointerType !== "touch") onPoint(null, event);
    }, { signal });
    document.addEventListener("pointerdown", (event) => onPoint(null, event), { capture: true, signal });
    this.#listenToFingers(signal);
    container.addEventListener("keydown", (event) => {
      if (event.key === "Escape") active = false;
    }, { signal });
  }

  /** Two fingers zoom by as much as they part, and move the crystal along. One finger turns it: 3Dmol does that. */
  #listenToFingers(signal) {
    let [isPinched, before] = [false, null];
    const options = { capture: true, passive: false, signal };
    const pair = ([a, b]) => {
      const apart = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      return { apart: Math.max(apart, 1), x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2 };
    };
    const count = ({ targetTouches }) => {
      before = targetTouches.length === 2 ? pair(targetTouches) : null;
      isPinched = targetTouches.length > 1 || (isPinched && targetTouches.length > 0);
    };
    for (const name of ["touchstart", "touchend", "touchcancel"]) this.#container.addEventListener(name, count, options);
    this.#container.addEventListener("touchmove", (event) => {
      if (!isPinched) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      if (!before) return;
      const now = pair(event.targetTouches);
      this.#viewer.zoom(now.apart / before.apart);
      this.#slide(now.x - before.x, now.y - before.y);
      before = now;
    }, options);
  }

  #ballAt([x, y]) {
    const project = this.#project();
    const scale = this.scale;
    let best = null;
    for (const ball of this.#balls) {
      const [u, v, depth] = project(ball.point);
      if (Math.hypot(u - x, v - y) > Math.max(6, ball.radius * scale)) continue;
      if (!best || depth > best.depth) best = { ...ball, depth };
    }
    return best;
  }

  #wordsAt(place) {
    const ball = this.#ballAt(place);
    if (ball) return this.#say(ball);
    const project = this.#project();
    const near = this.#rods
      .map((rod) => ({ rod, away: toSegment(place, project(rod.start), project(rod.end)) }))
      .filter(({ away }) => away < NEAR)
      .sort((a, b) => a.away - b.away)[0];
    return near ? near.rod.words : null;
  }

  /** An atom in words: `O3 (0, 0, 1), 1.96 Å, attention 0.089, rank 2`. */
  #say({ site, image }) {
    const crystal = this.#crystal;
    const { atom } = this.#state;
    let words = imageLabel(crystal.labels[site], image);
    const origin = this.#imageOf(atom);
    const step = image.map((x, k) => x - origin[k]);
    const away = lengthOf(difference(positionOf(crystal, site, image), this.#positionOf(atom)));
    if (away > 1e-3) words += `, ${away.toFixed(2)} Å`;
    const { edges, weights, quantity } = this.#lines;
    for (const { name, unit, values, isSigned } of siteValues(crystal)) {
      words += `, ${name} ${isSigned ? signed(values[site]) : values[site].toPrecision(3)} ${unit}`.trimEnd();
    }
    for (let edge = crystal.edgeStart[atom]; edge < crystal.edgeStart[atom + 1]; edge++) {
      if (crystal.edgeKey[edge] !== site || step.some((x, k) => x !== crystal.edgeImage[3 * edge + k])) continue;
      if (Number.isNaN(weights[edge])) break;
      const number = quantity.isSigned ? `${signed(weights[edge])} ${quantity.unit}` : weights[edge].toFixed(3);
      words += `, ${quantity.name} ${number}`;
      const rank = edges.indexOf(edge);
      if (rank >= 0) words += `, rank ${rank + 1}`;
      break;
    }
    return words;
  }

  // --- measuring ----------------------------------------------------------------------------------------------------

  /** Add an atom to the measurement: two give a distance, three an angle, four a dihedral angle. */
  measure(ball = { site: this.#state.atom, image: this.#imageOf(this.#state.atom) }) {
    const name = ballName(ball.site, ball.image);
    if (this.#measured.length === 4) this.#measured = [];
    const last = this.#measured[this.#measured.length - 1];
    if (!last || ballName(last.site, last.image) !== name) this.#measured.push({ site: ball.site, image: [...ball.image] });
    this.#label();
    return this.measurement();
  }

  forget() {
    this.#measured = [];
    this.#label();
  }

  /** The measurement in words, or an empty text. */
  measurement() {
    const crystal = this.#crystal;
    const points = this.#measured.map(({ site, image }) => positionOf(crystal, site, image));
    const names = this.#measured.map(({ site, image }) => imageLabel(crystal.labels[site], image)).join(" – ");
    if (!points.length) return "";
    return points.length === 1 ? `${names}: choose a second atom` : `${names}: ${measured(points)}`;
  }

  // --- words over the picture ---------------------------------------------------------------------------------------

  #project() {
    const { clientWidth, clientHeight } = this.#container;
    return projector(cameraOf(this.#viewer, clientWidth), clientWidth, clientHeight);
  }

  #words() {
    const project = this.#project();
    const { clientWidth, clientHeight } = this.#container;
    const { ink, paper, attention } = this.#crystal.palette;
    const points = this.#measured.map(({ site, image }) => positionOf(this.#crystal, site, image));
    // Axes choose their places first, then the name of the atom, letters of the cell, and values.
    const texts = this.#state?.display.labels ? [...this.#texts].reverse() : [];
    if (points.length > 1) {
      const middle = points[0].map((_, k) => points.reduce((sum, point) => sum + point[k], 0) / points.length);
      texts.unshift({ text: measured(points), color: ink, at: middle, size: 15 });
    }
    const flat = points.map((point) => project(point).slice(0, 2));
    const lines = flat.slice(1).map((to, n) => ({ from: flat[n], to, color: attention }));
    return { texts: placed(texts, project, this.scale, clientWidth, clientHeight), lines, paper };
  }

  #label() {
    if (!this.#isSeen) return;
    const { texts, lines, paper } = this.#words();
    fill(this.#overlay, texts, lines, paper);
  }

  #cellTexts() {
    const { origin, axes, edges } = this.#contents;
    if (!edges.length || !this.#state.display.edges) return [];
    const { ink } = this.#crystal.palette;
    return axes.map((axis, k) => {
      return { text: "abc"[k], color: ink, from: origin, at: origin.map((x, n) => x + axis[n]), clear: 0.6, away: axis, size: 13 };
    });
  }

  // --- drawn once ---------------------------------------------------------------------------------------------------

  #drawCrystal() {
    const { display } = this.#state;
    const scale = this.scale;
    const name = JSON.stringify([display, Math.round(Math.log(scale) / Math.log(RESCALE)), this.#crystal.palette.paper]);
    if (name === this.#drawnAs) return;
    this.#drawnAs = name;
    this.#contents = cellContents(this.#crystal, display);
    const viewer = this.#viewer;
    viewer.removeAllModels();
    viewer.removeAllShapes();
    viewer.setBackgroundColor(this.#crystal.palette.paper, 1);
    this.#fleeting = { shapes: [], models: [] };
    this.#solids = null;
    this.#addBalls(this.#shownBalls());
    this.#lasting = this.#shownBalls().map((ball) => this.#ball(ball));
    const meshes = new Meshes();
    this.#drawSticks(meshes);
    meshes.addTo(viewer);
  }

  #shownBalls() {
    const { site, image } = this.#contents;
    return site.map((atom, n) => ({ site: atom, image: image[n] })).filter(({ site: atom }) => !this.#isHidden(atom));
  }

  #isHidden(atom) {
    return this.#state.display.hidden.includes(this.#element(atom).symbol);
  }

  #ball({ site, image }, size = 1) {
    return { site, image, point: positionOf(this.#crystal, site, image), radius: size * this.#element(site).ball_radius };
  }

  /** Cell and bonds. */
  #drawSticks(meshes) {
    const crystal = this.#crystal;
    const { display } = this.#state;
    const { edges, site, image } = this.#contents;
    const least = LEAST.cell / this.scale;
    if (display.edges) {
      for (const [start, end] of edges) meshes.rod(crystal.palette.cell, start, end, Math.max(0.02, least));
    }
    if (!display.bonds) return;
    for (const [a, b] of bondsAmong(crystal, this.#contents)) {
      if (this.#isHidden(site[a]) || this.#isHidden(site[b])) continue;
      const [from, to] = [a, b].map((n) => positionOf(crystal, site[n], image[n]));
      const middle = from.map((x, k) => (x + to[k]) / 2);
      const radius = Math.max(BOND, least);
      meshes.rod(this.#element(site[a]).color, from, middle, radius);
      meshes.rod(this.#element(site[b]).color, to, middle, radius);
    }
  }

  /** Polyhedra around all atoms are made when they are first wanted, and then shown or hidden. */
  #drawSolids() {
    const { polyhedra, atom } = this.#state;
    const all = polyhedra === "all";
    if (all) this.#solids ??= this.#addSolids();
    for (const shape of this.#solids ?? []) shape.hidden = !all;
    return polyhedra === "selected" ? this.#addSolids(atom) : [];
  }

  // --- drawn at every step ------------------------------------------------------------------------------------------

  #clear() {
    const viewer = this.#viewer;
    for (const shape of this.#fleeting.shapes) viewer.removeShape(shape);
    for (const model of this.#fleeting.models) viewer.removeModel(model);
    this.#fleeting = { shapes: [], models: [] };
  }

  /** Ring, attention lines and axes. */
  #drawStep(meshes) {
    this.#drawRings(meshes);
    this.#drawLines(meshes);
    this.#drawFrames(meshes);
    this.#drawGradient(meshes);
  }

  /** Which copy of an atom is meant: the one that was clicked, or else the first that is drawn. */
  #imageOf(atom) {
    if (this.#place.atom === atom && this.#contents.number.has(ballName(atom, this.#place.image))) return this.#place.image;
    if (this.#contents.number.has(ballName(atom, [0, 0, 0]))) return [0, 0, 0];
    const n = this.#contents.site.indexOf(atom);
    return n < 0 ? [0, 0, 0] : this.#contents.image[n];
  }

  #positionOf(atom) {
    return positionOf(this.#crystal, atom, this.#imageOf(atom));
  }

  /** Ends of the attention lines: `{edge, site, image}`. */
  #ends() {
    const { edgeKey, edgeImage } = this.#crystal;
    const origin = this.#imageOf(this.#state.atom);
    return this.#lines.edges.map((edge) => ({
      edge,
      site: edgeKey[edge],
      image: origin.map((x, k) => x + edgeImage[3 * edge + k]),
    }));
  }

  /** Atoms at the ends of lines that are not drawn otherwise. */
  #ghosts() {
    return this.#ends().filter(
      ({ site, image }) => !this.#contents.number.has(ballName(site, image)) || this.#isHidden(site),
    );
  }

  #drawLines(meshes) {
    const crystal = this.#crystal;
    const { weights, edges, quantity } = this.#lines;
    const start = this.#positionOf(this.#state.atom);
    const { highest = Math.abs(weights[edges[0]]) || 1 } = this.#lines;
    const least = LEAST.line / this.scale;
    for (const { edge, site, image } of this.#ends()) {
      const end = positionOf(crystal, site, image);
      // Relative to the strongest line, so that strong neighbours stand out; the caption has the sums.
      const share = shareOf(weights[edge], highest, this.#state.display.scale);
      const step = Math.round(share * RAMP_STEPS) / RAMP_STEPS;
      const radius = Math.max(LINE[0] + (LINE[1] - LINE[0]) * share, least * (1 + share));
      if (quantity.isSigned) this.#drawSigned(meshes, start, end, radius, weights[edge], step);
      else meshes.rod(ramp(crystal.palette.attentionRamp, step), start, end, radius);
      this.#rods.push({ kind: "line", start, end, radius, words: `to ${this.#say({ site, image })}` });
    }
  }

  /** A line of what raises the prediction, or a dashed one of what lowers it. */
  #drawSigned(meshes, start, end, radius, value, share) {
    const { raises, lowers, paper } = this.#crystal.palette;
    const color = mix(value < 0 ? lowers : raises, paper, 0.45 * (1 - share));
    if (value >= 0) return meshes.rod(color, start, end, radius);
    const at = (part) => start.map((x, k) => x + (part / DASHES) * (end[k] - x));
    // Gaps in the colour of the paper hide the bond below.
    for (let n = 0; n < DASHES; n++) meshes.rod(n % 2 ? paper : color, at(n), at(n + 1), n % 2 ? 0.8 * radius : radius);
  }

  /** Arrows along which a moving atom raises the prediction. */
  #drawGradient(meshes) {
    const { gradient, explanation, nAtoms, labels, palette } = this.#crystal;
    if (!gradient || !this.#state.display.gradient) return;
    const of = (atom) => Array.from(gradient.subarray(3 * atom, 3 * atom + 3));
    const sizes = Array.from({ length: nAtoms }, (_, atom) => lengthOf(of(atom)));
    const largest = Math.max(...sizes);
    for (let atom = 0; atom < nAtoms; atom++) {
      const length = LONGEST * (sizes[atom] / largest);
      if (!(length > 0.1) || this.#isHidden(atom)) continue; // shorter than the ball
      const start = this.#positionOf(atom);
      const along = of(atom).map((x) => x / sizes[atom]);
      const from = start.map((x, k) => x + this.#element(atom).ball_radius * along[k]);
      const end = from.map((x, k) => x + length * along[k]);
      const radius = Math.max(0.05, LEAST.line / this.scale);
      meshes.arrow(palette.ink, from, end, radius, Math.min(4 * radius, 0.6 * length), 2.4 * radius);
      const words = `${labels[atom]}: ${sizes[atom].toPrecision(3)} ${explanation.unit} per Å along the arrow`;
      this.#rods.push({ kind: "gradient", start: from, end, radius, words });
    }
  }

  /** The value that colours the atoms; null if their elements do. */
  #shownValue() {
    return siteValues(this.#crystal).find(({ name }) => name === this.#state.display.color) ?? null;
  }

  /** Element and value of each drawn atom. */
  #valueTexts() {
    const shown = this.#shownValue();
    const balls = this.#lasting;
    if (!shown || balls.length > MARKED) return [];
    return balls.map(({ site, point, radius }) => {
      const value = shown.values[site];
      const number = shown.isSigned ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}` : value.toPrecision(3);
      return { text: `${this.#element(site).symbol} ${number}`, color: this.#crystal.palette.ink, at: point, clear: 0.8 * radius, size: 11, isOptional: true };
    });
  }

  /** Colour of an atom: that of its element, or of its value. */
  #colorOf(site) {
    const shown = this.#shownValue();
    return shown ? valueColor(this.#crystal, shown, shown.values[site]) : this.#element(site).color;
  }

  /** Three rings around the chosen atom, visible from all sides and inside a polyhedron. */
  #drawRings(meshes) {
    const { atom } = this.#state;
    const radius = 1.25 * this.#element(atom).ball_radius;
    const center = this.#positionOf(atom);
    const thick = Math.max(0.028, LEAST.line / this.scale);
    for (const [u, v] of [[0, 1], [1, 2], [2, 0]]) {
      const points = Array.from({ length: RING_SIDES + 1 }, (_, side) => {
        const angle = (2 * Math.PI * side) / RING_SIDES;
        const point = [...center];
        point[u] += radius * Math.cos(angle);
        point[v] += radius * Math.sin(angle);
        return point;
      });
      for (let side = 0; side < RING_SIDES; side++) {
        meshes.rod(this.#crystal.palette.attention, points[side], points[side + 1], thick);
      }
    }
    const label = imageLabel(this.#crystal.labels[atom], this.#imageOf(atom));
    this.#texts.push({ text: label, color: this.#crystal.palette.ink, at: center, clear: radius });
  }

  /** Add the polyhedra around all drawn centres, or around one atom. */
  #addSolids(atom = null) {
    const [sides, frame] = [new Meshes(), new Meshes()];
    this.#fillSolids(sides, frame, atom);
    return [...sides.addTo(this.#viewer, { opacity: 0.45 }), ...frame.addTo(this.#viewer)];
  }

  #fillSolids(sides, frame, atom) {
    const crystal = this.#crystal;
    const { vertexCenter, vertexKey, vertexImage, faces, rims } = crystal;
    const centers = this.#contents.solids.filter(([center]) => !this.#isHidden(center));
    const own = centers.find(([center, image]) => center === atom && `${image}` === `${this.#imageOf(atom)}`);
    const wanted = atom === null ? centers : [own ?? centers.find(([center]) => center === atom)].filter(Boolean);
    const shifts = new Map();
    for (const [center, image] of wanted) shifts.set(center, [...(shifts.get(center) ?? []), image]);
    const vertex = (n, shift) => positionOf(crystal, vertexKey[n], shift.map((x, k) => x + vertexImage[3 * n + k]));
    const each = (indices, size, call) => {
      for (let n = 0; n < indices.length; n += size) {
        const center = vertexCenter[indices[n]];
        const color = mix(this.#element(center).color, SOLID, 0.5);
        for (const shift of shifts.get(center) ?? []) {
          call(color, Array.from(indices.subarray(n, n + size), (index) => vertex(index, shift)));
        }
      }
    };
    each(faces, 3, (color, corners) => sides.triangle(color, corners));
    each(rims, 2, (color, [start, end]) => frame.rod(color, start, end, 0.025));
  }

  #drawFrames(meshes) {
    const crystal = this.#crystal;
    const { layer, head, atom, frames } = this.#state;
    if (!crystal.axes || head === null || frames === "none") return;
    const reach = Math.max(AXIS_LENGTH, LEAST.length / this.scale);
    const least = LEAST.axis / this.scale;
    const owners = frames === "all" ? Array.from({ length: crystal.nQueries }, (_, n) => n) : [atom];
    const { unsignedAxis } = crystal;
    const { paper, paleness: pale, axisLabels, axes } = crystal.palette;
    for (const owner of owners) {
      if (this.#isHidden(owner) && owner !== atom) continue;
      const selected = owner === atom;
      const length = selected ? reach : OTHERS * AXIS_LENGTH;
      const start = this.#positionOf(owner);
      const paleness = isDead(crystal, layer, head, owner) ? pale : 0;
      frameOf(crystal, layer, head, owner).forEach((axis, k) => {
        if (!axis.some(Boolean)) return; // neighbours on a line fix only one axis
        const radius = selected ? Math.max(AXIS_RADIUS, least) : 0.045;
        this.#drawAxis(meshes, start, k, axis, length, radius, paleness);
        this.#tips.push(...[length, -length].map((far) => start.map((x, n) => x + far * axis[n])).slice(0, k === unsignedAxis ? 2 : 1));
        if (!selected) return;
        const end = start.map((x, n) => x + length * axis[n]);
        const words = `${axisLabels[k]} = (${axis.map((x) => x.toFixed(3)).join(", ")})`;
        this.#rods.push({ kind: "axis", start, end, radius, words });
        this.#texts.push({ text: axisLabels[k], color: mix(axes[k], paper, 0), at: end, away: axis, size: 16 });
      });
    }
    const { otherLengths, otherRadii } = crystal.palette;
    for (const { axis, direction, opacity } of otherAxes(crystal, layer, head, atom)) {
      const radius = Math.max(AXIS_RADIUS, least) * otherRadii[axis];
      // Slim heads, because there can be many.
      const length = reach * otherLengths[axis];
      this.#drawAxis(meshes, this.#positionOf(atom), axis, direction, length, radius, 1 - opacity, 1.6 * radius);
    }
  }

  /** An arrow, or a line in both directions if the sign of the axis has no meaning. */
  #drawAxis(meshes, start, axis, direction, length, radius, paleness, headRadius = 2.1 * radius) {
    const { palette, unsignedAxis } = this.#crystal;
    const color = mix(palette.axes[axis], palette.paper, paleness);
    const reach = (far) => start.map((x, n) => x + far * direction[n]);
    if (axis === unsignedAxis) meshes.rod(color, reach(-length), reach(length), radius);
    else meshes.arrow(color, start, reach(length), radius, 4 * radius, headRadius);
  }

  #addBalls(balls, size = 1, paleness = 0) {
    const crystal = this.#crystal;
    const model = this.#viewer.addModel();
    model.addAtoms(
      balls.map(({ site, image }, serial) => ({
        ...toPoint(positionOf(crystal, site, image)),
        elem: this.#element(site).symbol,
        serial,
        bonds: [],
        bondOrder: [],
      })),
    );
    if (this.#shownValue()) this.#paintValues(model, balls, size, paleness);
    else {
      for (const { symbol, color, ball_radius } of crystal.elements) {
        const sphere = { radius: size * ball_radius, color: mix(color, crystal.palette.paper, paleness) };
        model.setStyle({ elem: symbol }, { sphere });
      }
    }
    return model;
  }

  #paintValues(model, balls, size, paleness) {
    const groups = new Map();
    balls.forEach(({ site }, serial) => groups.set(site, [...(groups.get(site) ?? []), serial]));
    for (const [site, serials] of groups) {
      const color = mix(this.#colorOf(site), this.#crystal.palette.paper, paleness);
      model.setStyle({ serial: serials }, { sphere: { radius: size * this.#element(site).ball_radius, color } });
    }
  }

  #element(atom) {
    return this.#crystal.elements[this.#crystal.kind[atom]];
  }
}

/** Whether WebGL runs in software, where smooth edges make drawing five times slower. Throws an error without WebGL. */
function isSoftware() {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl) throw new Error("no WebGL");
  const facts = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(facts ? facts.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

/** `O2`, or `O2 (0, 0, 1)` with the lattice translation of an image. */
export const imageLabel = (label, image) =>
  Array.from(image).some(Boolean) ? `${label} (${Array.from(image).join(", ")})` : label;

const difference = (a, b) => a.map((x, k) => x - b[k]);
const lengthOf = (a) => Math.hypot(...a);
const inner = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const across = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

/** Distance of two points, angle of three, dihedral angle of four. */
export function measured(points) {
  const steps = points.slice(1).map((point, n) => difference(point, points[n]));
  if (steps.length === 1) return `${lengthOf(steps[0]).toFixed(3)} Å`;
  const degrees = (radians) => `${((180 / Math.PI) * radians).toFixed(1)}°`;
  if (steps.length === 2) {
    const [a, b] = [steps[0].map((x) => -x), steps[1]];
    return degrees(Math.atan2(lengthOf(across(a, b)), inner(a, b)));
  }
  const [first, last] = [across(steps[0], steps[1]), across(steps[1], steps[2])];
  return degrees(Math.atan2(inner(steps[0], last) * lengthOf(steps[1]), inner(first, last)));
}

/** Distance of a point from a segment, pixels. */
function toSegment([x, y], [a, b], [c, d]) {
  const size = (c - a) ** 2 + (d - b) ** 2;
  const share = size ? Math.min(1, Math.max(0, ((x - a) * (c - a) + (y - b) * (d - b)) / size)) : 0;
  return Math.hypot(x - a - share * (c - a), y - b - share * (d - b));
}

/** The colour of a value of `siteValues`: pale for 0 if it has a sign, else on the scale of the heatmap. */
export function valueColor({ palette }, { isSigned, low, high }, value) {
  if (Number.isNaN(value)) return NO_VALUE;
  if (!isSigned) return ramp(palette.heatmap, (value - low) / (high - low || 1));
  return mix(PALEST, value < 0 ? palette.lowers : palette.raises, Math.abs(value) / Math.max(-low, high));
}

/** Mix two colours (`#RRGGBB`): `color` for fraction 0, `other` for fraction 1. */
export function mix(color, other, fraction) {
  const channels = [1, 3, 5].map((at) => {
    const [a, b] = [color, other].map((text) => parseInt(text.slice(at, at + 2), 16));
    return Math.round(a + (b - a) * fraction).toString(16).padStart(2, "0");
  });
  return `#${channels.join("")}`;
}

/** The colour at `fraction` (0 to 1) of a ramp through equally spaced colours. */
export function ramp(colors, fraction) {
  const position = Math.min(Math.max(fraction, 0), 1) * (colors.length - 1);
  const index = Math.min(Math.floor(position), colors.length - 2);
  return mix(colors[index], colors[index + 1], position - index);
}
