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

/** Call `step` on arrow keys: `keys` maps each key to the arguments. */
export function onArrows(element, keys, step) {
  element.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    step(...keys[event.key]);
  });
}

export const percent = (share) => `${Math.round(100 * share)}%`;

// Without this attribute JupyterLab takes the arrow keys to move between cells.
export function keepKeys(root) {
  for (const element of [root, ...root.querySelectorAll("input, select, button, [tabindex]")]) {
    element.setAttribute("data-lm-suppress-shortcuts", "true");
  }
}
