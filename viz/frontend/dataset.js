// The data set explorer: map, table and crystal, linked. It runs in a notebook (anywidget) and in a separate page. `model`
// holds the columns of the axes and of the colour, the chosen point, the filters and the selection.

import { button, choice, followTheme, keepKeys, make, pageModel, structureBox, tick, without3D } from "./controls.js";
import { decode } from "./crystal.js";
import { cif, saveAs } from "./files.js";
import { filterBar } from "./filters.js";
import { decodeTable, numberText, orderBy, parityScores, passing, tableCsv, valueText } from "./records.js";
import { Rows } from "./rows.js";
import { Scatter } from "./scatter.js";
import { KernelSource, PageSource } from "./sources.js";
import { mix, ramp, startingDisplay, Structure } from "./structure.js";

const N_WORST = 20;
const MOST_COLUMNS = 14;
const MOST_COLOURED = 12; // different texts of a column that can colour the points
const SETTLE = 120; // ms: while points are stepped through by keys, only the last one opens
const SHAPES = 6;
const NARROW = 600; // pixels
const NO_FILTERS = { search: "", elements: "", without: "", group: "", flag: "", part: "", n_atoms: [null, null], error: [null, null], range: { column: "", limits: [null, null] } };
const KINDS = [["crystal", "Crystal"], ["attention", "Attention"], ["explanation", "Explanation"]];
const VIEW = { azimuth: -62, elevation: 18 };

