// Logged values: a card with the last value and a line for each series, a table for rows.

import { el, number, svg, table } from "/web/dom.js";

const WIDTH = 300;
const HEIGHT = 80;
const EDGE = 4;
const MOST = 300;
const ROWS = 20;
const NOT_IN_JSON = { NaN: NaN, Infinity, "-Infinity": -Infinity };

const numeric = (value) => (typeof value === "string" && value in NOT_IN_JSON
  ? NOT_IN_JSON[value] : value);

// Keeps series by name as points arrive.
export class Series {
  constructor() { this.byName = new Map(); }

  add(points) {
    for (const point of points) {
      if (!this.byName.has(point.name)) this.byName.set(point.name, { kind: point.kind, rows: [] });
      const { rows } = this.byName.get(point.name);
      const values = point.kind === "list" && Array.isArray(point.value)
        ? point.value : [point.value];
      for (const value of values) {
        rows.push({ value: numeric(value), step: point.step ?? null });
      }
    }
  }

  cards(download) {
    const tables = ({ kind }) => ["row", "table"].includes(kind);
    const ordered = [...this.byName].sort(([, a], [, b]) => tables(a) - tables(b));
    return ordered.map(([name, series]) => {
      if (["image", "artifact"].includes(series.kind)) return fileCard(name, series, download);
      if (tables(series)) return tableCard(name, series);
      const drawable = series.rows.every(({ value }) => typeof value === "number");
      return drawable && series.rows.length > 1 ? lineCard(name, series.rows)
        : valueCard(name, series.rows);
    });
  }
}

function valueCard(name, rows) {
  const shown = rows.slice(-5).map(({ value }) => number(value)).join(", ");
  return el("div", { class: "chart" }, el("div", { class: "name" }, name),
    el("div", { class: "value" }, shown));
}

function fileCard(name, series, download) {
  return el("div", { class: "chart" }, el("div", { class: "name" }, name),
    series.rows.slice(-5).map(({ value }) => el("div", {}, el("button", {
      class: "link mono", click: () => download(String(value)),
    }, String(value)))));
}

function tableCard(name, series) {
  const columns = new Map();
  for (const { value } of series.rows) {
    for (const [column, cells] of Object.entries(value && typeof value === "object" ? value : {})) {
      if (!columns.has(column)) columns.set(column, []);
      columns.get(column).push(...[].concat(cells));
    }
  }
  const length = Math.max(0, ...[...columns.values()].map((cells) => cells.length));
  const first = Math.max(0, length - ROWS);
  const rows = Array.from({ length: length - first }, (_, index) =>
    [...columns.values()].map((cells) => [number(numeric(cells[first + index] ?? "")), "number"]));
  return el("div", { class: "chart table" },
    el("div", { class: "name" }, first ? `${name}: the last ${ROWS} of ${length} rows` : name),
    table([...columns.keys()].map((column) => [column, "number"]), rows));
}

// At most MOST points: of each bucket its lowest and its highest, so that peaks stay.
function thinned(rows) {
  if (rows.length <= MOST) return rows.map((row, index) => ({ ...row, index }));
  const kept = [];
  const size = (rows.length * 2) / MOST;
  for (let start = 0; start < rows.length; start += size) {
    const end = Math.min(rows.length, Math.floor(start + size));
    let low = Math.floor(start);
    let high = low;
    for (let index = low; index < end; index += 1) {
      if (rows[index].value < rows[low].value) low = index;
      if (rows[index].value > rows[high].value) high = index;
    }
    for (const index of low < high ? [low, high] : low > high ? [high, low] : [low]) {
      kept.push({ ...rows[index], index });
    }
  }
  return kept;
}

function lineCard(name, rows) {
  const points = thinned(rows).filter(({ value }) => Number.isFinite(value));
  const values = points.map(({ value }) => value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const x = (index) => (index / (rows.length - 1)) * WIDTH;
  const y = (value) => (most === least ? HEIGHT / 2
    : EDGE + (1 - (value - least) / (most - least)) * (HEIGHT - 2 * EDGE));
  const path = points.map((p) => `${x(p.index).toFixed(2)},${y(p.value).toFixed(2)}`);
  const latest = rows[rows.length - 1];
  const value = el("div", { class: "value" }, number(latest.value));
  const where = el("span", {}, `${rows.length.toLocaleString()} values`);
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, x1: -9, x2: -9 });
  const label = (row, index) => (row.step === null ? `value ${index + 1}` : `step ${row.step}`);
  const show = (event) => {
    const box = picture.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const index = Math.round(share * (rows.length - 1));
    value.textContent = number(rows[index].value);
    where.textContent = label(rows[index], index);
    cursor.setAttribute("x1", x(index));
    cursor.setAttribute("x2", x(index));
  };
  const rest = () => {
    value.textContent = number(latest.value);
    where.textContent = `${rows.length.toLocaleString()} values`;
    cursor.setAttribute("x1", -9);
    cursor.setAttribute("x2", -9);
  };
  const drawn = path.length ? [
    svg("polygon", { class: "area", points: [`${path[0].split(",")[0]},${HEIGHT}`, ...path,
      `${path[path.length - 1].split(",")[0]},${HEIGHT}`].join(" ") }),
    svg("polyline", { class: "line", points: path.join(" ") }),
  ] : [];
  const picture = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    pointermove: show, pointerdown: show, pointerleave: rest,
  }, svg("title", {}, `${name}: ${rows.length} values from ${number(least)} to ${number(most)}`),
  [0.5, HEIGHT / 2, HEIGHT - 0.5].map((at) =>
    svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: at, y2: at })), drawn, cursor);
  const range = el("span", {}, `${number(least)} … ${number(most)}`);
  return el("div", { class: "chart" }, el("div", { class: "name" }, name), value, picture,
    el("div", { class: "range" }, where, range));
}
