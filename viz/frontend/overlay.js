// Words and measurements over a picture, as SVG: sharp at any size, beside the things that they name.

const LETTER = 0.62; // width of a letter, in font sizes
const PARTS = 40; // along a line of which only a part is in the picture
const RIM = 12; // pixels
export const WORDS = "600 14px system-ui, sans-serif";

/**
 * Where texts stand: `{text, color, x, y, size}` in pixels. Each text has `at` (Å); `clear` is the radius (Å) around it that
 * stays free. It stands in the direction `away` (Å), or near it where another text is; without `away`, where there is room.
 * A text with `from` (Å) names the line from there to `at`, and moves along it into the picture. The first have first choice;
 * one with `isOptional` is left out where there is no room.
 */
export function placed(texts, project, scale, width, height) {
  const taken = [];
  return texts.flatMap(({ text, color, at, from, away, clear = 0, size = 14, isOptional = false }) => {
    const half = [(text.length * LETTER * size) / 2 + 2, size / 2 + 2];
    const [x, y] = from ? lastInside(from, at, project, width, height) : project(at);
    let best = null;
    for (const [dx, dy] of away ? beside(direction(project, at, away)) : AROUND) {
      // From the centre far enough that the box of the text does not touch the circle to be left free.
      const reach = clear * scale + 3 + Math.abs(dx) * half[0] + Math.abs(dy) * half[1];
      const center = [
        Math.min(Math.max(x + dx * reach, half[0]), width - half[0]),
        Math.min(Math.max(y + dy * reach, half[1]), height - half[1]),
      ];
      const box = [center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]];
      const overlap = taken.reduce((sum, other) => sum + shared(box, other), 0);
      if (!best || overlap < best.overlap - 1) best = { overlap, center, box };
    }
    if (isOptional && best.overlap > 0) return [];
    taken.push(best.box);
    return [{ text, color, size, x: best.center[0], y: best.center[1] }];
  });
}

/** Fill an SVG element with texts and dashed lines `{from, to, color}` (pixels). */
export function fill(svg, texts, lines, paper) {
  svg.replaceChildren(
    ...lines.map(({ from, to, color }) =>
      node("line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1], stroke: color, "stroke-width": 2, "stroke-dasharray": "5 4" }),
    ),
    ...texts.map((text) => {
      const element = node("text", {
        x: text.x,
        y: text.y,
        fill: text.color,
        stroke: paper,
        "stroke-width": 4,
        "stroke-linejoin": "round",
        "paint-order": "stroke",
        "text-anchor": "middle",
        "dominant-baseline": "central",
        style: `font: ${WORDS}; font-size: ${text.size}px`,
      });
      element.textContent = text.text;
      return element;
    }),
  );
}

/** Draw the same on a canvas, `factor` times as large. */
export function paint(pen, texts, lines, paper, factor) {
  pen.scale(factor, factor);
  for (const { from, to, color } of lines) {
    Object.assign(pen, { strokeStyle: color, lineWidth: 2 });
    pen.setLineDash([5, 4]);
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
  }
  pen.setLineDash([]);
  for (const { text, color, size, x, y } of texts) {
    Object.assign(pen, { font: WORDS.replace("14px", `${size}px`), textAlign: "center", textBaseline: "middle" });
    Object.assign(pen, { strokeStyle: paper, lineWidth: 4, lineJoin: "round", fillStyle: color });
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
  }
}

export function node(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const AROUND = [[0.7, -0.7], [-0.7, -0.7], [0.7, 0.7], [-0.7, 0.7], [1, 0], [-1, 0], [0, -1], [0, 1]];

/** The direction on the screen; upwards for one that points at the viewer. */
function direction(project, at, away) {
  const [x, y] = project(at);
  const [u, v] = project(at.map((part, k) => part + away[k]));
  const length = Math.hypot(u - x, v - y);
  return length > 2 ? [(u - x) / length, (v - y) / length] : [0, -1];
}

/** A direction, and those beside it. */
function beside([dx, dy]) {
  return [0, 0.6, -0.6, 1.2, -1.2].map((turn) => {
    const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
    return [cos * dx - sin * dy, sin * dx + cos * dy];
  });
}

/** The end of the part of a line that is in the picture, in pixels. */
function lastInside(start, end, project, width, height) {
  let last = project(start);
  for (let step = 1; step <= PARTS; step++) {
    const point = project(start.map((x, k) => x + (step / PARTS) * (end[k] - x)));
    if (point[0] > RIM && point[0] < width - RIM && point[1] > RIM && point[1] < height - RIM) last = point;
  }
  return last;
}

function shared(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(0, width) * Math.max(0, height);
}
