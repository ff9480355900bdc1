// Elements and words. Text goes into the page as text nodes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const el = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
export const byId = (id) => document.getElementById(id);

export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value < 0.1) return `${Math.round(value * 1000)} ms`;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 60) return `${Math.round(value)} s`;
  const whole = Math.round(value);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h} h ${m} min` : `${m} min ${s} s`;
}

export function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) { size /= 1000; unit += 1; }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export function time(text) {
  return text ? new Date(text).toLocaleString(undefined, {
    year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
    second: "2-digit",
  }) : "–";
}

export function number(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e12) return value.toLocaleString();
  return String(Number(value.toPrecision(5)));
}

export const TERMINAL = new Set(["Completed", "Failed", "Canceled"]);
const LOOKS = {
  Completed: "good", Failed: "bad", Canceled: "idle", Running: "busy", Finalizing: "busy",
  Starting: "busy", NotResponding: "bad",
};

export function pill(status) {
  const live = TERMINAL.has(status) ? "" : " live";
  return el("span", { class: `pill ${LOOKS[status] || "wait"}${live}` }, status);
}

export function facts(rows) {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", {}, shown.flatMap(([name, value]) => [
    el("dt", {}, name),
    el("dd", {}, value instanceof Node ? value : String(value)),
  ]));
}

export function runLink(run, text) {
  return el("a", { href: `/runs/${encodeURIComponent(run.run_id)}` },
    text || run.display_name || run.run_id.slice(0, 12));
}

export function experimentLink(name) {
  return el("a", { href: `/experiments/${encodeURIComponent(name)}` }, name);
}

export function table(heads, rows) {
  const cell = (tag, [text, kind]) => el(tag, { class: kind }, text);
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((head) => cell("th", [].concat(head))))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((each) =>
      each instanceof Node ? el("td", {}, each) : cell("td", [].concat(each))))))));
}