/** Build the explorer in `el` and keep it up to date with `model`. Returns a function that ends it. */
function renderDataset({ model, el }) {
  const table = decodeTable(model.get("header"), model.get("data"));
  const source = model.send ? new KernelSource(model) : new PageSource(model);
  source.tell?.(table);
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const filters = () => ({ ...NO_FILTERS, ...model.get("filters") });
  const selection = () => {
    const raw = model.get("selected");
    if (Array.isArray(raw)) return raw;
    const bytes = raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength);
    return new Uint32Array(bytes);
  };
  const setSelection = (points) => set("selected", model.send ? new DataView(Uint32Array.from(points).buffer) : Array.from(points));
  const view = () => table.views.find(({ x, y }) => x === model.get("x") && y === model.get("y")) ?? null;
  const errorColumn = () => table.column(view()?.error || table.views.find(({ error }) => error)?.error || "absolute error");

  const calls = {
    choose: (point) => set("point", point),
    lasso: (points, adds) => setSelection(adds ? new Set([...selection(), ...points]) : points),
    filter: (name, value) => {
      const now = filters();
      set("filters", { ...now, [name]: name === "range" && Array.isArray(value) ? ui.filters.setRange(value) : value });
    },
    clear: () => set("filters", NO_FILTERS),
    axis: (name, value) => set(name, value),
    look: (n) => {
      const { x, y, color } = table.views[n];
      model.set("x", x);
      model.set("y", y);
      if (color) model.set("color", color);
      model.save_changes();
    },
  };
  const ui = buildDataset(table, calls, errorColumn());
  el.append(ui.root);
  const palette = table.palette;
  let scatter = null;
  let mask = new Uint8Array(table.nPoints).fill(1);
  let sort = { name: "", isDescending: true };
  let order = null;
  const chosenRows = new Rows(ui.rows, table, {
    choose: calls.choose,
    sort: (name) => {
      sort = { name, isDescending: sort.name === name ? !sort.isDescending : table.column(name).kind === "number" };
      order = null;
      showRows();
    },
  });
  const crystal = new CrystalPanel(ui, table, source, palette, { choose: calls.choose });

  // --- drawing ----------------------------------------------------------------------------------------------------------

  const selectedMask = () => {
    const points = selection();
    if (!points.length) return null;
    const found = new Uint8Array(table.nPoints);
    for (const point of points) found[point] = 1;
    return found;
  };
  const showPlaces = () => {
    const [x, y] = [table.column(model.get("x")), table.column(model.get("y"))];
    scatter?.setPlaces(x.values, y.values, { x: x.label, y: y.label }, Boolean(view()?.isParity));
    showMarks();
  };
  const showColors = () => {
    const { colors, shapes, legend } = coloured(table, table.column(model.get("color")), palette, ui.root.dataset.theme === "dark");
    scatter?.setColors(colors, shapes);
    ui.legend.replaceChildren(...legend);
  };
  const showMarks = () => {
    const now = view();
    const point = model.get("point");
    const near = table.nearest && point >= 0 ? nearOf(table, point).map(({ point: other }) => other).filter((other) => other >= 0) : [];
    const [low, high] = now?.interval?.map((name) => table.column(name)) ?? [];
    let words = [];
    if (now?.isParity) {
      const { n, mae, rmse, r2 } = parityScores(table.column(now.x).values, table.column(now.y).values, mask);
      if (n) words = [`n = ${n.toLocaleString("en")}`, `MAE ${numberText(mae)}`, `RMSE ${numberText(rmse)}`, ...(Number.isNaN(r2) ? [] : [`R² ${r2.toFixed(3)}`])];
    }
    scatter?.setMarks({ chosen: point, near, intervals: low && now.y !== now.error ? { low: low.values, high: high.values } : null, isParity: Boolean(now?.isParity), words });
  };
  const showRows = () => {
    const selected = selectedMask();
    const isOnly = ui.only.input.checked && selected;
    order ??= sort.name ? orderBy(table.column(sort.name), sort.isDescending) : Uint32Array.from(mask, (_, point) => point);
    const shown = order.filter((point) => mask[point] && (!isOnly || selected[point]));
    chosenRows.setColumns(shownColumns(table, model, errorColumn()), sort);
    chosenRows.setOrder(shown, selected);
    return shown.length;
  };
  const showShown = () => {
    const selected = selectedMask();
    scatter?.setShown(mask, selected);
    const n = mask.reduce((sum, one) => sum + one, 0);
    const nSelected = selection().length;
    showRows();
    const text = `${n.toLocaleString("en")} of ${table.nPoints.toLocaleString("en")} points shown`;
    ui.count.textContent = nSelected ? `${text}, ${nSelected.toLocaleString("en")} selected` : text;
    ui.csv.textContent = nSelected ? "CSV of selected" : "CSV of shown";
    ui.deselect.disabled = !nSelected;
  };
  const applyFilters = () => {
    ui.filters.show(filters());
    mask = passing(table, filters(), errorColumn());
    showShown();
    showMarks();
  };
  const showControls = () => {
    for (const name of ["x", "y", "color"]) ui[name].input.value = model.get(name);
    ui.look.input.value = String(table.views.indexOf(view()));
  };
  const showPoint = () => {
    const point = model.get("point");
    showMarks();
    chosenRows.setChosen(point, true);
    if (point >= 0) scatter?.reveal(point);
    ui.said.textContent = point < 0 ? "Choose a point on the map or a row of the table." : pointWords(table, point, view());
    crystal.show(point);
  };
  const listeners = {
    x: () => (showControls(), showPlaces(), showRows()),
    y: () => (showControls(), showPlaces(), applyFilters()),
    color: () => (showControls(), showColors(), showRows()),
    point: showPoint,
    filters: applyFilters,
    selected: showShown,
  };
  for (const [name, call] of Object.entries(listeners)) model.on(`change:${name}`, call);
  ui.only.input.addEventListener("change", showRows);

  // --- buttons and keys -------------------------------------------------------------------------------------------------

  const shownPoints = () => Array.from(chosenRows.order);
  ui.csv.addEventListener("click", () => {
    const points = selection().length ? Array.from(selection()).sort((a, b) => a - b) : shownPoints();
    saveAs(tableCsv(table, points), "crystals.csv", "text/csv");
  });
  ui.all.addEventListener("click", () => setSelection(shownPoints()));
  ui.deselect.addEventListener("click", () => setSelection([]));
  ui.worst.addEventListener("click", () => {
    const column = errorColumn();
    sort = { name: column.name, isDescending: true };
    order = null;
    order = orderBy(column, true);
    const worst = Array.from(order.filter((point) => mask[point] && !Number.isNaN(column.values[point])).subarray(0, N_WORST));
    setSelection(worst);
    showRows();
    ui.rows.scrollTop = 0;
    if (worst.length) calls.choose(worst[0]);
  });
  ui.move.addEventListener("click", () => setMode("move"));
  ui.lasso.addEventListener("click", () => setMode("lasso"));
  const setMode = (mode) => {
    scatter?.setMode(mode);
    for (const name of ["move", "lasso"]) ui[name].setAttribute("aria-pressed", String(name === mode));
  };
  ui.nearer.addEventListener("click", () => scatter?.key("+"));
  ui.farther.addEventListener("click", () => scatter?.key("-"));
  ui.whole.addEventListener("click", () => scatter?.key("0"));
  const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  ui.map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !scatter) return;
    const step = steps[event.key];
    if (step) {
      const point = scatter.pointBeside(model.get("point"), ...step);
      if (point >= 0) calls.choose(point);
    } else if (event.key === " ") {
      const [point, now] = [model.get("point"), new Set(selection())];
      if (point >= 0) setSelection((now.delete(point) || now.add(point), now));
    } else if (event.key === "Escape") setSelection([]);
    else if (!scatter.key(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
  });
  const hover = (point, event) => {
    ui.tip.hidden = point < 0;
    if (point < 0) return;
    ui.tip.textContent = pointWords(table, point, view());
    const box = ui.root.getBoundingClientRect();
    ui.tip.style.left = `${Math.max(4, Math.min(event.clientX - box.left + 12, box.width - ui.tip.offsetWidth - 4))}px`;
    ui.tip.style.top = `${event.clientY - box.top - 34}px`;
  };

  // --- beginning and end ------------------------------------------------------------------------------------------------

  const redrawAll = () => {
    showColors();
    scatter?.redraw();
    crystal.recolour();
  };
  const stopTheme = followTheme(ui.root, palette, redrawAll);
  const watcher = new ResizeObserver(() => {
    if (!scatter && ui.root.clientWidth) ui.filtering.open = ui.root.clientWidth >= NARROW; // so that the map is in sight
    if (!scatter && ui.map.clientWidth) {
      try {
        scatter = new Scatter(ui.map, palette, { choose: calls.choose, lasso: calls.lasso, hover });
      } catch (error) {
        console.warn(error);
        ui.map.replaceChildren(make("p", { className: "cf-sorry" }, "The map cannot be drawn, because this browser offers no WebGL. The table below holds all points."));
        watcher.unobserve(ui.map);
        return;
      }
      setMode("move");
      showColors();
      showPlaces();
      applyFilters();
      scatter.draw();
    }
    scatter?.redraw();
    chosenRows.redraw();
  });
  watcher.observe(ui.map);
  watcher.observe(ui.rows);
  showControls();
  setMode("move");
  applyFilters();
  showPoint();
  // For tests and for the console.
  ui.root.explorer = { table, model, scatter: () => scatter, rows: chosenRows, crystal, mask: () => mask };

  return () => {
    watcher.disconnect();
    stopTheme();
    crystal.end();
    for (const [name, call] of Object.entries(listeners)) model.off(`change:${name}`, call);
  };
}

