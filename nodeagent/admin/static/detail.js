// One Service: numbers, problems, ports with their rules, endpoints with their health, settings and their origin.

import { h } from "./dom.js";
import { bytes, exact, grade, plural, rate, seconds, share } from "./format.js";
import { edgeTable } from "./map.js";
import { edgesOf } from "./model.js";

const options = (values) => Object.entries(values ?? {})
  .filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length))
  .map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`).join(" ");

const section = (title, ...children) => [h("h3", {}, title), ...children];

function table(caption, head, rows) {
  return h("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, h("table", {}, h("caption", { class: "hidden" }, caption),
    h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => (cell instanceof Node && cell.tagName === "TD" ? cell : h("td", {}, cell))))))));
}

/** Everything of a Service that does not change with each second. */
export function serviceFacts(row) {
  const service = row.service;
  const annotations = Object.entries(service.annotations ?? {});
  return [
    h("h2", {}, row.name, h("span", { class: "namespace" }, ` ${row.namespace}`)),
    h("p", {}, service.address ? `Mesh address ${service.address}` : "It has no mesh address: it is not in the mesh, or was taken out of it."),
    (service.problems ?? []).length ? section("Problems", problemList(service.problems.map((problem) => ({ problem, key: null })))) : "",
    section("Endpoints", ...endpoints(service)),
    section("Ports and rules", ...(service.listeners ?? []).map(listener)),
    section("Settings", annotations.length
      ? table("Settings", ["Annotation", "Value", "Comes from"], annotations.map(([name, value]) => [h("code", {}, name), h("code", {}, value), service.from?.[name] ?? "the Service"]))
      : h("p", {}, "None is set: defaults count.")),
  ];
}

function endpoints(service) {
  const backends = service.backends ?? [];
  if (!backends.some((backend) => backend.endpoints?.length)) return [h("p", {}, "▲ There are none: requests are answered with 503.")];
  return backends.map((backend) => [
    h("p", {}, h("code", {}, backend.backend), ` balance ${backend.balance}`,
      backend.health_check ? `, health check ${options(backend.health_check)}` : "", backend.failover ? `, fails over to ${backend.failover}` : ""),
    table(`Endpoints of ${backend.backend}`, ["State", "Address", "Pod", "Why"], backend.endpoints.map((one) => [
      state(one), h("code", {}, one.address), one.pod ?? "–", one.unhealthy ?? one.ejected ?? "",
    ])),
  ]);
}

function state(endpoint) {
  if (endpoint.unhealthy) return h("td", { class: "grade bad" }, "✖ unhealthy");
  if (endpoint.ejected) return h("td", { class: "grade warn" }, "▲ ejected");
  return h("td", { class: "grade good" }, "✓ in use");
}

function listener(one) {
  return h("div", { class: "listener" },
    h("h4", {}, `Port ${one.port}${one.name ? ` (${one.name})` : ""}, ${one.protocol}, at ${one.mesh}`),
    layers(one.layers),
    h("ol", {}, one.rules.map((rule) => h("li", {}, h("strong", {}, rule.name), rule.match ? ` if ${options(rule.match)}` : " takes all",
      " → ", rule.backends.map((target) => `${target.backend}${rule.backends.length > 1 ? ` (weight ${target.weight})` : ""}`).join(", "), layers(rule.layers)))));
}

const layers = (all) => (all?.length ? h("ul", { class: "layers" }, all.map((layer) => h("li", {}, h("code", {}, layer.name), ` ${options(layer.options)}`))) : "");

export function problemList(problems, hrefOf) {
  return h("ul", { class: "problems" }, problems.map(({ problem, key }) => h("li", {},
    h("span", { class: `grade ${problem.severity === "error" ? "bad" : "warn"}` }, { error: "✖ error", warning: "▲ warning" }[problem.severity ?? "error"] ?? "ℹ note"), " ",
    key && hrefOf ? h("a", { href: hrefOf(key) }, key) : `${problem.kind ?? "Service"} ${problem.namespace}/${problem.name}`, " ",
    h("code", {}, problem.field), problem.value ? [": ", h("code", {}, problem.value)] : "", ` ${problem.reason}.`,
    problem.expected ? ` Expected: ${problem.expected}.` : "", problem.effect ? ` Now: ${problem.effect}.` : "", problem.origin ? ` (${problem.origin})` : "")));
}

/** What the owner has promised for each port, and how it was kept in these seconds. */
function objectives(row) {
  const goals = row.objectives.flatMap((one) => one.goals.map((goal) => ({ ...goal, port: one.port })));
  if (!goals.length) return [];
  return section("Objective", table("Objective", ["Port", "State", "Promised", "Was"], goals.map((goal) => [
    goal.port,
    h("td", { class: `grade ${goal.kept ? "good" : "bad"}` }, goal.kept ? "✓ met" : "✖ missed"),
    `${exact(goal.share)} ${goal.within ? `take no longer than ${seconds(goal.within)}` : "succeed"}`,
    exact(goal.got),
  ])));
}

/** What a Service does now. */
export function serviceNumbers(row, live) {
  const signals = row.signals;
  if (!signals) return [h("p", {}, "– Nobody has asked it in this time.")];
  const state = grade(signals);
  const facts = [
    ["State", h("span", { class: `grade ${state.name}` }, `${state.sign} ${state.word}`)],
    ["Rate", rate(signals.rate)], ["Success", share(signals.success)],
    ["p50", seconds(signals.p50)], ["p95", seconds(signals.p95)], ["p99", seconds(signals.p99)],
    ["Failed", signals.failed], ["Answered by the mesh itself", signals.mesh_responses],
    ["Received", bytes(signals.received_rate)], ["Sent", bytes(signals.sent_rate)],
    ...Object.entries(signals.classes).map(([name, count]) => [name === "none" ? "Client left" : name, count]),
    ...Object.entries(signals.grpc).map(([name, count]) => [`gRPC ${name}`, count]),
  ];
  const edges = edgesOf(live);
  const called = h("table"), calls = h("table");
  edgeTable(called, edges.filter((edge) => edge.to.service === row.key));
  edgeTable(calls, edges.filter((edge) => edge.from.service === row.key));
  const list = (title, element) => (element.tBodies[0].rows.length
    ? section(title, h("div", { class: "scroll", role: "region", "aria-label": title, tabindex: 0 }, element)) : "");
  return [
    h("dl", { class: "numbers", "aria-label": `Of the last ${plural(Math.round(live.window), "second")}` }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    ...objectives(row),
    list("Called by", called), list("Calls", calls),
  ].flat(Infinity).filter(Boolean);
}
