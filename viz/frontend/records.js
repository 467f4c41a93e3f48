// The table of a map in the browser: columns over the bytes from viz/dataset_encoding.py, filters, order and CSV.

const ARRAY_TYPES = {
  uint8: Uint8Array,
  int32: Int32Array,
  uint32: Uint32Array,
  float32: Float32Array,
  float64: Float64Array,
};

/** The table: header, `column(name)` with `values`, and the arrays by their names. */
export function decodeTable(header, bytes) {
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const array = (name) => {
    const { dtype, shape, offset } = header.arrays[name];
    return new ARRAY_TYPES[dtype](buffer, offset, shape.reduce((product, size) => product * size, 1));
  };
  const columns = header.columns.map((column) => {
    const values = array(column.array);
    if (column.kind === "number") return { ...column, values };
    const texts = JSON.parse(new TextDecoder().decode(array(column.texts)));
    return { ...column, values, texts };
  });
  const byName = new Map(columns.map((column) => [column.name, column]));
  return {
    ...header,
    columns,
    column: (name) => byName.get(name) ?? null,
    numbers: columns.filter(({ kind }) => kind === "number"),
    flags: header.flags.map((flag) => ({ ...flag, raised: array(flag.array) })),
    elements: array("elements"),
    nWords: header.arrays.elements.shape[1],
    nearest: header.neighbors ? array("nearest") : null,
    distance: header.neighbors ? array("distance") : null,
    neighborPoint: header.neighbors ? array("neighborPoint") : null,
  };
}

/** The value of a column at a point as a text for reading. */
export function valueText(column, point) {
  const value = column.values[point];
  if (column.kind === "text") return column.texts[value];
  if (Number.isNaN(value)) return "";
  return numberText(value, column.isWhole);
}

export function numberText(value, isWhole = false) {
  if (isWhole) return String(value).replace("-", "−");
  const size = Math.abs(value);
  const text = size && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
}

// --- filters ----------------------------------------------------------------------------------------------------------

/** 1 for each point that passes all filters, 0 for others. `error` is the column of errors of the view, if there is one. */
export function passing(table, filters, error) {
  const mask = new Uint8Array(table.nPoints).fill(1);
  const drop = (test) => {
    for (let point = 0; point < mask.length; point++) if (mask[point] && !test(point)) mask[point] = 0;
  };
  const within = (column, [low, high]) => {
    if (!column || (low === null && high === null)) return;
    const { values } = column;
    const [least, most] = [low ?? -Infinity, high ?? Infinity];
    drop((point) => values[point] >= least && values[point] <= most);
  };
  if (filters.search.trim()) dropTexts(table, filters.search.trim().toLowerCase(), drop);
  const wanted = elementBits(table, filters.elements);
  if (wanted) drop((point) => wanted.every((bits, word) => (table.elements[point * table.nWords + word] & bits) >>> 0 === bits));
  const unwanted = elementBits(table, filters.without);
  if (unwanted) drop((point) => unwanted.every((bits, word) => !(table.elements[point * table.nWords + word] & bits)));
  if (filters.group.trim() && table.column("space_group")) drop(groupTest(table.column("space_group"), filters.group.trim()));
  if (filters.flag) {
    const [sign, name] = [filters.flag[0] !== "!", filters.flag.replace(/^!/, "")];
    const flag = table.flags.find((other) => other.name === name);
    if (flag) drop((point) => Boolean(flag.raised[point]) === sign);
  }
  const part = table.column("part");
  if (filters.part && part?.texts) {
    const code = part.texts.indexOf(filters.part);
    drop((point) => part.values[point] === code);
  }
  within(table.column("n_atoms"), filters.n_atoms);
  within(error, filters.error);
  within(table.column(filters.range.column), filters.range.limits);
  return mask;
}