// --- what is on the page ----------------------------------------------------------------------------------------------

function buildDataset(table, calls, error) {
  const numbers = table.numbers.map(({ name, words }) => [words, name]);
  const texts = table.columns.filter(({ name, kind, nTexts }) => kind === "text" && (nTexts <= MOST_COLOURED || name === "flag"));
  const colours = [["one colour", ""], ...texts.map(({ name, words }) => [words, name]), ...numbers];
  const looks = table.views.map(({ name }, n) => [name, String(n)]);
  const look = choice("View", "What the map shows", [["any columns", "-1"], ...looks], (value) => Number(value) >= 0 && calls.look(Number(value)));
  look.group.hidden = !looks.length;
  const x = choice("x", "Column on the horizontal axis", numbers, (value) => calls.axis("x", value));
  const y = choice("y", "Column on the vertical axis", numbers, (value) => calls.axis("y", value));
  const color = choice("Colour", "Column that colours the points", colours, (value) => calls.axis("color", value));
  const only = tick("only selected", () => {});
  const nothing = () => {};
  const ui = {
    look, x, y, color, only,
    move: button("✥", "Drag moves the map", nothing),
    lasso: button("lasso", "Drag draws a lasso (also Shift and drag)", nothing),
    nearer: button("+", "Zoom in (+)", nothing),
    farther: button("−", "Zoom out (−)", nothing),
    whole: button("⟲", "Show all points (0)", nothing),
    all: button("Select shown", "Select all points that are shown", nothing),
    deselect: button("Deselect", "Select no point (Escape)", nothing),
    worst: button("Worst errors", `Select the ${N_WORST} largest errors that are shown, and open the largest`, nothing),
    csv: button("CSV", "Save the selected points, or those that are shown, as a table", nothing),
    count: make("span", { className: "cf-count", attributes: { role: "status" } }),
    said: make("p", { className: "cf-caption", attributes: { "aria-live": "polite" } }),
    legend: make("div", { className: "cf-legend" }),
    tip: make("div", { className: "cf-tip", hidden: true }),
    filters: filterBar(table, error?.label ?? "", calls.filter, calls.clear),
  };
  ui.csv.removeAttribute("aria-label"); // its text says more
  ui.worst.hidden = !error;
  ui.filtering = make("details", { className: "cf-filtering", open: true }, make("summary", {}, "Filters"), ui.filters.root);
  ui.map = make("div", {
    className: "cf-map",
    tabIndex: 0,
    attributes: {
      role: "application",
      "aria-roledescription": "map of points",
      "aria-label": "Map of the crystals. Arrow keys choose the next point, space selects it, plus, minus and 0 zoom.",
    },
  });
  ui.rows = make("div", { className: "cf-rows", tabIndex: 0, attributes: { role: "region", "aria-label": "Table. Arrow keys up and down choose a row." } });
  ui.panel = make("section", { className: "cf-crystal", attributes: { "aria-label": "The chosen crystal" } });
  const notes = table.notes.length ? [make("ul", { className: "cf-notes" }, ...table.notes.map((note) => make("li", {}, note)))] : [];
  ui.root = make(
    "div",
    { className: "cf-explorer cf-dataset" },
    make(
      "div",
      { className: "cf-inside" },
      make("div", { className: "cf-controls cf-choices" }, look.group, x.group, y.group, color.group, ui.worst),
      ui.filtering,
      ...notes,
      make(
        "div",
        { className: "cf-two" },
        make(
          "div",
          { className: "cf-overview" },
          heading("Map"),
          ui.map,
          make(
            "div",
            { className: "cf-controls cf-bar" },
            make("span", { className: "cf-group" }, ui.move, ui.lasso, ui.nearer, ui.farther, ui.whole),
            ui.all,
            ui.deselect,
            ui.csv,
            only.group,
            ui.count,
          ),
          ui.legend,
          ui.said,
          heading("Table"),
          ui.rows,
        ),
        ui.panel,
      ),
      ui.tip,
    ),
  );
  keepKeys(ui.root);
  return ui;
}

