// The map of calls. What is drawn stays where it is; updates change texts, widths and classes only.

import { h, s, setClass, setText } from "./dom.js";
import { grade, rate, seconds, share } from "./format.js";
import { BOX, LABEL, Layout, boxAt, curveOf, placeLabel } from "./layout.js";
import { hrefOf } from "./table.js";

const MOST = 80;

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

export class ServiceMap {
  constructor(holder, note) {
    this.holder = holder;
    this.note = note;
    this.scale = 1;
    this.reset();
  }

  /** Forget where things stand. */
  reset() {
    this.layout = new Layout();
    this.nodes = new Map();
    this.edges = new Map();
    this.taken = [];
    this.lines = s("g");
    this.boxes = s("g");
    this.labels = s("g");
    const arrow = s("marker", { id: "arrow", viewBox: "0 0 10 10", refX: 9, refY: 5, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" },
      s("path", { d: "M0 0 10 5 0 10z", class: "arrow" }));
    this.svg = s("svg", { "aria-label": "Services and their calls", role: "group" }, s("defs", {}, arrow), this.lines, this.boxes, this.labels);
    this.holder.replaceChildren(this.svg);
  }

  zoom(factor) {
    this.scale = Math.min(2, Math.max(0.3, this.scale * factor));
    this.resize();
  }

  draw(edges, rows) {
    const joined = join(edges);
    const chosen = this.choose(joined);
    const ids = new Map();
    for (const edge of chosen) {
      ids.set(edge.from.id, edge.from);
      ids.set(edge.to.id, edge.to);
    }
    const fresh = this.layout.place([...ids.keys()], chosen.map((edge) => ({ from: edge.from.id, to: edge.to.id })));
    for (const node of ids.values()) this.node(node);
    for (const edge of chosen) this.edge(edge);
    if (fresh) this.resize();
    const byKey = new Map(rows.map((row) => [row.key, row]));
    for (const entry of this.nodes.values()) this.updateNode(entry, byKey.get(entry.node.service));
    const now = new Map(chosen.map((edge) => [edge.id, edge]));
    for (const [id, entry] of this.edges) this.updateEdge(entry, now.get(id));
    const left = joined.length - chosen.length;
    setText(this.note, left ? `${left} more calls are not drawn; the filter chooses.`
      : (this.nodes.size ? "" : "Nothing was asked in this time."));
  }

  /** Return the edges that are drawn: those that were, then the busiest, while there is room. */
  choose(edges) {
    const ids = new Set(this.nodes.keys());
    const chosen = [];
    for (const edge of [...edges].sort((a, b) => b.signals.rate - a.signals.rate)) {
      const more = [edge.from.id, edge.to.id].filter((id) => !ids.has(id));
      if (ids.size + more.length > MOST) continue;
      more.forEach((id) => ids.add(id));
      chosen.push(edge);
    }
    return chosen;
  }

  resize() {
    const { width, height } = this.layout.size;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("width", width * this.scale);
    this.svg.setAttribute("height", height * this.scale);
  }

  node(node) {
    if (this.nodes.has(node.id)) return;
    const place = this.layout.places.get(node.id);
    const title = s("title");
    const numbers = s("text", { x: 12, y: 39, class: "numbers" });
    const shape = s("rect", { width: BOX.width, height: BOX.height, rx: node.service ? 6 : 25 });
    const texts = [s("text", { x: 12, y: 20, class: "name" }, cut(node.name, 16)),
      s("text", { x: BOX.width - 10, y: 20, class: "namespace", "text-anchor": "end" }, cut(node.namespace, 9))];
    const inside = [title, shape, ...texts, numbers];
    const group = node.service ? s("a", { href: hrefOf(node.service) }, inside) : s("g", {}, inside);
    group.setAttribute("transform", `translate(${place.x} ${place.y})`);
    this.taken.push(boxAt(place));
    this.boxes.append(group);
    this.nodes.set(node.id, { node, group, title, numbers });
  }

  updateNode(entry, row) {
    const state = entry.node.service ? grade(row?.signals) : { name: "source", sign: "" };
    const texts = row?.signals ? `${state.sign} ${rate(row.signals.rate)}  ${share(row.signals.success)}` : state.sign;
    setClass(entry.group, `node ${state.name}`);
    setText(entry.numbers, entry.node.service ? texts : "client");
    setText(entry.title, `${entry.node.name} ${entry.node.namespace}: ${describe(row?.signals)}`);
  }

  edge(edge) {
    if (this.edges.has(edge.id)) return;
    const [from, to] = [edge.from.id, edge.to.id].map((id) => this.layout.places.get(id));
    const curve = curveOf(from, to);
    const [[a, b], [c, d], [e, f], [g, i]] = curve;
    const title = s("title");
    const path = s("path", { d: `M${a} ${b}C${c} ${d} ${e} ${f} ${g} ${i}`, "marker-end": "url(#arrow)" });
    const line = s("g", {}, title, path);
    const [x, y] = placeLabel(curve, this.taken);
    const label = s("text", { x, y: y + LABEL.height / 4, "text-anchor": "middle" });
    const back = s("rect", { x: x - LABEL.width / 2, y: y - LABEL.height / 2, width: LABEL.width, height: LABEL.height, rx: 3, class: "back" });
    this.lines.append(line);
    this.labels.append(back, label);
    this.edges.set(edge.id, { edge, line, path, title, label });
  }

  updateEdge(entry, edge) {
    const state = grade(edge?.signals);
    setClass(entry.line, `edge ${state.name}`);
    setClass(entry.label, `label ${state.name}`);
    const signals = edge?.signals;
    const success = signals && signals.success < 1 ? ` ${share(signals.success)}` : "";
    setText(entry.label, signals ? `${state.sign} ${rate(signals.rate)}${success} ${signals.bound ?? ""}${seconds(signals.p95)}` : state.sign);
    setText(entry.title, `${entry.edge.from.name} → ${entry.edge.to.name}: ${describe(signals)}`);
    const width = signals ? Math.min(6, 1.2 + Math.log10(1 + signals.rate)) : 1;
    entry.path.setAttribute("stroke-width", width.toFixed(1));
  }
}

function describe(signals) {
  if (!signals) return "silent";
  const times = ["p50", "p95", "p99"].map((name) => `${name} ${signals.bound ?? ""}${seconds(signals[name])}`);
  return [grade(signals).word, rate(signals.rate), `${share(signals.success)} success`, ...times].join(", ");
}

/** Join what several workloads of one Service ask: counts add up; a percentile is at most the highest of theirs. */
function join(edges) {
  const joined = new Map();
  const highest = (a, b) => (a === null || b === null ? a ?? b : Math.max(a, b));
  for (const edge of edges) {
    const id = `${edge.from.id} ${edge.to.id}`;
    const known = joined.get(id);
    if (!known) { joined.set(id, { ...edge, id }); continue; }
    const [a, b] = [known.signals, edge.signals];
    const requests = a.requests + b.requests;
    const failed = a.failed + b.failed;
    known.signals = { requests, failed, rate: a.rate + b.rate, success: requests ? 1 - failed / requests : null, bound: "≤ ",
      p50: highest(a.p50, b.p50), p95: highest(a.p95, b.p95), p99: highest(a.p99, b.p99) };
  }
  return [...joined.values()];
}

export function edgeTable(table, edges) {
  const head = ["Caller", "Service", "State", "Rate", "Success", "p50", "p95", "p99"];
  const rows = [...edges].sort((a, b) => b.signals.rate - a.signals.rate).slice(0, 500).map(({ from, to, source, signals }) => h("tr", {},
    h("th", { scope: "row" }, source, h("span", { class: "namespace" }, ` ${from.namespace}`)),
    h("td", {}, h("a", { href: hrefOf(to.service) }, to.name, ` ${to.namespace}`)),
    h("td", { class: `grade ${grade(signals).name}` }, `${grade(signals).sign} ${grade(signals).word}`),
    [rate(signals.rate), share(signals.success), seconds(signals.p50), seconds(signals.p95), seconds(signals.p99)].map((text) => h("td", { class: "number" }, text))));
  table.replaceChildren(h("caption", { class: "hidden" }, "Calls by caller and Service"), h("thead", {}, h("tr", {}, head.map((text, at) => h("th", { scope: "col", class: at > 2 ? "number" : false }, text)))), h("tbody", {}, rows));
}
