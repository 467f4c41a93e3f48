// What the prediction is made of: bars by element and shell, and the periodic table of substitutions.

import { signed } from "./crystal.js";
import { make } from "./controls.js";
import { mix } from "./structure.js";

/** The panel of an explanation, or null without one. */
export function whyPanel(crystal) {
  const { explanation, substitutions } = crystal;
  if (!explanation) return null;
  const { target, unit, prediction, base, byElement, byShell, nShells, aboutScale, aboutOrder } = explanation;
  const inUnit = unit ? ` (${unit})` : "";
  const sum = `${target} ${prediction.toPrecision(4)} ${unit} = base ${base.toPrecision(4)} + contributions ${signed(prediction - base)}`;
  const shells = nShells > byShell.length ? `, the ${byShell.length} largest of ${nShells}` : "";
  return make(
    "div",
    { className: "cf-why" },
    make("p", { className: "cf-sum" }, sum.replace(/-/g, "−")),
    ...(aboutScale ? [make("p", { className: "cf-about" }, aboutScale)] : []),
    ...bars(`Contributions by element${inUnit}`, byElement),
    ...bars(`Relevance by shell${inUnit}${shells}`, byShell),
    make("p", { className: "cf-about" }, aboutOrder),
    ...(substitutions ? periodicTable(crystal) : []),
  );
}

/** Horizontal bars on a scale that is centred at 0; the sign is told by side and by the number. */
function bars(title, rows) {
  const largest = Math.max(...rows.map(({ value }) => Math.abs(value))) || 1;
  const list = rows.map(({ label, value }) => {
    const bar = make("span", { className: `cf-why-bar ${value < 0 ? "cf-lowers" : "cf-raises"}` });
    const width = (50 * Math.abs(value)) / largest;
    bar.style.width = `${width}%`;
    bar.style.left = `${value < 0 ? 50 - width : 50}%`;
    return make(
      "div",
      { className: "cf-why-row" },
      make("span", { className: "cf-why-label" }, label),
      make("span", { className: "cf-why-track" }, bar),
      make("span", { className: "cf-why-number" }, signed(value)),
    );
  });
  return [make("div", { className: "cf-subtitle" }, title), make("div", { className: "cf-why-bars" }, ...list)];
}

/** Cells that can be clicked: value, interval and flag of each element on the site. */
function periodicTable({ substitutions, explanation, palette }) {
  const { name, unit } = explanation.predicted;
  const original = substitutions.find(({ isOriginal }) => isOriginal) ?? substitutions[0];
  const known = substitutions.filter(({ value }) => value !== null);
  const most = Math.max(...known.map(({ value }) => Math.abs(value - original.value))) || 1;
  const said = make("p", { className: "cf-said", attributes: { "aria-live": "polite" } });
  const say = ({ element, value, low, high, flag }) => {
    const minus = (number) => number.toPrecision(3).replace("-", "−");
    const range = low === null || high === null ? "" : ` (${minus(low)} to ${minus(high)})`;
    said.textContent = `${element}: ${value === null ? "no prediction" : `${minus(value)}${unit && ` ${unit}`}${range}`}${flag ? `. Unlike the training data: ${flag}` : ""}`;
  };
  const cells = substitutions.map((entry) => {
    const { element, column, row, value, flag, isOriginal } = entry;
    const share = value === null ? 0 : (value - original.value) / most;
    const cell = make("button", { type: "button", className: "cf-cell" }, element);
    const color = mix("#ffffff", share < 0 ? palette.lowers : palette.raises, 0.85 * Math.abs(share));
    Object.assign(cell.style, { gridColumn: column, gridRow: row, background: color, color: Math.abs(share) > 0.6 ? "#ffffff" : "#222222" });
    if (isOriginal) cell.classList.add("cf-original");
    if (flag) cell.classList.add("cf-flagged");
    cell.append(make("sub", {}, share < -0.005 ? "−" : share > 0.005 ? "+" : ""));
    cell.setAttribute("aria-label", `${element}, ${value === null ? "no prediction" : value.toPrecision(3)} ${unit}`.trim());
    cell.addEventListener("click", () => say(entry));
    return cell;
  });
  say(original);
  return [
    make("div", { className: "cf-subtitle" }, `Other elements on the site: ${name} (+ higher, − lower; dotted: unlike the training data)`),
    make("div", { className: "cf-periodic", attributes: { role: "group", "aria-label": "Periodic table" } }, ...cells),
    said,
  ];
}