function heading(text) {
  return make("div", { className: "cf-subtitle", attributes: { role: "heading", "aria-level": "2" } }, text);
}

/** Columns of the table: id and formula, then what the map shows and the flag, then the others. */
function shownColumns(table, model, error) {
  const first = ["id", "formula", model.get("x"), model.get("y"), model.get("color"), error?.name ?? "", "flag"];
  const names = [...new Set([...first, ...table.columns.map(({ name }) => name)])];
  return names.map(table.column).filter(Boolean).slice(0, MOST_COLUMNS);
}

function pointWords(table, point, view) {
  const text = (name) => (table.column(name) ? valueText(table.column(name), point) : "");
  const names = view ? [view.x, view.y, view.error] : [];
  const numbers = [...new Set(names.filter(Boolean))].map((name) => `${table.column(name).label} ${text(name) || "unknown"}`);
  const head = [text("id"), text("formula")].filter(Boolean).join(", ");
  const flag = text("flag") ? ` (${text("flag")})` : "";
  return `${head}${numbers.length ? `: ${numbers.join(", ")}` : ""}${flag}`;
}

/** Colour and shape of each point, and the legend. Texts differ in shape, too. */
function coloured(table, column, palette, isDark) {
  const colors = new Uint8Array(4 * table.nPoints);
  const shapes = new Uint8Array(table.nPoints);
  const series = palette.series.map((color) => (color === "#000000" ? palette.ink : isDark ? mix(color, "#FFFFFF", 0.25) : color));
  const bytes = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const paint = (point, [red, green, blue]) => colors.set([red, green, blue, 255], 4 * point);
  if (!column) {
    for (let point = 0; point < table.nPoints; point++) paint(point, bytes(series[0]));
    return { colors, shapes, legend: [] };
  }
  if (column.kind === "text") {
    const known = column.texts.map((_, n) => bytes(series[n % series.length]));
    for (let point = 0; point < table.nPoints; point++) {
      paint(point, known[column.values[point]]);
      shapes[point] = column.values[point] % SHAPES;
    }
    const legend = column.texts.slice(0, MOST_COLOURED).map((text, n) => {
      const chip = make("span", { className: "cf-kind" }, `${"●■◆▲✚✖"[n % SHAPES]} `);
      chip.style.color = series[n % series.length];
      return make("span", {}, chip, text || "none");
    });
    const rest = column.texts.length - legend.length;
    return { colors, shapes, legend: [`${column.label}: `, ...legend, ...(rest > 0 ? [`and ${rest} more`] : [])] };
  }
  // The darkest colours cannot be seen on a dark page, nor the lightest on a light one.
  const steps = isDark ? palette.heatmap.slice(3) : palette.heatmap.slice(0, -1);
  const [low, high] = spread(column.values);
  const shades = Array.from({ length: 64 }, (_, n) => bytes(ramp(steps, n / 63)));
  const nothing = bytes(mix(palette.ink, palette.paper, 0.6));
  for (let point = 0; point < table.nPoints; point++) {
    const value = column.values[point];
    if (Number.isNaN(value)) paint(point, nothing);
    else paint(point, shades[Math.min(63, Math.max(0, Math.round((63 * (value - low)) / (high - low || 1))))]);
  }
  const bar = make("span", { className: "cf-scale" });
  bar.style.background = `linear-gradient(to right, ${steps.join(", ")})`;
  return { colors, shapes, legend: [make("span", {}, `${column.label} `), make("span", {}, `≤ ${numberText(low)} `), bar, make("span", {}, ` ≥ ${numberText(high)}`)] };
}

