// A scene in the browser: typed arrays over the bytes from viz/encoding.py, and quantities computed from them.
// viz/scene.py computes the same quantities; tests/browser compares the two.

const ARRAYS = {
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  float32: Float32Array,
};

/** One object with the texts of the header and every array by its name, from header and bytes (DataView or Uint8Array). */
export function decode(header, bytes) {
  // Typed arrays need aligned offsets, so the bytes are copied to a buffer that starts at 0.
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const crystal = { ...header };
  for (const [name, { dtype, shape, offset }] of Object.entries(header.arrays)) {
    const length = shape.reduce((product, size) => product * size, 1);
    crystal[name] =
      dtype === "float16"
        ? fromHalf(new Uint16Array(buffer, offset, length))
        : new ARRAYS[dtype](buffer, offset, length);
  }
  crystal.nAtoms = crystal.kind.length;
  [crystal.nLayers, crystal.nHeads, crystal.nEdges] = header.arrays.attention.shape;
  // Query atoms: all atoms, or the first ones in a region of a large crystal.
  crystal.nQueries = header.arrays.decayLength.shape[2];
  crystal.edgeLength = edgeLengths(crystal);
  return crystal;
}

/** Convert float16 (IEEE 754) to float32; few browsers can do it themselves. */
function fromHalf(halves) {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
    table[bits] = bits & 0x8000 ? -size : size;
  }
  return Float32Array.from(halves, (bits) => table[bits]);
}

/** Position of an atom, Å, moved by the lattice translation `image` (three integers at `offset` of an array). */
export function positionOf(crystal, atom, image = null, offset = 0) {
  const { positions, lattice } = crystal;
  const point = [positions[3 * atom], positions[3 * atom + 1], positions[3 * atom + 2]];
  if (image) {
    for (let row = 0; row < 3; row++) {
      for (let k = 0; k < 3; k++) point[k] += image[offset + row] * lattice[3 * row + k];
    }
  }
  return point;
}

function edgeLengths(crystal) {
  const lengths = new Float32Array(crystal.nEdges);
  for (let atom = 0; atom < crystal.nQueries; atom++) {
    const start = positionOf(crystal, atom);
    for (let edge = crystal.edgeStart[atom]; edge < crystal.edgeStart[atom + 1]; edge++) {
      const end = positionOf(crystal, crystal.edgeKey[edge], crystal.edgeImage, 3 * edge);
      lengths[edge] = Math.hypot(end[0] - start[0], end[1] - start[1], end[2] - start[2]);
    }
  }
  return lengths;
}

/** What the lines show: the name of the quantity, its unit, and whether it has a sign. */
export function quantityOf(crystal, mode) {
  if (mode === "relevance") return { name: "relevance", unit: crystal.explanation.unit, isSigned: true };
  if (mode === "removal") return { name: "effect of removal", unit: crystal.explanation.unit, isSigned: true };
  return { name: "attention", unit: "", isSigned: false };
}

/** The quantity of every edge. Relevance of all heads (`head` null) is their sum; the effect of removal has no head. */
export function edgeValues(crystal, mode, layer, head) {
  if (mode === "removal") return crystal.removal;
  if (mode !== "relevance") return edgeWeights(crystal, layer, head);
  const { relevance, nHeads, nEdges, explanation } = crystal;
  const values = new Float32Array(nEdges);
  for (let h = head ?? 0; h < (head === null ? nHeads : head + 1); h++) {
    const first = (layer * nHeads + h) * nEdges;
    for (let edge = 0; edge < nEdges; edge++) values[edge] += relevance[first + edge] * explanation.relevanceScale;
  }
  return values;
}

/**
 * The largest size of a quantity over all layers and heads, for a fixed scale: of the lines of an atom, or (`atom` null) of
 * the sums over images that the heatmap shows.
 */
export function largestOf(crystal, mode, atom) {
  const { nLayers, nHeads, edgeStart, edgeLength } = crystal;
  const isSigned = mode !== "attention";
  let largest = 0;
  for (let layer = 0; layer < nLayers; layer++) {
    for (let head = 0; head < nHeads; head++) {
      const values = edgeValues(crystal, mode, layer, head);
      if (atom === null) {
        for (const value of attentionMatrix(crystal, values, isSigned)) largest = Math.max(largest, Math.abs(value));
        continue;
      }
      for (let edge = edgeStart[atom]; edge < edgeStart[atom + 1]; edge++) {
        if (edgeLength[edge] > 0 && !Number.isNaN(values[edge])) largest = Math.max(largest, Math.abs(values[edge]));
      }
    }
  }
  return largest || 1;
}

/** Where a value stands on a scale from 0 to `highest`: its share, or on a logarithmic scale over four decades. */
export function shareOf(value, highest, scale) {
  const share = Math.abs(value) / highest;
  return Math.min(1, scale === "log" ? Math.max(0, 1 + Math.log10(share || 1e-30) / DECADES) : share);
}
export const DECADES = 4;

/** Values of the atoms that can colour them: `{name, unit, values, low, high, isSigned}`. */
export function siteValues(crystal) {
  crystal.siteValues ??= crystal.values.map(({ name, unit, array, isSigned }) => {
    const values = crystal[array];
    const known = values.filter((value) => !Number.isNaN(value));
    const [low, high] = [Math.min(...known), Math.max(...known)];
    return { name, unit, values, low, high, isSigned };
  });
  return crystal.siteValues;
}

