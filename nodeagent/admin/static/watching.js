// Requests of one Service as they end, from the stream `/tap`: a bounded list. Nothing is asked for unless somebody
// looks: the stream ends with the view, with a pause, and while the window is hidden.

import { askOn, reasonOf } from "./asking.js";
import { h, setText } from "./dom.js";
import { cut, factsOf } from "./facts.js";
import { clock, milliseconds, plural } from "./format.js";
import { journeyOf } from "./journey.js";

const MOST_SHOWN = 200;
const LONGEST_LINE = 256 * 1024; // characters
const PATIENCE = 20000; // milliseconds without a byte: an agent sends one every five seconds
const EVERY = 250; // milliseconds between two changes of the list
const MOST_TOLD = 5; // agents that the page says cannot be watched

/** Makes values of the pieces of a stream, which has one on each line. */
export class LineReader {
  constructor() {
    this.rest = "";
  }

  /** Return what is whole by now. */
  take(piece) {
    const lines = (this.rest + piece).split("\n");
    this.rest = lines.pop();
    if (this.rest.length > LONGEST_LINE) throw new Error("the agent sent a line that is too long");
    return lines.filter((line) => line.trim()).map((line) => JSON.parse(line));
  }
}

/** Say by sign, word and colour how a request ended. Pure. */
export function endOf(one) {
  const status = one.grpc_status ?? (one.status || "no response");
  if (one.reason) return { name: "bad", text: `✖ ${status}` };
  return one.status >= 400 ? { name: "warn", text: `▲ ${status}` } : { name: "good", text: `✓ ${status}` };
}

const NO_STAGES = () => ["It began before it was watched, so its stages were not kept."];

function itemOf(one) {
  const { name, text } = endOf(one);
  const line = h("summary", {},
    h("time", { datetime: one.time }, clock(Date.parse(one.time), true)), " ",
    h("span", { class: `grade ${name}` }, text), " ",
    h("code", {}, `${one.method ?? ""} ${cut(one.path ?? "", 120)}`), " ",
    milliseconds(one.took_ms), " ",
    h("span", { class: "why" }, [`from ${one.source_workload ?? one.source ?? "unknown"}`, one.reason, one.decided].filter(Boolean).map((part) => cut(part, 90)).join("; ")));
  const details = h("details", { ontoggle: () => { if (details.open && details.children.length === 1) details.append(factsOf(one), ...journeyOf(one, NO_STAGES)); } }, line);
  return h("li", {}, details);
}

let made = 0;

function field(title, control) {
  made += 1;
  control.id = `watch-${made}`;
  return h("span", { class: "field" }, h("label", { for: control.id }, title), " ", control);
}

