// The crystal in 3D. Atoms, bonds and cell are drawn once; everything that depends on layer, head and atom at every step.

import { frameOf, isDead, otherAxes, positionOf } from "./crystal.js";
import { Meshes, toPoint } from "./mesh.js";

// Å, as in viz/drawings.py.
const AXIS_LENGTH = 1.5;
const AXIS_RADIUS = 0.085; // thicker than any attention line, as axes of `max` frames lie along edges
const OTHERS = 0.7;
const BOND = 0.03;
const LINE = [0.035, 0.065]; // weakest and strongest; even the weakest hides the bond below it
const RAMP_STEPS = 8;
const RING_SIDES = 24;
const SOLID = "#56B4E9"; // mixed into the colours of elements, many of which are grey
const FONT_SIZE = 15; // pixels
const FILLED = 0.8; // share of the picture that the cell fills

export class Structure {
  #viewer;
  #crystal;
  #library;
  #fleeting = { shapes: [], models: [] };
  #solids = [];
  #hovered = null;

  /**
   * `library` is 3Dmol, `container` an element with a size; `onPick(atom)` is called on a click.
   * Throws an error if there is no WebGL.
   */
  constructor(library, container, crystal, onPick, view) {
    this.#library = library;
    this.#crystal = crystal;
    const antialias = !isSoftware();
    this.#viewer = library.createViewer(container, { backgroundColor: "white", disableFog: true, antialias });
    this.#viewer.setProjection("orthographic");
    this.#drawCrystal();
    this.#viewer.setHoverDuration(80);
    this.#listen = (atoms) => {
      for (const atom of atoms) {
        Object.assign(atom, {
          clickable: true,
          // Atoms around a region cannot be chosen: the trace does not hold their attention.
          callback: ({ properties }) => properties.atom < crystal.nQueries && onPick(properties.atom),
          hoverable: true,
          hover_callback: (over) => this.#name(over),
          unhover_callback: () => this.#name(null),
        });
      }
    };
    this.#listen(this.#viewer.getModel(0).selectedAtoms({}));
    this.#viewer.zoomTo();
    // 3Dmol looks along -z with y up, and turns about the axes of the crystal.
    this.#viewer.rotate(view.elevation - 90, "x");
    this.#viewer.rotate(-90 - view.azimuth, "z");
    this.#fit();
  }

  #listen;

  /** Draw `{layer, head, atom, frames, polyhedra}` with the attention lines `{edges, weights}`, without moving the camera. */
  draw(state, lines) {
    const viewer = this.#viewer;
    this.#clear();
    const meshes = new Meshes();
    this.#drawRings(meshes, state.atom);
    this.#drawLines(meshes, state.atom, lines);
    this.#drawFrames(meshes, state);
    this.#fleeting.shapes = [...meshes.addTo(viewer), ...this.#drawSolids(state)];
    viewer.render();
  }

  /** A PNG picture as a data URL, `scale` times as wide and high as on screen. */
  png(scale) {
    const viewer = this.#viewer;
    const container = viewer.container;
    const { width, height } = container.style;
    const [right, down] = [container.clientWidth, container.clientHeight];
    const fonts = this.#axisLabels.concat(this.#cellLabels).map((label) => [label, label.stylespec.fontSize]);
    const letter = (factor) => {
      for (const [label, size] of fonts) viewer.setLabelStyle(label, { ...label.stylespec, fontSize: factor * size });
    };
    // Every change of a label draws the picture again, so labels are changed while it is small.
    letter(scale);
    Object.assign(container.style, { width: `${scale * right}px`, height: `${scale * down}px` });
    viewer.resize();
    const url = viewer.pngURI();
    Object.assign(container.style, { width, height });
    viewer.resize();
    letter(1);
    return url;
  }

  /** The camera as 3Dmol describes it. */
  view() {
    return this.#viewer.getView();
  }

  /** Call `call(view)` whenever the picture is drawn, turned or zoomed. */
  onView(call) {
    this.#viewer.setViewChangeCallback(call);
  }

  /** Use the camera of another picture. */
  lookFrom(view) {
    this.#viewer.setView(view);
  }

  /** Position of an atom on the page, pixels (for tests). */
  pixelOf(atom) {
    return this.#viewer.modelToScreen(toPoint(positionOf(this.#crystal, atom)));
  }

  /** Zoom so that the atoms and the cell fill the picture. */
  #fit() {
    const { drawnSite, drawnImage, cellEdges } = this.#crystal;
    const points = Array.from(drawnSite, (site, n) => positionOf(this.#crystal, site, drawnImage, 3 * n));
    for (let n = 0; n < cellEdges.length; n += 3) points.push(cellEdges.slice(n, n + 3));
    const pixels = this.#viewer.modelToScreen(points.map(toPoint));
    const { clientWidth, clientHeight } = this.#viewer.container;
    const span = (k) => Math.max(...pixels.map((at) => at[k])) - Math.min(...pixels.map((at) => at[k]));
    this.#viewer.zoom(Math.min((FILLED * clientWidth) / span("x"), (FILLED * clientHeight) / span("y")));
  }

  // --- drawn once ---------------------------------------------------------------------------------------------------

  // 3Dmol draws again when a label is added or removed, so labels stay; a step only moves those of the axes.
  #cellLabels = [];
  #axisLabels = [];

  #drawCrystal() {
    const { drawnSite, drawnImage, bonds, cellEdges, lattice, palette } = this.#crystal;
    this.#addBalls(Array.from(drawnSite, (site, n) => ({ site, image: drawnImage, offset: 3 * n })));
    const points = Array.from(drawnSite, (site, n) => positionOf(this.#crystal, site, drawnImage, 3 * n));
    const meshes = new Meshes();
    for (let n = 0; n < cellEdges.length; n += 6) {
      meshes.rod(palette.cell, cellEdges.slice(n, n + 3), cellEdges.slice(n + 3, n + 6), 0.02);
    }
    for (let n = 0; n < bonds.length; n += 2) {
      const [a, b] = [bonds[n], bonds[n + 1]];
      const middle = points[a].map((x, k) => (x + points[b][k]) / 2);
      meshes.rod(this.#element(drawnSite[a]).color, points[a], middle, BOND);
      meshes.rod(this.#element(drawnSite[b]).color, points[b], middle, BOND);
    }
    meshes.addTo(this.#viewer);
    this.#axisLabels = palette.axisLabels.map((name, k) => this.#label(name, [0, 0, 0], palette.axes[k], FONT_SIZE + 2));
    this.#cellLabels = (cellEdges.length ? ["a", "b", "c"] : []).map((name, row) => {
      const end = lattice.slice(3 * row, 3 * row + 3);
      const length = Math.hypot(...end);
      return this.#label(name, end.map((x) => x * (1 + 0.6 / length)), palette.cell, FONT_SIZE);
    });
  }

  /** Polyhedra around all atoms are made when they are first wanted, and then shown or hidden. */
  #drawSolids({ polyhedra, atom }) {
    const all = polyhedra === "all";
    if (all && !this.#solids.length) this.#solids = this.#addSolids();
    for (const shape of this.#solids) shape.hidden = !all;
    return polyhedra === "selected" ? this.#addSolids(atom) : [];
  }

  // --- drawn at every step ------------------------------------------------------------------------------------------

  #clear() {
    const viewer = this.#viewer;
    for (const shape of this.#fleeting.shapes) viewer.removeShape(shape);
    for (const model of this.#fleeting.models) viewer.removeModel(model);
    this.#fleeting = { shapes: [], models: [] };
    for (const label of this.#axisLabels) label.hide();
  }

  #drawLines(meshes, atom, { edges, weights }) {
    const crystal = this.#crystal;
    const { edgeKey, edgeImage, drawnSite, drawnImage } = crystal;
    const drawn = new Set(Array.from(drawnSite, (site, n) => [site, ...drawnImage.subarray(3 * n, 3 * n + 3)].join()));
    const start = positionOf(crystal, atom);
    const strongest = weights[edges[0]] || 1;
    const ghosts = [];
    for (const edge of edges) {
      const end = positionOf(crystal, edgeKey[edge], edgeImage, 3 * edge);
      // Relative to the strongest line, so that strong neighbours stand out; the caption has the sums.
      const share = weights[edge] / strongest;
      const step = Math.round(share * RAMP_STEPS) / RAMP_STEPS;
      meshes.rod(ramp(crystal.palette.attentionRamp, step), start, end, LINE[0] + (LINE[1] - LINE[0]) * share);
      if (!drawn.has([edgeKey[edge], ...edgeImage.subarray(3 * edge, 3 * edge + 3)].join())) {
        ghosts.push({ site: edgeKey[edge], image: edgeImage, offset: 3 * edge });
      }
    }
    this.#fleeting.models = [this.#addBalls(ghosts, 0.7, 0.6)];
    this.#listen(this.#fleeting.models[0].selectedAtoms({}));
  }

  /** Three rings around the chosen atom, visible from all sides and inside a polyhedron. */
  #drawRings(meshes, atom) {
    const radius = 1.25 * this.#element(atom).ball_radius;
    const center = positionOf(this.#crystal, atom);
    for (const [u, v] of [[0, 1], [1, 2], [2, 0]]) {
      const points = Array.from({ length: RING_SIDES + 1 }, (_, side) => {
        const angle = (2 * Math.PI * side) / RING_SIDES;
        const point = [...center];
        point[u] += radius * Math.cos(angle);
        point[v] += radius * Math.sin(angle);
        return point;
      });
      for (let side = 0; side < RING_SIDES; side++) {
        meshes.rod(this.#crystal.palette.attention, points[side], points[side + 1], 0.028);
      }
    }
  }

  /** Add the polyhedra around all atoms, or around one. */
  #addSolids(atom = null) {
    const { vertexCenter, vertexKey, vertexImage, faces, rims } = this.#crystal;
    const vertices = Array.from(vertexKey, (key, n) => positionOf(this.#crystal, key, vertexImage, 3 * n));
    const isWanted = (vertex) => atom === null || vertexCenter[vertex] === atom;
    const colorOf = (vertex) => mix(this.#element(vertexCenter[vertex]).color, SOLID, 0.5);
    const sides = new Meshes();
    for (let n = 0; n < faces.length; n += 3) {
      if (!isWanted(faces[n])) continue;
      sides.triangle(colorOf(faces[n]), [0, 1, 2].map((k) => vertices[faces[n + k]]));
    }
    const frame = new Meshes();
    for (let n = 0; n < rims.length; n += 2) {
      if (!isWanted(rims[n])) continue;
      frame.rod(colorOf(rims[n]), vertices[rims[n]], vertices[rims[n + 1]], 0.025);
    }
    return [...sides.addTo(this.#viewer, { opacity: 0.45 }), ...frame.addTo(this.#viewer)];
  }

  #drawFrames(meshes, { layer, head, atom, frames }) {
    const crystal = this.#crystal;
    if (!crystal.axes || head === null || frames === "none") return;
    const owners = frames === "all" ? Array.from({ length: crystal.nQueries }, (_, n) => n) : [atom];
    for (const owner of owners) {
      const selected = owner === atom;
      const length = AXIS_LENGTH * (selected ? 1 : OTHERS);
      const start = positionOf(crystal, owner);
      const paleness = isDead(crystal, layer, head, owner) ? crystal.palette.paleness : 0;
      frameOf(crystal, layer, head, owner).forEach((axis, k) => {
        if (!axis.some(Boolean)) return; // neighbours on a line fix only one axis
        this.#drawAxis(meshes, start, k, axis, length, selected ? AXIS_RADIUS : 0.045, paleness);
        if (selected) {
          this.#axisLabels[k].sprite.position.set(...start.map((x, n) => x + (length + 0.3) * axis[n]));
          this.#axisLabels[k].show();
        }
      });
    }
    const { otherLengths, otherRadii } = crystal.palette;
    for (const { axis, direction, opacity } of otherAxes(crystal, layer, head, atom)) {
      const radius = AXIS_RADIUS * otherRadii[axis];
      const length = AXIS_LENGTH * otherLengths[axis];
      // Slim heads, because there can be many.
      this.#drawAxis(meshes, positionOf(crystal, atom), axis, direction, length, radius, 1 - opacity, 1.6 * radius);
    }
  }

  /** An arrow, or a line in both directions if the sign of the axis has no meaning. */
  #drawAxis(meshes, start, axis, direction, length, radius, paleness, headRadius = 2.1 * radius) {
    const { palette, unsignedAxis } = this.#crystal;
    const color = mix(palette.axes[axis], "#FFFFFF", paleness);
    const reach = (far) => start.map((x, n) => x + far * direction[n]);
    if (axis === unsignedAxis) meshes.rod(color, reach(-length), reach(length), radius);
    else meshes.arrow(color, start, reach(length), radius, 4 * radius, headRadius);
  }

  #addBalls(balls, size = 1, paleness = 0) {
    const crystal = this.#crystal;
    const model = this.#viewer.addModel();
    model.addAtoms(
      balls.map(({ site, image, offset }, serial) => ({
        ...toPoint(positionOf(crystal, site, image, offset)),
        elem: this.#element(site).symbol,
        serial,
        bonds: [],
        bondOrder: [],
        properties: { atom: site, label: imageLabel(crystal.labels[site], image.subarray(offset, offset + 3)) },
      })),
    );
    for (const { symbol, color, ball_radius } of crystal.elements) {
      model.setStyle({ elem: symbol }, { sphere: { radius: size * ball_radius, color: mix(color, "#FFFFFF", paleness) } });
    }
    return model;
  }

  #name(atom) {
    if (this.#hovered) this.#viewer.removeLabel(this.#hovered);
    this.#hovered = atom && this.#label(atom.properties.label, [atom.x, atom.y, atom.z], "white", 13, this.#crystal.palette.ink);
    this.#viewer.render();
  }

  #label(text, position, fontColor, fontSize, backgroundColor = "white") {
    const style = {
      position: toPoint(position),
      fontColor,
      fontSize,
      bold: true,
      backgroundColor,
      backgroundOpacity: 1,
      inFront: true,
      alignment: "center",
      padding: 1,
    };
    const withoutRendering = true;
    return this.#viewer.addLabel(text, style, undefined, withoutRendering);
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

const imageLabel = (label, image) => (image.some(Boolean) ? `${label} (${Array.from(image).join(", ")})` : label);

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
