// Building blocks of the widgets: elements, sliders, keys and percentages.

/** An element with properties, `attributes` and children. */
export function make(tag, properties = {}, ...children) {
  const { attributes, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A slider with its value and a Play button. */
export function slider(name, size) {
  const input = make("input", { type: "range", min: 0, max: size - 1, step: 1, attributes: { "aria-label": name } });
  const value = make("output");
  const play = make("button", { type: "button", className: "cf-play", attributes: { "aria-pressed": "false" } }, "▶");
  play.setAttribute("aria-label", `Play through the ${name.toLowerCase()}s`);
  input.disabled = play.disabled = size === 1;
  const group = make("span", { className: "cf-slider" }, make("label", {}, name, input), value, play);
  const show = (number) => {
    if (number !== null) input.value = number;
    value.textContent = number === null ? "mean" : `${number} of 0–${size - 1}`;
    input.setAttribute("aria-valuetext", value.textContent);
  };
  return { group, input, play, size, show };
}

/** The element for a crystal in 3D. */
export function structureBox(name) {
  const keys = "Arrow keys up and down change the layer, left and right the head. Click an atom to choose it.";
  return make("div", {
    className: "cf-structure",
    tabIndex: 0,
    attributes: { role: "application", "aria-roledescription": "crystal structure", "aria-label": `${name}. ${keys}` },
  });
}

/** A button with a name that says more than its text. */
export function button(text, name, onClick) {
  const element = make("button", { type: "button", title: name, attributes: { "aria-label": name } }, text);
  element.addEventListener("click", onClick);
  return element;
}

/** A box to tick, with its label. */
export function tick(text, onChange) {
  const input = make("input", { type: "checkbox", attributes: { "aria-label": text } });
  input.addEventListener("change", () => onChange(input.checked));
  return { input, group: make("label", {}, input, text) };
}

/** A list to choose from, with its label; `options` are pairs of text and value. */
export function choice(text, name, options, onChange) {
  const input = make("select", { attributes: { "aria-label": name } });
  input.append(...options.map((option) => new Option(...option)));
  input.addEventListener("change", () => onChange(input.value));
  // Where the box is too narrow for its words.
  input.addEventListener("pointerenter", () => (input.title = input.selectedOptions[0]?.text ?? ""));
  return { input, group: make("label", {}, `${text} `, input) };
}

// Instead of the colours of the palette where the page is dark: lighter ones, and stronger is lighter.
const DARK = {
  ink: "#EEEEEE",
  paper: "#1B1E23",
  cell: "#AAAAAA",
  axes: ["#F28E4B", "#35C99A", "#56B4E9"],
  attentionRamp: ["#6B3558", "#CC79A7", "#F9D3E8"],
};

/** Whether the page around an element is dark: JupyterLab, VS Code and others say so, or else the browser. */
export function isDark(element) {
  const lab = document.body?.dataset;
  if (lab?.jpThemeLight) return lab.jpThemeLight === "false";
  const kind = lab?.vscodeThemeKind ?? document.documentElement.dataset.theme ?? "";
  if (kind) return /dark|high-contrast$/.test(kind);
  return element.ownerDocument.defaultView.matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Give an explorer the colours of the page around it, now and when they change. Returns a function that ends it. */
export function followTheme(root, palette, redraw) {
  const light = { ...palette };
  let shown = "";
  const apply = () => {
    const name = isDark(root) ? "dark" : "light";
    if (shown === name) return;
    root.dataset.theme = shown = name;
    Object.assign(palette, light, name === "dark" ? DARK : {});
    root.style.setProperty("--ink", palette.ink);
    root.style.setProperty("--paper", palette.paper);
    root.style.setProperty("--ramp", `linear-gradient(to right, ${palette.attentionRamp.join(", ")})`);
    palette.axes.forEach((color, k) => root.style.setProperty(`--axis-${k}`, color));
    redraw();
  };
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", apply);
  const watcher = new MutationObserver(apply);
  for (const element of [document.body, document.documentElement]) {
    watcher.observe(element, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind", "data-theme", "class"] });
  }
  apply();
  return () => {
    media.removeEventListener("change", apply);
    watcher.disconnect();
  };
}

/**
 * Say in a structure box why there is no crystal in 3D. `figure` is the function of viz that draws a still picture. Returns
 * a canvas below the words, for the next best picture.
 */
export function without3D(box, figure) {
  const text =
    "The crystal cannot be drawn in 3D, because this browser offers no WebGL. Switch on hardware acceleration, use " +
    `another browser, or draw a still picture with viz.${figure}.`;
  const canvas = make("canvas", { className: "cf-flat", attributes: { "aria-hidden": "true" } });
  box.replaceChildren(make("p", { className: "cf-sorry" }, text), canvas);
  box.classList.add("cf-no-3d");
  return canvas;
}

/** A formula with its numbers as subscripts. */
export function formulaParts(formula) {
  return formula.split(/(\d+)/).filter(Boolean).map((part) => (/^\d/.test(part) ? make("sub", {}, part) : part));
}

/** A space group as it is printed: screw axes with subscripts, inversions with a bar (`P4_2/mnm`, `Fd-3m`). */
export function spaceGroupParts(symbol) {
  return symbol.split(/(_\d|-\d)/).filter(Boolean).map((part) => {
    if (part.startsWith("_")) return make("sub", {}, part.slice(1));
    return part.startsWith("-") ? make("span", { className: "cf-bar-over" }, part.slice(1)) : part;
  });
}

/** The mark of a frame whose axes were chosen by a tie rule. */
export function tiedBadge() {
  const title = "Several neighbours or directions are equivalent here. A tie rule chose the axes among them.";
  return make("span", { className: "cf-badge cf-tied", hidden: true, title }, "tied frame");
}

/** The colours of the axes (if there are any), of those of other frames of weighted sets, and of attention lines. */
export function legend({ axisLabels }, hasAxes, text, hasSets) {
  const chip = (className, label, axis) => {
    const element = make("span", { className }, label);
    element.style.setProperty("--color", `var(--axis-${axis})`);
    return element;
  };
  const lines = make("span", { className: "cf-lines" }, text);
  const chips = hasAxes ? axisLabels.map((name, k) => chip("cf-axis", `${name} (${"xyz"[k]})`, k)) : [];
  const pale = chip("cf-axis cf-pale", "other frames of a weighted set", 0);
  return make("div", { className: "cf-legend" }, ...chips, ...(hasSets ? [pale] : []), lines);
}

/** Call `step` on arrow keys: `keys` maps each key to the arguments. */
export function onArrows(element, keys, step) {
  element.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    step(...keys[event.key]);
  });
}

/** The model of a widget on a page without a kernel: it holds `values` and calls those who listen for changes. */
export function pageModel(values) {
  const listeners = {};
  return {
    get: (name) => values[name],
    set(name, value) {
      if (values[name] === value) return;
      values[name] = value;
      for (const call of listeners[`change:${name}`] ?? []) call();
    },
    save_changes() {},
    on: (event, call) => (listeners[event] ??= []).push(call),
    off: (event, call) => (listeners[event] = listeners[event].filter((other) => other !== call)),
  };
}

export const percent = (share) => `${Math.round(100 * share)}%`;

// Without this attribute JupyterLab takes the arrow keys to move between cells.
export function keepKeys(root) {
  for (const element of [root, ...root.querySelectorAll("input, select, button, [tabindex]")]) {
    element.setAttribute("data-lm-suppress-shortcuts", "true");
  }
}
