// What is drawn of a crystal: atoms and polyhedra of the given cell, of a supercell, or of another cell.

import { positionOf } from "./crystal.js";

const EDGE = 0.02; // Å. An atom this close to a face of a cell is drawn on the opposite face as well.

/**
 * The balls of a cell: `site`, `image` (three integers), `number` of each ball by its name (see `ballName`), the polyhedra
 * as `[site, image]` of their centres, and the `edges` of the cell (pairs of points, Å).
 */
export function cellContents(crystal, { cell = 0, repeats = [1, 1, 1], images = true } = {}) {
  const chosen = crystal.cells[cell];
  const found = chosen.isGiven ? repeated(crystal, repeats) : inCell(crystal, chosen);
  if (!images) {
    const kept = found.site.map((_, n) => n).filter((n) => found.isHome[n]);
    for (const name of ["site", "image", "isHome"]) found[name] = kept.map((n) => found[name][n]);
  }
  found.number = new Map(found.site.map((site, n) => [ballName(site, found.image[n]), n]));
  const axes = (chosen.isGiven ? identity : chosen.vectors).map((row, k) => {
    const times = chosen.isGiven ? repeats[k] : 1;
    return toCartesian(crystal, row).map((x) => times * x);
  });
  const origin = toCartesian(crystal, chosen.origin);
  return { ...found, axes, origin, edges: crystal.cellEdges.length ? boxEdges(origin, axes) : [] };
}

/** The name of an image of an atom: `atom,i,j,k`. */
export const ballName = (site, image) => `${site},${image[0]},${image[1]},${image[2]}`;

/** Pairs of balls that a bond joins, the smaller number first. */
export function bondsAmong(crystal, { site, image, number }) {
  const { bondStart, bondKey, bondImage } = crystal;
  const pairs = [];
  site.forEach((atom, first) => {
    for (let bond = bondStart[atom]; bond < bondStart[atom + 1]; bond++) {
      const there = image[first].map((x, k) => x + bondImage[3 * bond + k]);
      const second = number.get(ballName(bondKey[bond], there));
      if (second !== undefined && first < second) pairs.push([first, second]);
    }
  });
  return pairs;
}

const identity = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];

/** The drawn balls of the given cell, repeated. */
function repeated(crystal, repeats) {
  const { drawnSite, drawnImage } = crystal;
  const [site, image, isHome, solids] = [[], [], [], []];
  const seen = new Set();
  const centers = centersOf(crystal);
  for (const shift of grid([0, 0, 0], repeats.map((n) => n - 1))) {
    drawnSite.forEach((atom, n) => {
      const there = shift.map((x, k) => x + drawnImage[3 * n + k]);
      const name = ballName(atom, there);
      if (seen.has(name)) return;
      seen.add(name);
      site.push(atom);
      image.push(there);
      isHome.push(n < crystal.nAtoms);
    });
    for (const center of centers) solids.push([center, shift]);
  }
  return { site, image, isHome, solids };
}

/** All atoms in another cell, with those on its faces and the corners of its polyhedra. */
function inCell(crystal, { vectors, origin }) {
  const inverse = invert(vectors);
  const corners = grid([0, 0, 0], [1, 1, 1]).map((corner) => sum3(origin, times(corner, vectors)));
  const heights = vectors.map((row) => Math.hypot(...toCartesian(crystal, row)));
  const toGiven = invert(identity.map((row) => toCartesian(crystal, row)));
  const centers = new Set(centersOf(crystal));
  const [site, image, isHome, solids] = [[], [], [], []];
  const push = (atom, there, home) => {
    site.push(atom);
    image.push(there);
    isHome.push(home);
  };
  for (let atom = 0; atom < crystal.nAtoms; atom++) {
    const at = times(positionOf(crystal, atom), toGiven);
    const low = [0, 1, 2].map((k) => Math.ceil(Math.min(...corners.map((c) => c[k])) - at[k] - 0.1));
    const high = [0, 1, 2].map((k) => Math.floor(Math.max(...corners.map((c) => c[k])) - at[k] + 0.1));
    for (const there of grid(low, high)) {
      const place = times(subtractRow(sum3(at, there), origin), inverse);
      const room = heights.map((height) => EDGE / height);
      if (place.some((x, k) => x < -room[k] || x > 1 + room[k])) continue;
      const home = place.every((x, k) => x < 1 - room[k]);
      push(atom, there, home);
      if (home && centers.has(atom)) solids.push([atom, there]);
    }
  }
  const seen = new Set(site.map((atom, n) => ballName(atom, image[n])));
  const { vertexCenter, vertexKey, vertexImage } = crystal;
  for (const [center, shift] of solids) {
    vertexCenter.forEach((owner, n) => {
      const there = shift.map((x, k) => x + vertexImage[3 * n + k]);
      const name = ballName(vertexKey[n], there);
      if (owner !== center || seen.has(name)) return;
      seen.add(name);
      push(vertexKey[n], there, false);
    });
  }
  return { site, image, isHome, solids };
}

const centersOf = ({ vertexCenter }) => [...new Set(vertexCenter)];

/** All triples of integers between two corners, both included. */
function grid(low, high) {
  const all = [];
  for (let i = low[0]; i <= high[0]; i++) {
    for (let j = low[1]; j <= high[1]; j++) for (let k = low[2]; k <= high[2]; k++) all.push([i, j, k]);
  }
  return all;
}

/** The twelve edges of a cell. */
function boxEdges(origin, axes) {
  const edges = [];
  for (let k = 0; k < 3; k++) {
    const [u, v] = [axes[(k + 1) % 3], axes[(k + 2) % 3]];
    for (const [s, t] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      const start = origin.map((x, n) => x + s * u[n] + t * v[n]);
      edges.push([start, sum3(start, axes[k])]);
    }
  }
  return edges;
}

const sum3 = (a, b) => a.map((x, k) => x + b[k]);
const subtractRow = (a, b) => a.map((x, k) => x - b[k]);
/** A row times a matrix of rows. */
const times = (row, matrix) => [0, 1, 2].map((k) => row[0] * matrix[0][k] + row[1] * matrix[1][k] + row[2] * matrix[2][k]);

function toCartesian({ lattice }, row) {
  return [0, 1, 2].map((k) => row[0] * lattice[k] + row[1] * lattice[3 + k] + row[2] * lattice[6 + k]);
}

function invert([[a, b, c], [d, e, f], [g, h, i]]) {
  const det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  return [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((x) => x / det));
}
