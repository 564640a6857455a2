// The table of Services. Rows are kept and only what has changed is written, so that nothing jumps or flickers.

import { h, setClass, setText } from "./dom.js";
import { grade, objective, rate, seconds, share } from "./format.js";

const BATCH = innerWidth < 600 ? 100 : 500;
const REORDER = 10000; // milliseconds between two changes of an order by numbers

const signal = (name, show) => ({ value: (row) => row.signals?.[name] ?? null, show: (row) => show(row.signals?.[name]) });

function objectiveOf(row) {
  const judged = objective(row);
  return { ...judged, word: judged.figure ? `${judged.word}, ${judged.figure}` : judged.word };
}

const COLUMNS = [
  { id: "name", title: "Service", value: (row) => row.key, up: true },
  { id: "state", title: "State", value: (row) => row.signals?.success ?? 2, up: true, grade: (row) => grade(row.signals) },
  { id: "rate", title: "Rate", ...signal("rate", rate), number: true },
  { id: "success", title: "Success", ...signal("success", share), number: true, up: true },
  { id: "p50", title: "p50", ...signal("p50", seconds), number: true, wide: true },
  { id: "p95", title: "p95", ...signal("p95", seconds), number: true },
  { id: "p99", title: "p99", ...signal("p99", seconds), number: true, wide: true },
  { id: "objective", title: "Objective", value: (row) => ["missed", "met", ""].indexOf(row.objective), up: true, grade: objectiveOf },
  { id: "endpoints", title: "Endpoints", value: (row) => row.out, show: (row) => (row.out ? `${row.endpoints - row.out} of ${row.endpoints}` : `${row.endpoints}`), number: true, wide: true },
  { id: "problems", title: "Problems", value: (row) => row.problems, show: (row) => (row.problems ? `▲ ${row.problems}` : "0"), number: true, wide: true },
];

export class ServiceTable {
  constructor(table, note, more) {
    this.note = note;
    this.more = more;
    this.body = h("tbody");
    this.table = table;
    this.known = new Map();
    this.order = [];
    this.ordered = 0;
    this.by = COLUMNS[0];
    this.reversed = false;
    this.limit = BATCH;
    this.heads = COLUMNS.map((column) => h("th", { scope: "col", class: classOf(column) },
      h("button", { type: "button", onclick: () => this.sort(column) }, column.title)));
    table.append(h("caption", { class: "hidden" }, "Services with rate, success and latency"), h("thead", {}, h("tr", {}, this.heads)), this.body);
    more.addEventListener("click", () => { this.limit += BATCH; this.order = []; this.draw(this.rows); });
    this.mark();
  }

  sort(column) {
    this.reversed = this.by === column && !this.reversed;
    this.by = column;
    this.order = [];
    this.mark();
    this.draw(this.rows);
  }

  mark() {
    COLUMNS.forEach((column, at) => {
      const up = Boolean(column.up) !== this.reversed;
      this.heads[at].setAttribute("aria-sort", column === this.by ? (up ? "ascending" : "descending") : "none");
    });
  }

  /** Show rows. An order by numbers changes at most every ten seconds, and never under a pointer or the focus. */
  draw(rows) {
    this.rows = rows;
    this.table.classList.toggle("plain", !rows.some((row) => row.objective)); // without a column that says nothing
    const present = new Map(rows.map((row) => [row.key, row]));
    const same = this.order.length === rows.length && this.order.every((key) => present.has(key));
    const stale = this.by.id !== "name" && performance.now() - this.ordered > REORDER;
    if (!same || (stale && !this.body.matches(":hover, :focus-within"))) this.reorder(rows);
    const shown = this.order.slice(0, this.limit);
    for (const [key, entry] of this.known) {
      if (!present.has(key)) { entry.row.remove(); this.known.delete(key); }
    }
    shown.forEach((key, at) => {
      const entry = this.known.get(key) ?? this.make(present.get(key));
      this.update(entry, present.get(key));
      if (this.body.rows[at] !== entry.row) this.body.insertBefore(entry.row, this.body.rows[at] ?? null);
    });
    while (this.body.rows.length > shown.length) {
      const last = this.body.lastElementChild;
      this.known.delete(last.dataset.key);
      last.remove();
    }
    const hidden = rows.length - shown.length;
    setText(this.note, rows.length ? (hidden ? `${hidden} more are not shown` : "") : "There is no Service that matches.");
    this.more.hidden = !hidden;
  }

  reorder(rows) {
    const sign = (this.by.up ? 1 : -1) * (this.reversed ? -1 : 1);
    const value = this.by.value;
    const rank = (row) => value(row) ?? (sign > 0 ? Infinity : -Infinity);
    const sorted = [...rows].sort((a, b) => {
      const [x, y] = [rank(a), rank(b)];
      return x === y ? (a.key < b.key ? -1 : 1) : (x < y ? -sign : sign);
    });
    this.order = sorted.map((row) => row.key);
    this.ordered = performance.now();
  }

  make(row) {
    const link = h("a", { href: hrefOf(row.key) }, row.name, h("span", { class: "namespace" }, ` ${row.namespace}`));
    const cells = COLUMNS.slice(1).map((column) => h("td", { class: classOf(column) }, column.grade ? [h("span"), h("span", { class: "word" })] : ""));
    const element = h("tr", { "data-key": row.key }, h("th", { scope: "row" }, link), cells);
    const entry = { row: element, cells };
    this.known.set(row.key, entry);
    return entry;
  }

  update(entry, row) {
    COLUMNS.slice(1).forEach((column, at) => {
      if (!column.grade) { setText(entry.cells[at], column.show(row)); return; }
      const [sign, word] = entry.cells[at].children;
      const said = column.grade(row);
      setText(sign, said.sign);
      setText(word, ` ${said.word}`);
      setClass(entry.cells[at], `${classOf(column)} grade ${said.name}`.trim());
    });
  }
}

const classOf = (column) => [column.id === "objective" && "objective", column.number && "number", column.wide && "wide"].filter(Boolean).join(" ");

export const hrefOf = (key) => `#/service/${key.split("/").map(encodeURIComponent).join("/")}`;