/** Values between which 96 % lie, so that a few outliers do not take all colours. */
function spread(values) {
  const known = Float64Array.from(values.filter((value) => Number.isFinite(value))).sort();
  if (!known.length) return [0, 1];
  return [known[Math.floor(0.02 * (known.length - 1))], known[Math.ceil(0.98 * (known.length - 1))]];
}

/** The nearest crystals of a point: `{id, formula, detail, distance, point}`. */
function nearOf({ neighbors, nearest, distance, neighborPoint }, point) {
  const { k, ids, formulas, details } = neighbors;
  const found = [];
  for (let n = point * k; n < (point + 1) * k; n++) {
    const number = nearest[n];
    if (number < 0) continue;
    found.push({ id: ids[number], formula: formulas[number], detail: details[number], distance: distance[n], point: neighborPoint[number] });
  }
  return found;
}

// --- the chosen crystal -----------------------------------------------------------------------------------------------

class CrystalPanel {
  #ui;
  #table;
  #source;
  #palette;
  #calls;
  #point = -1;
  #kind = "crystal";
  #last = -Infinity; // when the last point was chosen, ms
  #timer = 0;
  #tabs;
  #stage;
  #title;
  #warning; // why the prediction may be far off
  #facts;
  #near;
  #plain = null; // the picture without attention: made once
  #stop = null; // ends the attention explorer
  #state = null; // layer and head of the attention explorer

