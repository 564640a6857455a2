// What failed or was refused, newest first. Lines that are there stay where they are: while somebody points at the
// list, has the focus in it or has opened a line, new ones wait behind a button.

import { h, setText } from "./dom.js";
import { cut, factsOf } from "./facts.js";
import { clock, plural } from "./format.js";
import { journeyOf } from "./journey.js";
import { matches } from "./model.js";

const MOST_TOLD = 5; // agents that are named

/** What tells a failure from all others. */
const idOf = (one) => [one.time, one.node, one.worker, one.source, one.service, one.method, one.path, one.reason, one.took_ms].join(" ");

/** Whether a failure is one of those that the filter means. Pure. */
export const meant = (one, wanted) => matches(wanted, ...["service", "source_workload", "source_pod", "source", "method", "path", "reason", "layer", "detail", "endpoint", "trace_id", "node"].map((name) => String(one[name] ?? "")), String(one.grpc_status ?? one.status ?? ""));

/** Say which agents have told nothing, and why. Pure. */
function untold(page) {
  const silent = (page.agents ?? []).filter((one) => one.reason);
  const parts = silent.slice(0, MOST_TOLD).map((one) => `▲ ${one.node || one.agent}: ${one.reason}`);
  if (silent.length > MOST_TOLD) parts.push(`▲ ${silent.length - MOST_TOLD} more agents have told nothing`);
  return parts;
}

function nothing(page) {
  const silent = untold(page);
  return silent.length ? ["Nothing has failed or was refused that is known here", ...silent].join("; ") : "✓ Nothing has failed or was refused.";
}

/** Say how much there was, and what of it is not here. Pure. */
export function summary(page, shown) {
  const since = page.since ? ` since ${clock(page.since * 1000)}` : "";
  const parts = [`${page.seen + page.left_out} failed or were refused${since}`];
  if (page.left_out) parts.push(`▲ of ${page.left_out} nothing is kept: there were too many in one second`);
  if (page.seen > page.kept) parts.push(`the latest ${page.kept} are kept`);
  if (page.each) parts.push(`▲ each agent is asked for its latest ${page.each} only, because there are many`);
  parts.push(`${shown} shown`);
  return [...parts, ...untold(page)].join("; ");
}

export class FailureList {
  /** `ofService`: the list is about one Service, and does not name it in each line. */
  constructor(place, ofService = false) {
    this.ofService = ofService;
    this.known = new Map();
    this.note = h("p", { class: "note" });
    this.fresh = h("button", { type: "button", hidden: true, onclick: () => { this.show(); this.list.querySelector("summary")?.focus(); } });
    this.list = h("ol", { class: "failures" });
    place.replaceChildren(this.note, this.fresh, this.list);
  }

  /** Show a page, or (null) that the agent has none. */
  draw(page, wanted) {
    if (page === null) { this.showNone(); return; }
    this.page = page;
    const changed = this.wanted !== wanted;
    this.wanted = wanted;
    const busy = this.list.matches(":hover, :focus-within") || this.list.querySelector("details[open]");
    if (changed || !busy || !this.known.size) this.show();
    else this.wait();
  }

  showNone() {
    this.known.clear();
    this.list.replaceChildren();
    this.fresh.hidden = true;
    setText(this.note, "▲ This agent does not keep failures: it is of an older version.");
  }

  chosen() {
    return this.page.failures.filter((one) => meant(one, this.wanted));
  }

  wait() {
    const count = this.chosen().filter((one) => !this.known.has(idOf(one))).length;
    setText(this.fresh, `Show ${plural(count, "new one")}`);
    this.fresh.hidden = !count;
    setText(this.note, summary(this.page, this.known.size));
  }

  show() {
    const before = this.known;
    this.known = new Map(this.chosen().map((one) => [idOf(one), one]));
    const items = new Map([...this.list.children].map((item) => [item.dataset.id, item]));
    for (const [id, item] of items) if (!this.known.has(id)) item.remove();
    let at = 0;
    for (const [id, one] of this.known) {
      const item = before.has(id) && items.get(id) ? items.get(id) : this.make(id, one);
      if (this.list.children[at] !== item) this.list.insertBefore(item, this.list.children[at] ?? null);
      at += 1;
    }
    this.fresh.hidden = true;
    const any = this.known.size || this.page.failures.length || this.page.left_out;
    setText(this.note, any ? summary(this.page, this.known.size) : nothing(this.page));
  }

  make(id, one) {
    const refused = one.by === "mesh";
    const status = one.grpc_status ?? one.status ?? (one.kind === "connection" ? "connection" : "–");
    const line = h("summary", {},
      h("time", { datetime: one.time }, clock(Date.parse(one.time), true)), " ",
      h("span", { class: `grade ${refused ? "warn" : "bad"}` }, `${refused ? "▲ refused" : "✖ failed"} ${status}`), " ",
      this.ofService ? "" : h("strong", {}, one.service || "no Service"), " ",
      one.method ? h("code", {}, `${one.method} ${one.path ?? ""}`) : "", " ",
      h("span", {}, one.reason), one.detail ? h("span", { class: "why" }, `: ${cut(one.detail, 90)}`) : "");
    const details = h("details", { ontoggle: () => { if (details.open && details.children.length === 1) details.append(factsOf(one), ...journeyOf(one)); } }, line);
    return h("li", { "data-id": id }, details);
  }
}