/** Attention of every edge in one head, or its mean over heads (`head` null). */
export function edgeWeights(crystal, layer, head) {
  const { attention, nHeads, nEdges } = crystal;
  const of = (h) => attention.subarray((layer * nHeads + h) * nEdges, (layer * nHeads + h + 1) * nEdges);
  if (head !== null) return of(head);
  const mean = new Float32Array(nEdges);
  for (let h = 0; h < nHeads; h++) {
    const weights = of(h);
    for (let edge = 0; edge < nEdges; edge++) mean[edge] += weights[edge] / nHeads;
  }
  return mean;
}

/**
 * Attention, or another quantity, from each query atom (row) to each key atom (column), summed over images, row by row;
 * perhaps without what an atom has of itself.
 */
export function attentionMatrix(crystal, weights, onlyNeighbors = false) {
  const { nQueries, edgeStart, edgeKey, edgeLength } = crystal;
  const matrix = new Float32Array(nQueries * nQueries);
  for (let atom = 0; atom < nQueries; atom++) {
    for (let edge = edgeStart[atom]; edge < edgeStart[atom + 1]; edge++) {
      if (onlyNeighbors && edgeLength[edge] === 0) continue;
      if (edgeKey[edge] < nQueries) matrix[atom * nQueries + edgeKey[edge]] += weights[edge] || 0; // 0: not computed
    }
  }
  return matrix;
}

/**
 * The `nLines` strongest edges of an atom by size, and all that tie with the last; `itself`: attention to the atom itself.
 * Edges whose value is not known (NaN), or next to nothing, are left out.
 */
export function strongestEdges(crystal, weights, atom, nLines) {
  const { edgeStart, edgeKey, edgeLength, tie } = crystal;
  const others = [];
  let itself = 0;
  for (let edge = edgeStart[atom]; edge < edgeStart[atom + 1]; edge++) {
    if (edgeKey[edge] === atom && edgeLength[edge] === 0) itself += weights[edge];
    else if (Math.abs(weights[edge]) >= crystal.faint) others.push(edge); // not NaN
  }
  const size = (edge) => Math.abs(weights[edge]);
  others.sort((a, b) => size(b) - size(a));
  const weakest = nLines > others.length ? 0 : nLines ? size(others[nLines - 1]) : Infinity;
  return { edges: others.filter((edge) => size(edge) >= weakest * (1 - tie)), itself };
}

/** Attention of an atom in shells of neighbours: a gap of more than `shellWidth` (Å) begins a new shell. */
export function attentionByDistance(crystal, weights, atom, shellWidth = 0.05) {
  const { edgeStart, edgeLength } = crystal;
  const edges = Array.from({ length: edgeStart[atom + 1] - edgeStart[atom] }, (_, k) => edgeStart[atom] + k);
  edges.sort((a, b) => edgeLength[a] - edgeLength[b]);
  const shells = [];
  let within = 0;
  edges.forEach((edge, k) => {
    if (!k || edgeLength[edge] - edgeLength[edges[k - 1]] > shellWidth) {
      shells.push({ total: 0, attention: 0, nNeighbors: 0 });
    }
    const shell = shells[shells.length - 1];
    within += weights[edge];
    shell.total += edgeLength[edge];
    shell.attention += weights[edge];
    shell.nNeighbors += 1;
    shell.distance = shell.total / shell.nNeighbors;
    shell.within = within;
  });
  return shells;
}

/** The three unit axes of an atom's frame. */
export function frameOf(crystal, layer, head, atom) {
  const offset = 6 * ((layer * crystal.nHeads + head) * crystal.nQueries + atom);
  const [first, second] = [0, 3].map((row) =>
    [0, 1, 2].map((k) => crystal.axes[offset + row + k] / crystal.axisScale),
  );
  return [first, second, cross(first, second)];
}

/** The pale axes of an atom: those of the other frames of its weighted set. */
export function otherAxes(crystal, layer, head, atom) {
  const { otherStart, otherAxis, otherDirection, otherOpacity, axisScale, opacityScale } = crystal;
  const set = (layer * crystal.nHeads + head) * crystal.nQueries + atom;
  return Array.from({ length: otherStart[set + 1] - otherStart[set] }, (_, k) => otherStart[set] + k).map((n) => ({
    axis: otherAxis[n],
    direction: Array.from(otherDirection.subarray(3 * n, 3 * n + 3), (x) => x / axisScale),
    opacity: otherOpacity[n] / opacityScale,
  }));
}

/** What a caption says of the axes of an atom. */
export function frameText(crystal, layer, head, atom) {
  return crystal.frameTexts[crystal.frameText[(layer * crystal.nHeads + head) * crystal.nQueries + atom]];
}

/** Whether a tie rule chose the axes of a frame. */
export function isTied(crystal, layer, head, atom) {
  return crystal.tied[(layer * crystal.nHeads + head) * crystal.nQueries + atom] === 1;
}

/** Whether a frame changes nothing, because almost no attention leaves the atom. */
export function isDead(crystal, layer, head, atom) {
  return crystal.dead[(layer * crystal.nHeads + head) * crystal.nQueries + atom] === 1;
}

/** `+0.12`, `−0.0034`: a number with its sign and three digits. */
export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toPrecision(3)}`;

export const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
