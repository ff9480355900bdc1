// The REST interface, with the token of this tab. It is asked for once and never in an address.

import { byId, el } from "/web/dom.js";

const KEY = "stellwerk-token";
const BASE = "/api/v1";

export class Problem extends Error {
  constructor(status, content) {
    super(content.detail || `The platform answered ${status}.`);
    this.status = status;
    this.code = content.code;
  }
}

export const path = (text) => text.split("/").map(encodeURIComponent).join("/");

export async function request(address, { params, ...options } = {}) {
  const query = new URLSearchParams(Object.entries(params || {})
    .filter(([, value]) => value !== null && value !== undefined));
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) || ""}` };
  const answer = await fetch(`${BASE}${address}${query.size ? `?${query}` : ""}`,
    { ...options, headers, credentials: "omit", redirect: "error" });
  if (answer.ok) return answer;
  throw new Problem(answer.status, await answer.json().catch(() => ({})));
}

export const get = async (address, params) => (await request(address, { params })).json();

// Bytes of an answer as they come; ends with it or with the signal.
export async function* chunks(address, params, signal) {
  const reader = (await request(address, { params, signal })).body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Status events, resumed after a lost connection, until the run is over.
export async function* events(run, after, signal) {
  let last = after;
  const pause = () => new Promise((resolve) => { setTimeout(resolve, 1500); });
  while (!signal.aborted) {
    const decoder = new TextDecoder();
    let text = "";
    try {
      for await (const chunk of chunks(`/runs/${path(run)}/events`, { after: last }, signal)) {
        text += decoder.decode(chunk, { stream: true });
        const parts = text.split("\n\n");
        text = parts.pop();
        for (const part of parts) {
          const data = part.split("\n").filter((line) => line.startsWith("data: "))
            .map((line) => line.slice(6)).join("\n");
          if (!data) continue;
          const event = JSON.parse(data);
          last = event.sequence;
          yield event;
        }
      }
      return;
    } catch (error) {
      if (signal.aborted || (error instanceof Problem && error.status < 500)) throw error;
      await pause();
    }
  }
}

// Saves a file of a run: from the object store, or the bytes so far of a log that still grows.
export async function download(run, name) {
  const answer = await request(`/runs/${path(run)}/files/${path(name)}`,
    { params: { redirect: "false" } });
  let address;
  if ((answer.headers.get("content-type") || "").startsWith("application/json")) {
    address = (await answer.json()).url;
    if (!/^https?:/.test(address)) return;
  } else {
    address = URL.createObjectURL(await answer.blob());
  }
  const link = el("a", { href: address, download: name.split("/").pop(), rel: "noreferrer" });
  link.click();
  if (address.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function ask(message) {
  return new Promise((resolve) => {
    const input = el("input", {
      type: "password", autocomplete: "off", spellcheck: "false", "aria-label": "Token",
      placeholder: "Token",
    });
    const submit = (event) => {
      event.preventDefault();
      if (input.value.trim()) resolve(input.value.trim());
    };
    byId("page").replaceChildren(el("form", { class: "card ask", submit },
      el("h1", {}, "Who is asking?"),
      el("p", { class: message ? "bad" : "soft" }, message
        || "Runs are shown to holders of a token. It stays in this tab until you close it."),
      input,
      el("button", { type: "submit" }, "Show"),
      el("p", { class: "soft small" },
        "On the machine that runs the platform the token is in client.json of its data folder: ",
        el("code", {}, "$STELLWERK_HOME"), ", or ", el("code", {}, "~/.stellwerk"), ".")));
    input.focus();
  });
}

// Runs `page`, asking for a token first where none is known, or again where it is refused.
export async function withToken(page) {
  let message = "";
  for (;;) {
    if (!sessionStorage.getItem(KEY)) sessionStorage.setItem(KEY, await ask(message));
    byId("session").replaceChildren(el("button", {
      click: () => { sessionStorage.removeItem(KEY); location.reload(); },
    }, "Forget token"));
    try {
      await page();
      return;
    } catch (error) {
      if (!(error instanceof Problem) || ![401, 403, 429].includes(error.status)) {
        byId("page").replaceChildren(el("div", { class: "card notice bad" },
          el("strong", {}, error.status === 404 ? "Not found" : "This page cannot be shown"),
          el("span", {}, error.message)));
        return;
      }
      message = error.status === 401 ? "That token is not valid here." : error.message;
      sessionStorage.removeItem(KEY);
    }
  }
}
