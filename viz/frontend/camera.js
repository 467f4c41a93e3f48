// The camera of a 3Dmol viewer as plain numbers: rotation, centre and scale, and what they make of points.

/** `{rows, center, scale}` of a viewer: rows right, up and towards the viewer; scale in pixels per Å. */
export function cameraOf(viewer, width) {
  const [x, y, z, distance, ...turn] = viewer.getView();
  const reach = (viewer.CAMERA_Z - distance) * Math.tan((Math.PI / 180) * viewer.fov);
  return { rows: rowsOf(turn), center: [-x, -y, -z], scale: width / (2 * reach) };
}

/** Pixels to the right and down from the corner of the picture, and Å towards the viewer. */
export function projector({ rows, center, scale }, width, height) {
  return (point) => {
    const from = point.map((x, k) => x - center[k]);
    const [right, up, near] = rows.map((row) => row[0] * from[0] + row[1] * from[1] + row[2] * from[2]);
    return [width / 2 + scale * right, height / 2 - scale * up, near];
  };
}

/** Rows of a camera that looks from `toward`, with `up` as far upwards as possible. */
export function looking(toward, up) {
  const near = unitOf(toward);
  const along = dot(up, near);
  const above = unitOf(up.map((x, k) => x - along * near[k]));
  return [outer(above, near), above, near];
}

/** Rows of a camera at (azimuth, elevation) in degrees, z up; the same as `viz.drawings.camera`. */
export function cameraAt({ azimuth, elevation }) {
  const [a, e] = [(azimuth * Math.PI) / 180, (elevation * Math.PI) / 180];
  return looking([Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)], [0, 0, 1]);
}

/** The unit quaternion (x, y, z, w) of a rotation with these rows. */
export function quaternionOf([[a, b, c], [d, e, f], [g, h, i]]) {
  const w = Math.sqrt(Math.max(0, 1 + a + e + i)) / 2;
  const x = Math.sqrt(Math.max(0, 1 + a - e - i)) / 2;
  const y = Math.sqrt(Math.max(0, 1 - a + e - i)) / 2;
  const z = Math.sqrt(Math.max(0, 1 - a - e + i)) / 2;
  // The largest component has the sign +, and gives those of the others.
  const largest = Math.max(w, x, y, z);
  if (largest === w) return [Math.sign(h - f || 1) * x, Math.sign(c - g || 1) * y, Math.sign(d - b || 1) * z, w];
  if (largest === x) return [x, Math.sign(b + d || 1) * y, Math.sign(c + g || 1) * z, Math.sign(h - f || 1) * w];
  if (largest === y) return [Math.sign(b + d || 1) * x, y, Math.sign(f + h || 1) * z, Math.sign(c - g || 1) * w];
  return [Math.sign(c + g || 1) * x, Math.sign(f + h || 1) * y, z, Math.sign(d - b || 1) * w];
}

function rowsOf([x, y, z, w]) {
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
  ];
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const outer = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
function unitOf(a) {
  const length = Math.hypot(...a);
  return a.map((x) => x / length);
}
