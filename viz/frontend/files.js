// Files that an explorer saves: tables and structures as text.

/** The drawn attention lines as rows: rank, atom, image, distance (Å), attention. */
export function lineRows(crystal, { edges }, weights) {
  return edges.map((edge, n) => ({
    rank: n + 1,
    atom: crystal.labels[crystal.edgeKey[edge]],
    image: Array.from(crystal.edgeImage.subarray(3 * edge, 3 * edge + 3)).join(" "),
    distance: crystal.edgeLength[edge].toFixed(4),
    attention: weights[edge].toPrecision(4),
  }));
}

/** Rows as CSV, with a comment line on what they are; `quantity` is what the lines show. */
export function csv(rows, about, quantity = { name: "attention", unit: "" }) {
  const names = ["rank", "atom", "image", "distance", "attention"];
  const heads = ["rank", "atom", "image", "distance (Å)", quantity.unit ? `${quantity.name} (${quantity.unit})` : quantity.name];
  const cell = (text) => (/[",\n]/.test(text) ? `"${String(text).replace(/"/g, '""')}"` : text);
  return [`# ${about}`, heads.join(","), ...rows.map((row) => names.map((name) => cell(String(row[name]))).join(","))].join("\n") + "\n";
}

/** The atoms of the given cell as CIF, without symmetry. */
export function cif(crystal) {
  const { lattice, positions, kind, elements, labels, nQueries } = crystal;
  const rows = [0, 1, 2].map((k) => Array.from(lattice.subarray(3 * k, 3 * k + 3)));
  const lengths = rows.map((row) => Math.hypot(...row));
  const angle = (i, j) => {
    const product = rows[i].reduce((sum, x, k) => sum + x * rows[j][k], 0) / lengths[i] / lengths[j];
    return ((180 / Math.PI) * Math.acos(product)).toFixed(4);
  };
  const normal = (i, j) => [1, 2, 0].map((k, n) => rows[i][k] * rows[j][[2, 0, 1][n]] - rows[i][[2, 0, 1][n]] * rows[j][k]);
  const normals = [normal(1, 2), normal(2, 0), normal(0, 1)];
  const volume = rows[0].reduce((sum, x, k) => sum + x * normals[0][k], 0);
  const sites = Array.from({ length: nQueries }, (_, atom) => {
    const at = positions.subarray(3 * atom, 3 * atom + 3);
    const place = normals.map((n) => ((n[0] * at[0] + n[1] * at[1] + n[2] * at[2]) / volume).toFixed(6));
    return `${labels[atom].replace(/[^\w]/g, "_")} ${elements[kind[atom]].symbol} ${place.join(" ")}`;
  });
  return [
    `data_${crystal.formula}`,
    ...["a", "b", "c"].map((name, k) => `_cell_length_${name} ${lengths[k].toFixed(6)}`),
    `_cell_angle_alpha ${angle(1, 2)}`,
    `_cell_angle_beta ${angle(0, 2)}`,
    `_cell_angle_gamma ${angle(0, 1)}`,
    "_symmetry_space_group_name_H-M 'P 1'",
    "loop_",
    "_symmetry_equiv_pos_as_xyz",
    "'x, y, z'",
    "loop_",
    ...["label", "type_symbol", "fract_x", "fract_y", "fract_z"].map((name) => `_atom_site_${name}`),
    ...sites,
    "",
  ].join("\n");
}

/** Let the browser save a text or a data URL as a file. */
export function saveAs(content, name, type = "text/plain") {
  const url = content.startsWith("data:") ? content : URL.createObjectURL(new Blob([content], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  if (url !== content) setTimeout(() => URL.revokeObjectURL(url), 10000);
}
