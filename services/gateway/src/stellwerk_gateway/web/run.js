// The page of one run: what the REST interface says about it, live.

import { download, events, get, path, request, withToken } from "/web/api.js";
import { Series } from "/web/charts.js";
import {
  TERMINAL, byId, bytes, el, experimentLink, facts, number, pill, runLink, seconds, table, time,
} from "/web/dom.js";
import { LogView } from "/web/log.js";

const RUN = decodeURIComponent(location.pathname.split("/")[2] || "");
const PHASES = { preparing: "preparing", scaling: "scaling", starting: "starting",
  running: "running", post_processing: "post-processing" };
const PHASE_OF = { NotStarted: "preparing", Preparing: "preparing", Queued: "scaling",
  Provisioning: "scaling", Starting: "starting", Running: "running", Finalizing: "post_processing",
  CancelRequested: null, NotResponding: "running" };
const METRICS_S = 2;
const AT_ONCE = 10_000;
const FILES_SHOWN = 200;

const part = (name) => byId(`part-${name}`);
const save = (name) => download(RUN, name).catch((error) => alert(error.message));

function layout(log) {
  const card = (name, tag = "section") => el(tag, { id: `part-${name}`, class: "card" });
  byId("page").replaceChildren(
    el("div", { id: "part-head", class: "card" }), card("error"), card("queue"), card("warnings"),
    el("div", { class: "columns" },
      el("div", {}, card("metrics"), log.node, card("children"), card("files")),
      el("div", {}, card("facts"), card("labels"), card("inputs"))));
}

function heading(run, elapsed) {
  const cancel = TERMINAL.has(run.status) || run.status === "CancelRequested" ? null
    : el("button", { class: "danger", click: stop }, "Cancel");
  const phases = Object.entries(PHASES).map(([key, name]) => {
    const grows = !TERMINAL.has(run.status) && PHASE_OF[run.status] === key;
    const value = key in run.phases ? run.phases[key] + (grows ? elapsed : 0) : (grows ? elapsed : 0);
    return { key, name, value, known: key in run.phases || grows };
  }).filter(({ known }) => known);
  const total = phases.reduce((sum, { value }) => sum + value, 0) || 1;
  const strip = el("div", { class: "phases" }, phases.map(({ key }) => el("span", { class: `ph-${key}` })));
  phases.forEach(({ value }, index) => { strip.children[index].style.flexGrow = value / total; });
  part("head").replaceChildren(
    el("div", { class: "title" }, el("h1", {}, run.display_name || run.run_id), pill(run.status),
      el("span", { class: "soft" }, seconds(total > 1e-9 && phases.length ? total : null)), cancel),
    el("p", { class: "soft small mono" }, run.run_id),
    strip,
    el("div", { class: "legend" }, phases.map(({ key, name, value }) =>
      el("span", {}, el("i", { class: `ph-${key}` }), `${name} `, el("b", {}, seconds(value))))));
  document.title = `${run.status}: ${run.display_name || run.run_id.slice(0, 12)}`;
}

async function stop() {
  if (!confirm("Cancel this run?")) return;
  try {
    await request(`/runs/${path(RUN)}/cancel`, { method: "POST" });
  } catch (error) {
    alert(error.message);
  }
}

function notices(run) {
  const notice = (name, look, title, ...lines) => {
    part(name).className = `card notice ${look}`;
    part(name).replaceChildren(...(title ? [el("strong", {}, title), el("span", {}, ...lines)] : []));
  };
  notice("error", "bad", run.error && run.error.code, run.error && run.error.message);
  const queue = TERMINAL.has(run.status) ? null : run.queue;
  notice("queue", "wait", queue && `Waiting in ${queue.pool}, place ${queue.position}`,
    queue && `${queue.message} ${queue.unblock}`);
  notice("warnings", "wait", run.warnings.length ? "Warnings" : null, run.warnings.join("\n"));
}

function command(spec) {
  if (!spec) return null;
  const words = [...(spec.command || [spec.script]), ...spec.arguments];
  const shown = words.map((word) => (word && typeof word === "object" ? `<${word.input}>` : String(word)));
  return el("span", { class: "mono" }, shown.join(" "));
}

