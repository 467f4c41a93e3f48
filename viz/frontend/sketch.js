// A small flat picture of what one atom sees in one head: its strongest lines, the atoms at their ends, and its axes.

import { frameOf, isDead, positionOf } from "./crystal.js";
import { mix, ramp } from "./structure.js";

export const NEAREST = 2.5; // Å, that are seen at least
const ROOM = 0.86; // of half the picture: where the farthest end lies
const ARROW = 0.42; // length of an axis, of half the picture
const USUAL = 110; // pixels; lines and balls of larger sketches are larger
const STROKE = [0.8, 3.2]; // pixels at the usual size
const DISC = [2, 6];

/**
 * Draw a sketch of `size` pixels. `camera` has the rows right, up and towards the viewer; `reach` (Å) is how far is seen;
 * `lines` are `{edges, weights}` of `strongestEdges`, `isSigned` tells whether they raise or lower the prediction.
 */
export function sketch(pen, size, crystal, { layer, head, atom }, { edges, weights, isSigned }, camera, reach) {
  const { palette, edgeKey, edgeImage, elements, kind } = crystal;
  const scale = (ROOM * size) / 2 / reach;
  const large = Math.sqrt(Math.max(1, size / USUAL));
  const at = positionOf(crystal, atom);
  const flat = (vector) => camera.map((row) => row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2]);
  const place = ([right, up]) => [size / 2 + scale * right, size / 2 - scale * up];
  const disc = ([x, y], owner, factor = 1) => {
    const { ball_radius, color } = elements[kind[owner]];
    pen.beginPath();
    pen.arc(x, y, Math.min(large * large * DISC[1], Math.max(DISC[0], factor * ball_radius * scale)), 0, 2 * Math.PI);
    Object.assign(pen, { fillStyle: color, strokeStyle: palette.ink, lineWidth: 0.6 });
    pen.fill();
    pen.stroke();
  };
  const strongest = Math.abs(weights[edges[0]]) || 1;
  const rays = edges.map((edge) => {
    const there = positionOf(crystal, edgeKey[edge], edgeImage, 3 * edge);
    const toward = flat(there.map((x, k) => x - at[k]));
    return { edge, end: place(toward), depth: toward[2], share: Math.abs(weights[edge]) / strongest };
  });
  rays.sort((a, b) => a.depth - b.depth);
  const center = [size / 2, size / 2];
  const ray = ({ edge, end, share }) => {
    const signs = mix(weights[edge] < 0 ? palette.lowers : palette.raises, palette.paper, 0.45 * (1 - share));
    pen.strokeStyle = isSigned ? signs : ramp(palette.attentionRamp, share);
    pen.lineWidth = large * (STROKE[0] + (STROKE[1] - STROKE[0]) * share);
    pen.setLineDash(isSigned && weights[edge] < 0 ? [3, 2] : []);
    pen.beginPath();
    pen.moveTo(...center);
    pen.lineTo(...end);
    pen.stroke();
    pen.setLineDash([]);
    disc(end, edgeKey[edge]);
  };
  for (const one of rays.filter(({ depth }) => depth < 0)) ray(one);
  disc(center, atom, 1.2);
  for (const one of rays.filter(({ depth }) => depth >= 0)) ray(one);
  if (crystal.axes && head !== null) arrows(pen, size, crystal, { layer, head, atom }, flat, center);
}

function arrows(pen, size, crystal, { layer, head, atom }, flat, center) {
  const { palette, unsignedAxis } = crystal;
  const paleness = isDead(crystal, layer, head, atom) ? palette.paleness : 0;
  const length = (ARROW * size) / 2;
  const directions = frameOf(crystal, layer, head, atom).map((axis, k) => ({ k, toward: flat(axis) }));
  directions.sort((a, b) => a.toward[2] - b.toward[2]);
  for (const { k, toward: [right, up] } of directions) {
    if (!right && !up) continue; // neighbours on a line fix only one axis
    const end = (far) => [center[0] + far * length * right, center[1] - far * length * up];
    const [from, to] = [k === unsignedAxis ? end(-1) : center, end(1)];
    for (const [color, width] of [[palette.paper, 4.5], [mix(palette.axes[k], palette.paper, paleness), 2.5]]) {
      Object.assign(pen, { strokeStyle: color, lineWidth: width, lineCap: "round" });
      pen.beginPath();
      pen.moveTo(...from);
      pen.lineTo(...to);
      pen.stroke();
    }
    pen.lineCap = "butt";
    if (k === unsignedAxis) continue;
    pen.fillStyle = mix(palette.axes[k], palette.paper, paleness);
    pen.beginPath();
    pen.arc(...to, 3, 0, 2 * Math.PI);
    pen.fill();
  }
}

/** Fill a canvas with a sketch. */
export function drawFlat(canvas, crystal, state, lines, camera) {
  const size = Math.min(canvas.clientWidth, canvas.clientHeight);
  const density = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(canvas.clientWidth * density), height: Math.round(canvas.clientHeight * density) });
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  pen.translate((canvas.clientWidth - size) / 2, (canvas.clientHeight - size) / 2);
  const lengths = lines.edges.map((edge) => crystal.edgeLength[edge]);
  sketch(pen, size, crystal, state, lines, camera, Math.max(NEAREST, ...lengths));
}
