// Merges the triangles of many small bodies into few shapes with a colour at each corner. That draws far faster than one
// shape for each body, because 3Dmol reserves room for 65,535 corners in every shape.

import { cross } from "./crystal.js";

const SIDES = 8;
const MOST = 60000;

/** Bodies of any colours; `addTo` turns them into as few 3Dmol shapes as possible. */
export class Meshes {
  #meshes = [];

  /** A rod from point to point (arrays of three numbers, Å). */
  rod(color, start, end, radius) {
    this.#round(color, [
      [start, radius],
      [end, radius],
    ]);
  }

  /** A rod that ends in a cone. */
  arrow(color, start, end, radius, headLength, headRadius) {
    const length = Math.hypot(...subtract(end, start));
    const neck = along(end, start, Math.min(1, headLength / length));
    this.#round(color, [
      [start, radius],
      [neck, radius],
    ]);
    this.#round(color, [
      [neck, headRadius],
      [end, 0],
    ]);
    this.#disc(color, neck, subtract(start, end), headRadius);
  }

  /** A flat triangle; its corners are counter-clockwise as seen from the front. */
  triangle(color, corners) {
    const normal = unit(cross(subtract(corners[1], corners[0]), subtract(corners[2], corners[0])));
    const mesh = this.#mesh();
    const first = mesh.vertexArr.length;
    for (const corner of corners) push(mesh, color, corner, normal);
    mesh.faceArr.push(first, first + 1, first + 2);
  }

  /** Add everything to a 3Dmol viewer, which draws it when it next renders. Returns the shapes. */
  addTo(viewer, style = {}) {
    return this.#meshes.map((mesh) => viewer.addCustom({ ...mesh, ...style }));
  }

  /** The mesh for the next body. No mesh has more corners than WebGL can number. */
  #mesh() {
    const last = this.#meshes[this.#meshes.length - 1];
    if (last && last.vertexArr.length < MOST) return last;
    this.#meshes.push({ vertexArr: [], normalArr: [], faceArr: [], color: [] });
    return this.#meshes[this.#meshes.length - 1];
  }

  /** The surface between two circles, with normals that make it look round. */
  #round(color, [[start, startRadius], [end, endRadius]]) {
    const mesh = this.#mesh();
    const axis = subtract(end, start);
    const slope = (startRadius - endRadius) / Math.hypot(...axis);
    const direction = unit(axis);
    const first = mesh.vertexArr.length;
    for (const outward of circle(direction)) {
      const normal = outward.map((x, k) => x + slope * direction[k]);
      push(mesh, color, add(start, outward, startRadius), normal);
      push(mesh, color, add(end, outward, endRadius), normal);
    }
    for (let side = 0; side < SIDES; side++) {
      const a = first + 2 * side;
      const b = first + 2 * ((side + 1) % SIDES);
      mesh.faceArr.push(a, b, a + 1, b, b + 1, a + 1);
    }
  }

  #disc(color, center, axis, radius) {
    const mesh = this.#mesh();
    const normal = unit(axis);
    const first = mesh.vertexArr.length;
    for (const outward of circle(normal)) push(mesh, color, add(center, outward, radius), normal);
    for (let side = 1; side < SIDES - 1; side++) mesh.faceArr.push(first, first + side, first + side + 1);
  }
}

const push = (mesh, color, point, normal) => {
  mesh.color.push(parseInt(color.slice(1), 16));
  mesh.vertexArr.push(toPoint(point));
  mesh.normalArr.push(toPoint(normal));
};

/** Unit vectors around a unit vector, counter-clockwise. */
function circle(axis) {
  const helper = Math.abs(axis[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
  const right = unit(cross(axis, helper));
  const up = cross(axis, right);
  return TURNS.map(([c, s]) => right.map((x, k) => c * x + s * up[k]));
}

const TURNS = Array.from({ length: SIDES }, (_, side) => {
  const angle = (2 * Math.PI * side) / SIDES;
  return [Math.cos(angle), Math.sin(angle)];
});

const subtract = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const add = (a, b, factor = 1) => [a[0] + factor * b[0], a[1] + factor * b[1], a[2] + factor * b[2]];
const along = (a, b, fraction) => add(a, subtract(b, a), fraction);
const unit = (a) => {
  const length = Math.hypot(...a);
  return a.map((x) => x / length);
};

/** A point in the notation of 3Dmol. */
export const toPoint = ([x, y, z]) => ({ x, y, z });