function details(run) {
  byId("crumbs").replaceChildren("/ ", experimentLink(run.experiment),
    ` / run ${run.number ?? run.run_id.slice(0, 8)}`);
  const image = run.image;
  const named = image && image.name ? `${image.name}${image.version ? `:${image.version}` : ""}` : null;
  part("facts").replaceChildren(el("h2", {}, "Details"), facts([
    ["experiment", experimentLink(run.experiment)],
    ["submitted", time(run.submitted_at)], ["by", run.submitted_by],
    ["started", run.started_at && time(run.started_at)],
    ["ended", run.ended_at && time(run.ended_at)],
    ["target", run.target], ["node", run.node_id],
    ["attempt", run.attempt > 1 ? run.attempt : null],
    ["parent", run.parent_run_id && runLink({ run_id: run.parent_run_id })],
    ["command", command(run.spec)],
    ["environment", named], ["Python", image && image.python],
    ["lock", image && image.lock_digest
      && el("span", { class: "mono" }, image.lock_digest.slice(0, 16))],
    ["exit code", run.exit && (run.exit.exit_code ?? run.exit.code)],
  ]));
  const labels = (name, content) => (Object.keys(content).length ? [el("h2", {}, name),
    el("p", {}, Object.entries(content).map(([key, value]) => el("span", { class: "tag" },
      value === null ? key : `${key}: ${value}`)))] : []);
  part("labels").replaceChildren(...labels("Tags", run.tags), ...labels("Properties", run.properties));
  const inputs = Object.entries(run.inputs);
  part("inputs").replaceChildren(...(inputs.length ? [el("h2", {}, "Inputs"),
    facts(inputs.map(([name, input]) => [name,
      `${input.name ? `${input.name}:${input.version}` : input.dataset_id.slice(0, 12)}, `
      + `${input.mode}, ${input.files} files, ${bytes(input.bytes)}`]))] : []));
}

async function showFiles() {
  const { files } = await get(`/runs/${path(RUN)}/files`);
  if (!files.length) return;
  const more = files.length - FILES_SHOWN;
  part("files").replaceChildren(el("h2", {}, `Files (${files.length})`), table(["name", ["size", "number"]],
    files.slice(0, FILES_SHOWN).map((file) => [
      el("button", { class: "link mono", click: () => save(file.path) }, file.path),
      [bytes(file.size), "number"]])),
  ...(more > 0 ? [el("p", { class: "soft small" }, `and ${more} more: stellwerk run files ${RUN}`)] : []));
}

async function showChildren() {
  const { items } = await get("/runs", { parent_run_id: RUN, limit: 200 });
  if (!items.length) return;
  part("children").replaceChildren(el("h2", {}, `Children (${items.length})`),
    table(["run", "status", "started", ["duration", "number"]], items.map((run) => [
      runLink(run), pill(run.status), [time(run.started_at), "time"],
      [seconds(Object.values(run.phases).reduce((sum, value) => sum + value, 0)), "number"]])));
}

class Metrics {
  constructor() { this.series = new Series(); this.after = 0; this.attempt = null; }

  async update(run) {
    if (this.attempt !== run.attempt) {
      this.series = new Series();
      [this.after, this.attempt] = [0, run.attempt];
    }
    let fresh = false;
    for (;;) {
      const { points, next } = await get(`/runs/${path(RUN)}/metrics`,
        { after: this.after, limit: AT_ONCE });
      if (!points.length) break;
      fresh = true;
      this.series.add(points);
      this.after = points[points.length - 1].sequence;
      if (next === null) break;
    }
    if (fresh) {
      part("metrics").replaceChildren(el("h2", {}, "Metrics"),
        el("div", { class: "charts" }, this.series.cards(save)));
    }
  }
}

async function page() {
  let run = await get(`/runs/${path(RUN)}`);
  let seen = performance.now();
  const log = new LogView(RUN);
  const metrics = new Metrics();
  layout(log);
  const show = () => { heading(run, (performance.now() - seen) / 1000); notices(run); };
  const refresh = async () => {
    run = await get(`/runs/${path(RUN)}`);
    seen = performance.now();
    show();
    details(run);
    await Promise.all([log.update(run.status), metrics.update(run), showFiles(), showChildren()]);
  };
  await refresh();
  if (TERMINAL.has(run.status)) return;
  const done = new AbortController();
  const ticks = [
    setInterval(() => heading(run, (performance.now() - seen) / 1000), 1000),
    setInterval(() => {
      if (!document.hidden) metrics.update(run).catch(() => {});
    }, METRICS_S * 1000),
    setInterval(() => {
      if (!document.hidden && run.status === "Running") {
        Promise.all([showFiles(), showChildren(), log.update(run.status)]).catch(() => {});
      }
    }, 10_000),
  ];
  try {
    for await (const event of events(RUN, run.sequence, done.signal)) {
      run = { ...run, status: event.status };
      await refresh();
    }
    await refresh();
  } finally {
    ticks.forEach(clearInterval);
  }
}

withToken(page);