/** Keep points whose id or formula contains the text. Each different text is looked at once. */
function dropTexts(table, text, drop) {
  const columns = ["id", "formula"].map(table.column).filter((column) => column?.texts);
  const found = columns.map(({ texts }) => Uint8Array.from(texts, (other) => other.toLowerCase().includes(text)));
  drop((point) => columns.some(({ values }, n) => found[n][values[point]]));
}

/** The elements named in a text as bits, or null for none. Text that is no element is left out. */
export function elementBits({ symbols, nWords }, text) {
  const bits = new Array(nWords).fill(0);
  let any = false;
  for (const word of text.match(/[A-Z][a-z]?/g) ?? []) {
    const z = symbols.indexOf(word) + 1;
    if (!z) continue;
    bits[z >> 5] = (bits[z >> 5] | (1 << (z & 31))) >>> 0;
    any = true;
  }
  return any ? bits : null;
}

const SYSTEMS = { triclinic: [1, 2], monoclinic: [3, 15], orthorhombic: [16, 74], tetragonal: [75, 142], trigonal: [143, 167], hexagonal: [168, 194], cubic: [195, 230] };

/** Whether a space group is meant by a text: a number (225), a range (195-230), a symbol, or a crystal system. */
function groupTest({ values, texts }, text) {
  const system = Object.keys(SYSTEMS).find((name) => name.startsWith(text.toLowerCase()) && text.length > 2);
  const range = /^(\d+)\s*[-–]\s*(\d+)$/.exec(text);
  const [low, high] = system ? SYSTEMS[system] : range ? [Number(range[1]), Number(range[2])] : [Number(text), Number(text)];
  if (!texts) return (point) => values[point] >= low && values[point] <= high;
  const found = Uint8Array.from(texts, (other) => {
    const number = Number(/\d+(?=\)?$)/.exec(other)?.[0]);
    return other === text || other.startsWith(`${text} `) || (number >= low && number <= high);
  });
  return (point) => found[values[point]] === 1;
}

// --- order, numbers, files --------------------------------------------------------------------------------------------

/** All points in the order of a column; points without a value come last. */
export function orderBy(column, isDescending) {
  const { values, kind } = column;
  const sign = isDescending ? -1 : 1;
  const order = Uint32Array.from(values, (_, point) => point);
  // Texts have the numbers of their alphabetical order.
  if (kind === "text") return order.sort((a, b) => sign * (values[a] - values[b]) || a - b);
  const keys = Float64Array.from(values, (value) => (Number.isNaN(value) ? Infinity : sign * value));
  return order.sort((a, b) => (keys[a] === keys[b] ? a - b : keys[a] - keys[b]));
}

/** Number of points with both values, mean absolute error, root of the mean square, R² and correlation. */
export function parityScores(xs, ys, mask) {
  let [n, sum, squares, total, totalSquares] = [0, 0, 0, 0, 0];
  for (let point = 0; point < xs.length; point++) {
    if (!mask[point] || Number.isNaN(xs[point]) || Number.isNaN(ys[point])) continue;
    const error = ys[point] - xs[point];
    n += 1;
    sum += Math.abs(error);
    squares += error * error;
    total += xs[point];
    totalSquares += xs[point] * xs[point];
  }
  const spread = totalSquares - (total * total) / n;
  return { n, mae: sum / n, rmse: Math.sqrt(squares / n), r2: spread > 0 ? 1 - squares / spread : NaN };
}

/** Points as CSV with all columns. */
export function tableCsv(table, points) {
  const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  const value = (column, point) => {
    const raw = column.values[point];
    if (column.kind === "text") return cell(column.texts[raw]);
    return Number.isNaN(raw) ? "" : String(column.isWhole ? raw : Number(raw.toPrecision(7)));
  };
  const lines = [table.columns.map(({ name, unit }) => cell(unit ? `${name} (${unit})` : name)).join(",")];
  for (const point of points) lines.push(table.columns.map((column) => value(column, point)).join(","));
  return lines.join("\n") + "\n";
}
