// The controls of the filters.

import { button, choice, make } from "./controls.js";

/** The controls, as `root`, and `show(filters)`. `change(name, value)` is called when one changes. */
export function filterBar(table, errorLabel, change, clear) {
  const text = (name, label, about, size) => {
    const input = make("input", { type: "text", size, placeholder: about, attributes: { "aria-label": `${label}: ${about}`, spellcheck: "false" } });
    input.addEventListener("input", () => change(name, input.value));
    return { input, group: make("label", {}, `${label} `, input), show: (value) => keep(input, value) };
  };
  const limits = (name, label) => {
    const inputs = ["from", "to"].map((end) => make("input", { type: "number", step: "any", placeholder: end, attributes: { "aria-label": `${label} ${end}` } }));
    const value = () => inputs.map((input) => (input.value === "" ? null : Number(input.value)));
    for (const input of inputs) input.addEventListener("input", () => change(name, value()));
    const words = make("span", {}, label);
    const group = make("span", { className: "cf-limits", attributes: { role: "group", "aria-label": label } }, words, ...inputs);
    return { group, value, words, inputs, show: (now) => now.forEach((limit, n) => keep(inputs[n], limit ?? "")) };
  };
  const parts = table.column("part")?.texts ?? [];
  const ends = table.flags.flatMap(({ name, count }) => [[`${name} (${count.toLocaleString("en")})`, name], [`not: ${name}`, `!${name}`]]);
  const controls = {
    search: text("search", "Id or formula", "part of it", 12),
    elements: text("elements", "With", "Ti O", 8),
    without: text("without", "Without", "Pb", 6),
    group: text("group", "Space group", "225 or cubic", 10),
    n_atoms: limits("n_atoms", "Atoms"),
    error: limits("error", "Error"),
  };
  const flag = choice("Flag", "Only points with this flag", [["all", ""], ...ends], (value) => change("flag", value));
  const part = choice("Part", "Only points of this part", [["all", ""], ...parts.filter(Boolean).map((name) => [name, name])], (value) => change("part", value));
  const range = limits("range", "");
  const column = choice("Column", "Column whose values are limited", [["any", ""], ...table.numbers.map(({ name, words }) => [words, name])], (value) => change("range", { column: value, limits: range.value() }));
  for (const [n, input] of range.inputs.entries()) input.setAttribute("aria-label", `Column ${["from", "to"][n]}`);
  range.group.setAttribute("aria-label", "Limits of the column");
  const reset = button("Clear filters", "Show all points", clear);
  const hidden = { group: !table.column("space_group"), n_atoms: !table.column("n_atoms"), error: !errorLabel };
  for (const [name, isHidden] of Object.entries(hidden)) controls[name].group.hidden = isHidden;
  flag.group.hidden = !table.flags.length;
  part.group.hidden = !parts.length;
  const root = make(
    "div",
    { className: "cf-controls cf-filters", attributes: { role: "group", "aria-label": "Filters" } },
    ...Object.values(controls).map(({ group }) => group),
    flag.group,
    part.group,
    make("span", { className: "cf-group" }, column.group, range.group),
    reset,
  );
  const show = (filters) => {
    for (const name of Object.keys(controls)) controls[name].show(filters[name]);
    flag.input.value = filters.flag;
    part.input.value = filters.part;
    column.input.value = filters.range.column;
    range.show(filters.range.limits);
  };
  // A change of the range keeps its column.
  const setRange = (limitsNow) => ({ column: column.input.value, limits: limitsNow });
  return { root, show, setRange };
}

/** Set an input unless somebody is typing in it. */
function keep(input, value) {
  if (document.activeElement !== input && input.getRootNode().activeElement !== input) input.value = value;
}
