// A picture as SVG, for papers: the bodies of a scene, projected and painted from back to front.

const PIECE = 0.6; // Å. Longer rods are cut into pieces, each with its own depth.

/** Has the methods of `Meshes`, and keeps the bodies instead of making triangles of them. */
export class Bodies {
  #bodies = [];

  rod(color, start, end, radius) {
    this.#bodies.push({ color, start, end, radius });
  }

  arrow(color, start, end, radius, headLength, headRadius) {
    const vector = end.map((x, k) => x - start[k]);
    const length = Math.hypot(...vector);
    const neck = end.map((x, k) => x - vector[k] * Math.min(1, headLength / length));
    this.rod(color, start, neck, radius);
    this.#bodies.push({ color, start: neck, end, radius: headRadius, isHead: true });
  }

  triangle(color, corners) {
    this.#bodies.push({ color, corners });
  }

  ball(color, center, radius) {
    this.#bodies.push({ color, center, radius });
  }

  /** The SVG document; `project` gives pixels and depth, `texts` and `lines` are those of the overlay. */
  svg(project, scale, width, height, paper, texts, lines) {
    const gradients = new Map();
    const pieces = this.#bodies.flatMap((body) => piecesOf(body, project, scale, gradients));
    pieces.sort((a, b) => a.depth - b.depth);
    const shades = [...gradients].map(
      ([color, id]) =>
        `<radialGradient id="${id}" cx="0.36" cy="0.34" r="0.75"><stop offset="0" stop-color="#ffffff"/>` +
        `<stop offset="0.35" stop-color="${color}"/><stop offset="1" stop-color="${color}" stop-opacity="0.85"/></radialGradient>`,
    );
    const dashed = lines.map(
      ({ from, to, color }) =>
        `<line x1="${round(from[0])}" y1="${round(from[1])}" x2="${round(to[0])}" y2="${round(to[1])}" stroke="${color}" stroke-width="2" stroke-dasharray="5 4"/>`,
    );
    const words = texts.map(
      ({ text, color, size, x, y }) =>
        `<text x="${round(x)}" y="${round(y)}" fill="${color}" stroke="${paper}" stroke-width="4" paint-order="stroke" ` +
        `font-family="sans-serif" font-weight="600" font-size="${size}" text-anchor="middle" dominant-baseline="central">${escaped(text)}</text>`,
    );
    return [
      `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
      `<defs>${shades.join("")}</defs><rect width="100%" height="100%" fill="${paper}"/>`,
      ...pieces.map(({ markup }) => markup),
      ...dashed,
      ...words,
      "</svg>",
    ].join("\n");
  }
}

function piecesOf({ color, start, end, radius, corners, center, isHead }, project, scale, gradients) {
  if (corners) {
    const flat = corners.map(project);
    const markup = `<polygon points="${flat.map(([x, y]) => `${round(x)},${round(y)}`).join(" ")}" fill="${color}" fill-opacity="0.25"/>`;
    return [{ depth: Math.min(...flat.map((point) => point[2])), markup }];
  }
  if (center) {
    const [x, y, depth] = project(center);
    if (!gradients.has(color)) gradients.set(color, `shade${gradients.size}`);
    const markup =
      `<circle cx="${round(x)}" cy="${round(y)}" r="${round(radius * scale)}" fill="#ffffff"/>` +
      `<circle cx="${round(x)}" cy="${round(y)}" r="${round(radius * scale)}" fill="url(#${gradients.get(color)})" stroke="#333333" stroke-width="0.8"/>`;
    return [{ depth: depth + radius, markup }];
  }
  if (isHead) {
    const [[x, y, depth], [u, v, tip]] = [project(start), project(end)];
    const length = Math.hypot(u - x, v - y) || 1;
    const side = [(-(v - y) / length) * radius * scale, ((u - x) / length) * radius * scale];
    const points = [[u, v], [x + side[0], y + side[1]], [x - side[0], y - side[1]]];
    const markup = `<polygon points="${points.map((point) => point.map(round).join(",")).join(" ")}" fill="${color}"/>`;
    return [{ depth: (depth + tip) / 2 + radius, markup }];
  }
  const n = Math.max(1, Math.round(Math.hypot(...end.map((x, k) => x - start[k])) / PIECE));
  return Array.from({ length: n }, (_, piece) => {
    const cut = (share) => project(start.map((x, k) => x + (end[k] - x) * share));
    const [[x, y, near], [u, v, far]] = [cut(piece / n), cut(Math.min(1, (piece + 1.05) / n))];
    const markup =
      `<line x1="${round(x)}" y1="${round(y)}" x2="${round(u)}" y2="${round(v)}" stroke="${color}" ` +
      `stroke-width="${round(Math.max(1, 2 * radius * scale))}"/>`;
    return { depth: (near + far) / 2, markup };
  });
}

const round = (x) => Math.round(10 * x) / 10;
const escaped = (text) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
