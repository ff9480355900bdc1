// All experiments, or the runs of one of them.

import { get, withToken } from "/web/api.js";
import { byId, el, experimentLink, pill, runLink, seconds, table, time } from "/web/dom.js";

const NAME = location.pathname.split("/").slice(2).map(decodeURIComponent).join("/");
const AT_ONCE = 100;

async function list(address, params, title, heads, row) {
  const body = el("div", {});
  const more = el("p", {});
  const rows = [];
  byId("page").replaceChildren(el("section", { class: "card" },
    el("div", { class: "title" }, el("h1", {}, title)), body, more));
  const load = async (cursor) => {
    const page = await get(address, { ...params, limit: AT_ONCE, cursor });
    rows.push(...page.items.map(row));
    body.replaceChildren(rows.length ? table(heads, rows)
      : el("p", { class: "soft" }, "Nothing here yet."));
    more.replaceChildren(...(page.next_cursor ? [el("button", {
      click: () => load(page.next_cursor).catch((error) => alert(error.message)),
    }, "More")] : []));
  };
  await load(null);
}

function experiments() {
  document.title = "Experiments";
  return list("/experiments", {}, "Experiments", ["experiment", ["runs", "number"], "last run"],
    (each) => [experimentLink(each.name), [String(each.runs), "number"], [time(each.last_run_at)]]);
}

function runs() {
  document.title = NAME;
  byId("crumbs").replaceChildren(`/ ${NAME}`);
  return list("/runs", { experiment: NAME }, NAME,
    ["run", "status", "submitted", ["duration", "number"], "target", "tags"],
    (run) => [
      runLink(run, run.display_name || (run.number ? `run ${run.number}` : null)), pill(run.status),
      [time(run.submitted_at), "time"],
      [seconds(Object.values(run.phases).reduce((sum, value) => sum + value, 0)), "number"],
      run.target,
      el("span", {}, Object.entries(run.tags).map(([key, value]) => el("span", { class: "tag" },
        value === null ? key : `${key}: ${value}`))),
    ]);
}

withToken(NAME ? runs : experiments);