  constructor(ui, table, source, palette, calls) {
    [this.#ui, this.#table, this.#source, this.#palette, this.#calls] = [ui, table, source, palette, calls];
    const absent = ["attention", "explanation"].filter((kind) => !source.offers(kind));
    const said = make("span", { className: "cf-caption" }, absent.map((kind) => source.why(kind)).join(" "));
    this.#title = make("div", { className: "cf-title" });
    this.#warning = make("p", { className: "cf-caption cf-warning", hidden: true });
    this.#tabs = Object.fromEntries(
      KINDS.map(([kind, text]) => {
        const tab = make("button", { type: "button", hidden: absent.includes(kind), attributes: { "aria-pressed": "false" } }, text);
        tab.addEventListener("click", () => {
          this.#kind = kind;
          this.#open();
        });
        return [kind, tab];
      }),
    );
    this.#stage = make("div", { className: "cf-stage" });
    this.#facts = make("div", { className: "cf-facts" }); // JupyterLab gives lists of definitions a form of its own
    this.#near = make("div", { className: "cf-near" });
    const bar = make("div", { className: "cf-controls cf-tabs", attributes: { role: "group", "aria-label": "What is shown of the crystal" } }, ...Object.values(this.#tabs), said);
    ui.panel.append(heading("Chosen crystal"), this.#title, this.#warning, bar, this.#stage, this.#near, make("details", { open: true }, make("summary", {}, "All columns"), this.#facts));
  }

  get isDrawn() {
    return this.#stage.dataset.shown === `${this.#kind} ${this.#point}`;
  }

  /** Show a point: its words at once, its crystal soon. */
  show(point) {
    this.#point = point;
    const { columns, column } = this.#table;
    this.#ui.panel.hidden = false;
    this.#facts.parentElement.hidden = point < 0;
    this.#title.textContent = point < 0 ? "" : [valueText(column("formula"), point), valueText(column("id"), point)].filter(Boolean).join(" · ");
    const why = point < 0 ? [] : ["outside_training", "not_relaxed"].map((name) => column(name)?.texts && [column(name).words, valueText(column(name), point)]);
    this.#warning.textContent = why.filter((found) => found?.[1]).map((found) => found.join(": ")).join("; ");
    this.#warning.hidden = !this.#warning.textContent;
    const facts = point < 0 ? [] : columns.map((each) => [each.label, valueText(each, point)]).filter(([, text]) => text);
    this.#facts.replaceChildren(...facts.flatMap(([name, text]) => [make("span", {}, name), make("span", {}, text)]));
    this.#showNear();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), performance.now() - this.#last < SETTLE ? SETTLE : 0);
    this.#last = performance.now();
  }

  #showNear() {
    const { neighbors } = this.#table;
    if (!neighbors || this.#point < 0) return this.#near.replaceChildren();
    const items = nearOf(this.#table, this.#point).map(({ id, formula, detail, distance, point }) => {
      const text = `${id} ${formula}`.trim();
      const name = point >= 0 ? button(text, `Show ${text}`, () => this.#calls.choose(point)) : make("span", {}, text);
      return make("li", {}, name, ` distance ${numberText(distance)}${detail ? `, ${detail}` : ""}`);
    });
    const title = neighbors.areTrained ? "Nearest training crystals" : "Nearest crystals";
    this.#near.replaceChildren(make("div", { className: "cf-subtitle" }, title), make("ol", {}, ...items));
    keepKeys(this.#near);
  }

  async #open() {
    const [point, kind] = [this.#point, this.#kind];
    for (const [name, tab] of Object.entries(this.#tabs)) {
      tab.setAttribute("aria-pressed", String(name === kind));
      tab.disabled = point < 0;
    }
    this.#stage.dataset.shown = "";
    if (point < 0) return this.#say("No crystal is chosen.");
    if (!this.#source.has(kind, point)) return this.#say(this.#source.why(kind, point));
    if (kind !== "crystal" || !this.#plain) this.#say(kind === "crystal" ? "Loading …" : "Computing …", false);
    const question = `${kind} ${point}`;
    const answer = await this.#source.ask(kind, point);
    if (question !== `${this.#kind} ${this.#point}`) return;
    if (answer.failure) return this.#say(answer.failure);
    this.#clear();
    if (answer.header.page) this.#showPage(answer.header.page);
    else if (kind === "crystal") this.#showPlain(answer);
    else this.#showAttention(answer);
    this.#stage.dataset.shown = question;
  }

  #clear() {
    this.#stop?.();
    this.#stop = null;
  }

  #say(text, isFinal = true) {
    this.#clear();
    this.#stage.replaceChildren(make("p", { className: "cf-sorry", attributes: { role: "status" } }, text));
    if (isFinal) this.#stage.dataset.shown = `${this.#kind} ${this.#point}`;
  }

  #showPage(page) {
    const frame = make("iframe", { className: "cf-page", title: "Explanation of the prediction", srcdoc: page });
    frame.setAttribute("sandbox", "");
    this.#stage.replaceChildren(frame);
  }

  #showAttention({ header, data }) {
    const { layer, head, ...first } = header.first;
    const values = { header, data, view: VIEW, n_lines: 12, display: {}, layer, head, ...first };
    // The layer and head that were looked at before.
    if (this.#state) {
      const [nLayers, nHeads] = header.arrays.attention.shape;
      const { layer: before, head: same } = this.#state();
      if (before < nLayers && (same === null || same < nHeads)) Object.assign(values, { layer: before, head: same });
    }
    const inside = pageModel(values);
    this.#state = () => ({ layer: inside.get("layer"), head: inside.get("head") });
    this.#stage.replaceChildren();
    this.#stop = crystalExplorer.render({ model: inside, el: this.#stage });
  }

  #showPlain({ header, data }) {
    const crystal = decode(header, data);
    this.#plain ??= new PlainPicture(this.#palette);
    this.#stage.replaceChildren(this.#plain.root);
    this.#plain.show(crystal, header.first);
  }

  recolour() {
    this.#plain?.recolour();
  }

  end() {
    clearTimeout(this.#timer);
    this.#clear();
    this.#plain?.end();
  }
}

/** A crystal without attention: the same picture with less to choose. One picture draws all crystals, one by one. */
class PlainPicture {
  #structure = null;
  #crystal = null;
  #palette;
  #box;
  #state = { layer: 0, head: 0, atom: 0, frames: "none", polyhedra: "all" };
  #shown = { edges: true, images: true, labels: true };
  #said;

  constructor(palette) {
    this.#palette = palette;
    this.#box = structureBox("Crystal structure");
    this.#box.setAttribute("aria-label", "Crystal structure. Shift and arrow keys turn it, plus and minus zoom, 0 resets.");
    this.#said = make("p", { className: "cf-caption", attributes: { "aria-live": "polite" } });
    const act = (call) => () => this.#structure && call(this.#structure);
    const buttons = [
      button("⟲", "Show the whole crystal (0)", act((structure) => structure.reset())),
      ...["a", "b", "c"].map((name, axis) => button(name, `Look along ${name}`, act((structure) => structure.lookAlong(axis)))),
    ];
    const ticks = ["bonds", "edges", "images", "labels"].map((name) => {
      const { input, group } = tick(name === "edges" ? "cell" : name, (value) => {
        this.#shown = { ...this.#shown, [name]: value };
        this.#draw();
      });
      input.checked = true;
      return group;
    });
    const solids = tick("polyhedra", (value) => {
      this.#state.polyhedra = value ? "all" : "none";
      this.#draw();
    });
    solids.input.checked = true;
    const png = button("PNG", "Save the picture", act(async (structure) => saveAs(await structure.png(4), `${this.#crystal.formula}.png`)));
    const file = button("CIF", "Save the crystal (CIF)", () => saveAs(cif(this.#crystal), `${this.#crystal.formula}.cif`, "chemical/x-cif"));
    const bar = make("div", { className: "cf-controls cf-bar" }, make("span", { className: "cf-group" }, ...buttons), ...ticks, solids.group, png, file);
    this.root = make("div", { className: "cf-plain" }, this.#said, this.#box, bar);
    keepKeys(this.root);
    const keys = { 0: ["reset"], a: ["lookAlong", 0], b: ["lookAlong", 1], c: ["lookAlong", 2], "+": ["zoom", 1.15], "=": ["zoom", 1.15], "-": ["zoom", 1 / 1.15], f: ["fly"] };
    const turns = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, 10], ArrowDown: [0, -10] };
    this.#box.addEventListener("keydown", (event) => {
      const action = event.shiftKey && turns[event.key] ? ["turn", ...turns[event.key]] : keys[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.#structure?.[action[0]](...action.slice(1));
    });
  }

  show(crystal, first) {
    this.#crystal = crystal;
    this.#state = { ...this.#state, atom: first.atom, polyhedra: this.#state.polyhedra === "none" ? "none" : first.polyhedra };
    const words = [crystal.title, crystal.spaceGroup, `${crystal.nAtoms} atoms`].filter(Boolean);
    this.#said.textContent = words.join(", ");
    this.#recoloured();
    try {
      if (this.#structure) this.#structure.change(crystal);
      else this.#structure = new Structure(library, this.#box, crystal, { onPick: (atom) => this.#pick(atom) }, VIEW);
    } catch (error) {
      return without3D(this.#box, "structure_figure");
    }
    this.#draw();
  }

  end() {
    this.#structure?.end();
  }

  recolour() {
    if (!this.#crystal) return;
    this.#recoloured();
    this.#draw();
  }

  #recoloured() {
    const { ink, paper, cell, axes, attentionRamp } = this.#palette;
    Object.assign(this.#crystal.palette, { ink, paper, cell, axes, attentionRamp });
  }

  #pick(atom) {
    this.#state.atom = atom;
    this.#draw();
  }

  #draw() {
    if (!this.#structure) return;
    const display = { ...startingDisplay(this.#crystal), ...this.#shown };
    this.#structure.draw({ ...this.#state, display }, { edges: [], weights: [] });
  }
}

export default { render: renderDataset, pageModel };
