// The log of a run, live: its last part in a pane, and buttons for its other logs.

import { chunks, download, get, path } from "/web/api.js";
import { bytes, el, TERMINAL } from "/web/dom.js";

const STD = "user_logs/std_log.txt";
const BUILD = "azureml-logs/20_image_build_log.txt";
const TAIL_BYTES = 512 * 1024;
const KEPT_CHARS = 1_000_000;
const CONTROL = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007]*(?:\u0007|\u001b\\)|[\u0000-\u0008\u000b-\u001f\u007f]/g;

// A line as a terminal would leave it: overwritten parts and control sequences left out.
function plain(line) {
  const text = line.replace(/\r+$/, "");
  return text.slice(text.lastIndexOf("\r") + 1).replace(CONTROL, "");
}

class Pane {
  constructor() {
    this.node = el("pre", { class: "log", tabindex: "0", "aria-label": "Log" });
    this.clear();
  }

  clear() {
    this.node.replaceChildren();
    this.open = "";
    this.last = document.createTextNode("");
    this.size = 0;
  }

  feed(text) {
    const atEnd = this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < 40;
    const lines = (this.open + text).split("\n");
    this.open = lines.pop();
    this.last.remove();
    if (lines.length) {
      const whole = `${lines.map(plain).join("\n")}\n`;
      this.node.append(document.createTextNode(whole));
      this.size += whole.length;
    }
    this.last.data = plain(this.open);
    if (this.last.data) this.node.append(this.last);
    while (this.size > KEPT_CHARS && this.node.childNodes.length > 2) {
      this.size -= this.node.firstChild.data.length;
      this.node.firstChild.remove();
    }
    if (atEnd) this.node.scrollTop = this.node.scrollHeight;
  }
}

export class LogView {
  constructor(run) {
    this.run = run;
    this.chosen = null;
    this.reading = null;
    this.pane = new Pane();
    this.names = el("span", { class: "bar" });
    this.note = el("span", { class: "soft small" });
    this.node = el("section", { class: "card" },
      el("div", { class: "bar" }, el("h2", {}, "Log"), this.names, this.note), this.pane.node);
  }

  // Looks at which logs there are and reads the one that says most now.
  async update(status) {
    this.status = status;
    const { logs } = await get(`/runs/${path(this.run)}/logs`);
    const known = new Map(logs.map((log) => [log.path, log]));
    const wanted = this.chosen || (known.has(STD) || !known.has(BUILD) ? STD : BUILD);
    if (!known.has(wanted)) known.set(wanted, { path: wanted, bytes: 0, closed: false });
    this.names.replaceChildren(...[...known.keys()].sort().map((name) => el("button", {
      "aria-pressed": String(name === wanted),
      click: () => { this.chosen = name; this.update(this.status); },
    }, name)));
    if (this.shown !== wanted) this.read(wanted, known.get(wanted).bytes);
  }

  async read(name, length) {
    this.reading?.abort();
    const { signal } = (this.reading = new AbortController());
    this.shown = name;
    let offset = Math.max(0, length - TAIL_BYTES);
    this.note.replaceChildren(...(offset ? [`the last ${bytes(length - offset)}; `,
      el("button", { class: "link", click: () => download(this.run, name) }, "download all")] : []));
    while (!signal.aborted) {
      this.pane.clear();
      const decoder = new TextDecoder();
      try {
        const follow = TERMINAL.has(this.status) ? "false" : "true";
        const address = `/runs/${path(this.run)}/logs/${path(name)}`;
        for await (const chunk of chunks(address, { offset, follow }, signal)) {
          this.pane.feed(decoder.decode(chunk, { stream: true }));
        }
      } catch (error) {
        if (signal.aborted || error.status === 404) return;
        this.pane.feed(`\n[the connection was lost: ${error.message}]\n`);
      }
      if (TERMINAL.has(this.status)) return;
      // The attempt is over or the connection was: what follows begins anew.
      await new Promise((resolve) => { setTimeout(resolve, 1500); });
      offset = 0;
      if (TERMINAL.has(this.status)) return;
    }
  }
}