const text = (placeholder, more = {}) => h("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder, maxlength: 253, ...more });

export class Watch {
  /** `agentOf` says which agent is chosen, of a page about many. */
  constructor(place, service, agentOf) {
    Object.assign(this, { service, agentOf, wanted: false, paused: false, stream: null, why: "", timer: 0 });
    this.status = h("select", {}, [["", "any"], ["2xx"], ["3xx"], ["4xx"], ["5xx"]].map(([value, title = value]) => h("option", { value }, title)));
    this.method = text("any", { list: "explain-methods", size: 8 });
    this.path = text("/", { size: 14 });
    this.from = text("deployment/web", { size: 16 });
    this.button = h("button", { type: "button", onclick: () => this.setWanted(!this.wanted) }, "Watch requests");
    this.pause = h("button", { type: "button", hidden: true, "aria-pressed": "false", onclick: () => this.setPaused(!this.paused) }, "Pause");
    const form = h("form", { class: "tools watch", "aria-label": "Live requests", onsubmit: (event) => event.preventDefault(), onchange: () => this.again(), onkeydown: (event) => this.pressed(event) },
      this.button, this.pause, field("Status", this.status), field("Method", this.method), field("Path begins with", this.path), field("Caller", this.from));
    this.state = h("p", { class: "note", role: "status" });
    this.note = h("p", { class: "note", hidden: true });
    this.fresh = h("button", { type: "button", hidden: true, onclick: () => { this.show(); this.list.querySelector("summary")?.focus(); } });
    this.list = h("ol", { class: "failures" });
    place.replaceChildren(form, this.state, this.note, this.fresh, this.list);
    this.forget();
    this.onVisible = () => this.settle();
    document.addEventListener("visibilitychange", this.onVisible);
    this.tell();
  }

  /** Stop for ever: the view is left. */
  close() {
    document.removeEventListener("visibilitychange", this.onVisible);
    this.wanted = false;
    this.settle();
    clearTimeout(this.timer);
  }

  forget() {
    Object.assign(this, { came: 0, leftOut: 0, waiting: [], silent: new Map() });
  }

  setWanted(wanted, why = "") {
    if (wanted) { this.forget(); this.list.replaceChildren(); }
    Object.assign(this, { wanted, why, paused: false });
    this.settle();
    this.later();
  }

  setPaused(paused) {
    this.paused = paused;
    this.settle();
  }

  pressed(event) {
    if (event.key === "Enter" && event.target.tagName === "INPUT" && !this.wanted) this.setWanted(true);
  }

  /** Ask anew if a filter is another one. */
  again() {
    if (!this.wanted) return;
    this.leave();
    this.setWanted(true);
  }

  settle() {
    const asks = this.wanted && !this.paused && !document.hidden;
    if (asks && !this.stream) this.enter();
    if (!asks) this.leave();
    this.tell();
  }

  leave() {
    this.stream?.abort();
    this.stream = null;
  }

  async enter() {
    const stream = this.stream = new AbortController();
    const lines = new LineReader();
    let patience;
    const wait = () => {
      clearTimeout(patience);
      patience = setTimeout(() => stream.abort(new Error("nothing came for 20 seconds")), PATIENCE);
    };
    const query = { service: this.service, status: this.status.value, method: this.method.value.trim().toUpperCase(), path: this.path.value.trim(), from: this.from.value.trim(), agent: this.agentOf() };
    let why = "The agent has ended the watch.";
    try {
      wait();
      await askOn("../tap", query, stream.signal, (piece) => {
        wait();
        for (const one of lines.take(piece)) if (this.stream === stream) this.heard(one);
      });
    } catch (error) {
      why = `▲ Not watched: ${error.text ?? reasonOf(error)}`;
    }
    clearTimeout(patience);
    stream.abort();
    if (this.stream === stream) this.setWanted(false, why);
  }

  heard(one) {
    if (one.ended !== undefined) this.setWanted(false, `The watch has ended: ${one.ended}.`);
    else if (one.dropped !== undefined) this.leftOut += one.dropped;
    else if (one.error !== undefined) this.silent.set(one.node, one.error);
    else {
      this.came += 1;
      this.waiting.push(one);
      if (this.waiting.length > MOST_SHOWN) this.waiting.shift();
    }
    this.later();
  }

  later() {
    this.timer ||= setTimeout(() => { this.timer = 0; this.draw(); }, EVERY);
  }

  draw() {
    const busy = this.list.children.length && (this.list.matches(":hover, :focus-within") || this.list.querySelector("details[open]"));
    if (!busy) { this.show(); return; }
    setText(this.fresh, `Show ${plural(this.waiting.length, "new one")}`);
    this.fresh.hidden = !this.waiting.length;
    this.count();
  }

  show() {
    const items = this.waiting.splice(0).reverse().map(itemOf);
    this.list.prepend(...items);
    while (this.list.children.length > MOST_SHOWN) this.list.lastElementChild.remove();
    this.fresh.hidden = true;
    this.count();
  }

  /** Say how many there were, and which are not here. */
  count() {
    const parts = [`${plural(this.came, "request")} came`, `${this.list.children.length} shown`];
    if (this.leftOut) parts.push(`▲ ${this.leftOut} more were left out: there were too many`);
    const silent = [...this.silent].slice(0, MOST_TOLD).map(([node, why]) => `▲ ${node} is not watched: ${why}`);
    if (this.silent.size > MOST_TOLD) silent.push(`▲ nor are ${this.silent.size - MOST_TOLD} more agents`);
    setText(this.note, [...parts, ...silent].join("; "));
    this.note.hidden = !this.came && !this.leftOut && !this.silent.size;
  }

  tell() {
    setText(this.button, this.wanted ? "Stop watching" : "Watch requests");
    this.pause.hidden = !this.wanted;
    this.pause.setAttribute("aria-pressed", String(this.paused));
    const now = !this.wanted ? this.why : this.paused ? "Paused: requests that end now are not shown later." : document.hidden ? "Stopped while this window is hidden." : "Watching. Requests appear as they end.";
    setText(this.state, now);
  }
}
