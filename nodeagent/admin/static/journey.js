// How a request spent its time, as a bar for each stage, with the same in words in a table below it.
//
// Stages differ by pattern and by letter too, so that nobody needs to tell colours apart.

import { h, s } from "./dom.js";
import { milliseconds } from "./format.js";

const KINDS = {
  queue: { letter: "Q", word: "waited in a queue" },
  connect: { letter: "C", word: "made a connection" },
  try: { letter: "E", word: "the endpoint had it" },
  backoff: { letter: "R", word: "waited before a retry" },
  middleware: { letter: "M", word: "the mesh" },
  all: { letter: "?", word: "all of it: its stages were not kept" },
};
const LEFT = 26, BAR = 18, STEP = 24, LEAST = 3, AXIS = 20;

/** Return the stages that are drawn: those that are known, or all of the time as one. Pure. */
export function stagesOf(failure) {
  if (failure.stages?.length) return failure.stages;
  return [{ kind: "all", start_ms: 0, end_ms: failure.took_ms ?? 0 }];
}

/** Return the bars of stages, in the units of a picture. Pure. */
export function barsOf(stages, width) {
  const all = Math.max(1e-6, ...stages.map((stage) => stage.end_ms));
  return stages.map((stage) => {
    const wide = Math.max(LEAST, ((stage.end_ms - stage.start_ms) / all) * width);
    return { x: Math.min((stage.start_ms / all) * width, width - wide), width: wide };
  });
}

const kindOf = (stage) => KINDS[stage.kind] ?? { letter: "·", word: stage.kind };

function says(stage) {
  const parts = [kindOf(stage).word];
  if (stage.try) parts.push(`try ${stage.try}`);
  if (stage.endpoint) parts.push(stage.endpoint);
  if (stage.answered_ms !== undefined) parts.push(`its answer began at ${milliseconds(stage.answered_ms)}`);
  if (stage.outcome) parts.push(`ended with ${stage.outcome}`);
  return parts.join(", ");
}

function picture(stages) {
  const width = Math.max(240, Math.min(640, innerWidth - 40)); // its letters are as large on a phone
  const inner = width - LEFT;
  const bars = barsOf(stages, inner);
  const height = stages.length * STEP + AXIS;
  const all = Math.max(...stages.map((stage) => stage.end_ms));
  const mark = (stage) => {
    const x = LEFT + (stage.answered_ms / Math.max(all, 1e-6)) * inner;
    return s("line", { x1: x, x2: x, y1: -1, y2: BAR + 1 });
  };
  const rows = stages.map((stage, at) => s("g", { class: `stage ${stage.kind in KINDS ? stage.kind : "other"}`, transform: `translate(0 ${at * STEP})` },
    s("text", { x: 4, y: BAR - 4 }, kindOf(stage).letter),
    s("rect", { x: LEFT + bars[at].x, y: 1, width: bars[at].width, height: BAR - 2, rx: 2 }),
    stage.answered_ms === undefined ? "" : mark(stage)));
  const axis = [["start", 0], ["middle", all / 2], ["end", all]].map(([anchor, value], at) =>
    s("text", { class: "axis", x: LEFT + (at / 2) * inner, y: height - 4, "text-anchor": anchor }, milliseconds(value)));
  return s("svg", { viewBox: `0 -2 ${width} ${height + 2}`, width, class: "journey", "aria-hidden": "true" }, rows, axis);
}

const HOW_TO_KEEP = () => ["Stages are kept where the Service has ", h("code", {}, "svc.mesh/access-log: errors"), " or another line of the access log."];

/** Return the journey of a request: the picture, and the same in words. `missing` says why there are no stages. */
export function journeyOf(failure, missing = HOW_TO_KEEP) {
  const stages = stagesOf(failure);
  const known = Boolean(failure.stages?.length);
  const rows = stages.map((stage) => h("tr", {}, h("td", {}, kindOf(stage).letter), h("td", { class: "number" }, milliseconds(stage.start_ms)),
    h("td", { class: "number" }, milliseconds(stage.end_ms - stage.start_ms)), h("td", {}, says(stage))));
  return [
    failure.took_ms === undefined ? "" : picture(stages),
    failure.took_ms === undefined ? h("p", {}, "It was refused before the mesh had read a request, so there is no journey.")
      : h("table", { class: "stages" }, h("caption", { class: "hidden" }, "Stages of the request"),
        h("thead", {}, h("tr", {}, ["", "From", "Took", "What"].map((text, at) => h("th", { scope: "col", class: at === 1 || at === 2 ? "number" : false }, at ? text : h("span", { class: "hidden" }, "Letter"))))), h("tbody", {}, rows)),
    failure.stages_left_out ? h("p", {}, `${failure.stages_left_out} further stages are not kept.`) : "",
    known || failure.took_ms === undefined || failure.kind === "connection" ? "" : h("p", {}, missing()),
  ].filter(Boolean);
}
