// The page: asks for the plan and for the last seconds, and shows the view that the address names.

import { ask, reasonOf } from "./asking.js";
import { byId, h, setText } from "./dom.js";
import { prepareExplain } from "./explain.js";
import { FailureList } from "./failures.js";
import { grade, plural, rate, share } from "./format.js";
import { problemList, serviceFacts, serviceNumbers } from "./detail.js";
import { ServiceMap, edgeTable } from "./map.js";
import { edgesOf, keyOf, matches, problemsOf, rowsOf, totalsOf } from "./model.js";
import { ServiceTable, hrefOf } from "./table.js";
import { Watch } from "./watching.js";

const EVERY = { live: 2000, plan: 4000, failures: 2000 }; // milliseconds
const MOST_FAILURES = 200;
const VIEWS = ["map", "services", "problems", "failures", "explain", "nodes", "service"];

const state = { plan: null, tag: null, live: null, failures: null, wanted: "", agent: "", held: false, trouble: {}, facts: null, listed: null };
const table = new ServiceTable(byId("services"), byId("services-note"), byId("more"));
const map = new ServiceMap(byId("map"), byId("map-note"));

const failures = new FailureList(byId("failures"));

const askers = {
  async plan() {
    const agent = state.agent;
    const response = await ask("../plan", { agent }, state.tag ? { "If-None-Match": state.tag } : {});
    if (response.status === 304) return false;
    const plan = await response.json();
    if (agent !== state.agent) return false;
    state.plan = plan;
    state.tag = response.headers.get("ETag");
    return true;
  },
  async live() {
    const agent = state.agent;
    const live = await (await ask("live", { window: byId("window").value, agent })).json();
    if (agent !== state.agent || state.held) return false;
    state.live = live;
    return true;
  },
  async failures() {
    const { view, names } = route();
    if (view !== "failures" && view !== "service") return false;
    const parts = [...names, "", ""].slice(0, 2);
    // An address that somebody typed may name no Service; the agent would refuse the question each time.
    if (view === "service" && !parts.every((one) => one && !one.includes("/"))) return false;
    const service = view === "service" ? keyOf(...parts) : "";
    const { agent, failures: known } = state;
    const same = known?.service === service && known.agent === agent;
    if (state.held && same) return false;
    let response;
    try {
      response = await ask("../failures", { service, limit: MOST_FAILURES, agent }, same && known.tag ? { "If-None-Match": known.tag } : {});
    } catch (error) {
      if (error.status !== 404) throw error;
      if (agent === state.agent) state.failures = { service, agent, page: null, tag: null };
      return true;
    }
    if (response.status === 304) return false;
    const page = await response.json();
    if (agent !== state.agent || (state.held && same)) return false;
    state.failures = { service, agent, page, tag: response.headers.get("ETag") };
    return true;
  },
};

/** Ask again and again, while somebody looks. */
async function follow(name) {
  for (;;) {
    if (!document.hidden) await once(name);
    await new Promise((done) => setTimeout(done, EVERY[name]));
  }
}

async function once(name) {
  const before = state.trouble[name];
  try {
    const news = await askers[name]();
    state.trouble[name] = null;
    if (news || before) draw();
  } catch (error) {
    state.trouble[name] = { since: before?.since ?? Date.now(), why: reasonOf(error) };
    drawState();
  }
}

function route() {
  const [view, ...rest] = location.hash.replace(/^#\//, "").split("/");
  const usual = innerWidth < 600 ? "services" : "map";
  let names = [];
  try { names = rest.map(decodeURIComponent); } catch { /* not an address that this page makes */ }
  return { view: VIEWS.includes(view) ? view : usual, names };
}

function draw() {
  const { view, names } = route();
  const rows = rowsOf(state.plan, state.live);
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  drawState();
  drawTotals(rows);
  byId("totals").hidden = view === "explain";
  drawAgents();
  const draws = { map: drawMap, services: drawServices, problems: drawProblems, failures: drawFailures, explain: () => {}, nodes: drawNodes, service: drawService };
  draws[view](rows, names);
}

function drawState() {
  const troubles = Object.entries(state.trouble).filter(([, one]) => one);
  const live = state.live;
  const silent = (live?.agents ?? []).filter((one) => one.reason).length;
  const element = byId("state");
  element.className = troubles.length || silent ? "trouble" : "";
  if (troubles.length) {
    const [, one] = troubles[0];
    setText(element, `✖ Old numbers: no answer for ${plural(Math.round((Date.now() - one.since) / 1000), "second")} (${one.why})`);
  } else if (!live) {
    setText(element, "Asking …");
  } else {
    const answered = `${live.agents.length - silent} of ${plural(live.agents.length, "agent")} answered`;
    const window = `the last ${plural(Math.round(live.window), "second")}`;
    const missing = live.left_out ? `; ${live.left_out} ports and sources are missing` : "";
    setText(element, `${state.held ? "Held: " : ""}${silent ? "▲ " : ""}${window}; ${answered}${missing}`);
  }
  setText(byId("scope"), live ? (live.scope === "cluster" ? "cluster" : live.agents[0]?.node ?? "") : "");
}

function drawTotals(rows) {
  const totals = totalsOf(rows, state.live);
  const problems = problemsOf(state.plan).filter(({ problem }) => problem.severity !== "info").length;
  setText(byId("problem-count"), problems ? `(${problems})` : "");
  const facts = [
    ["Services", `${totals.services}`], ["in use", `${totals.used}`], ["Rate", rate(totals.rate)],
    ["Success", `${grade(totals).sign} ${share(totals.success)}`],
    ["Answered by the mesh", `${totals.mesh}`],
    ["Endpoints out", totals.out ? `▲ ${totals.out} of ${totals.endpoints}` : `0 of ${totals.endpoints}`],
  ];
  const list = byId("totals");
  if (list.children.length !== facts.length) {
    list.replaceChildren(...facts.map(([name]) => h("div", {}, h("dt", {}, name), h("dd"))));
  }
  facts.forEach(([, value], at) => setText(list.children[at].lastChild, value));
}

const chosen = (rows) => rows.filter((row) => matches(state.wanted, row.key));

function chosenEdges() {
  return edgesOf(state.live).filter((edge) =>
    matches(state.wanted, keyOf(edge.from.namespace, edge.from.name), keyOf(edge.to.namespace, edge.to.name), edge.source));
}

function drawMap(rows) {
  if (!state.live) return;
  const edges = chosenEdges();
  map.draw(edges, rows);
  edgeTable(byId("edges"), edges);
}

function drawServices(rows) {
  if (!waits("plan") && !waits("live")) table.draw(chosen(rows));
}

function drawProblems() {
  const all = problemsOf(state.plan).filter(({ problem }) => matches(state.wanted, keyOf(problem.namespace, problem.name)));
  if (state.listed?.plan === state.plan && state.listed.wanted === state.wanted) return;
  state.listed = { plan: state.plan, wanted: state.wanted };
  byId("problems").replaceChildren(all.length ? problemList(all, hrefOf) : h("p", {}, "✓ There are none."));
}

function drawFailures() {
  if (state.failures?.service === "") failures.draw(state.failures.page, state.wanted);
}

function drawNodes() {
  const rows = (state.live?.agents ?? []).map((one) => h("tr", {}, h("th", { scope: "row" }, one.node || "–"), h("td", {}, one.agent || "this agent"),
    h("td", { class: `grade ${one.reason ? "bad" : "good"}` }, one.reason ? `✖ ${one.reason}` : "✓ answers")));
  byId("nodes").replaceChildren(h("caption", { class: "hidden" }, "Agents and whether they answer"),
    h("thead", {}, h("tr", {}, ["Node", "Agent", "State"].map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows));
}

function drawService(rows, names) {
  const key = keyOf(...[...names, "", ""].slice(0, 2));
  const place = byId("view-service");
  const row = rows.find((one) => one.key === key);
  if (!row) {
    if (!state.plan) return;
    forgetFacts();
    place.replaceChildren(h("h2", {}, names[1] ?? "Service"), h("p", {}, `There is no Service ${key} in the mesh now.`), back());
    return;
  }
  if (!state.facts && (waits("live") || waits("failures", (one) => one.service === key))) {
    place.replaceChildren(h("h2", {}, names[1]), h("p", {}, "Asking …"), back());
    return;
  }
  if (state.facts?.key !== key) makeService(place, key);
  if (state.facts.plan !== state.plan) {
    const [title, ...others] = serviceFacts(row).flat(Infinity).filter(Boolean);
    state.facts.title.replaceChildren(title);
    state.facts.others.replaceChildren(...others);
    state.facts.plan = state.plan;
  }
  if (state.live) state.facts.numbers.replaceChildren(...serviceNumbers(row, state.live));
  if (state.failures?.service === key) state.facts.list.draw(state.failures.page, "");
}

/** Make room for what a Service's view has; what somebody reads or watches in it stays when the plan is another. */
function makeService(place, key) {
  forgetFacts();
  const [title, numbers, watched, failed, others] = Array.from({ length: 5 }, () => h("div"));
  place.replaceChildren(title, back(), numbers, h("h3", {}, "Live requests"), watched, h("h3", {}, "Failures and refusals"), failed, others);
  state.facts = { key, plan: undefined, title, numbers, others, list: new FailureList(failed, true), watch: new Watch(watched, key, () => state.agent) };
}

/** Forget what was made for a view, and watch no longer. */
function forgetFacts() {
  state.facts?.watch?.close();
  state.facts = null;
}

/** Whether something is asked for, and neither here nor known to be in trouble: what it shows would move the rest. */
const waits = (name, meant = () => true) => !(state[name] && meant(state[name])) && !state.trouble[name];

const back = () => h("p", {}, h("a", { href: "#/services" }, "All Services"));

function drawAgents() {
  const live = state.live;
  const label = byId("agent-label");
  if (!live || live.scope !== "cluster" || label.dataset.known || state.agent) return;
  label.hidden = false;
  label.dataset.known = "yes";
  byId("agent").append(...live.agents.map((one) => h("option", { value: one.agent }, one.node || one.agent)));
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("filter").addEventListener("input", (event) => {
  state.wanted = event.target.value.trim().toLowerCase();
  map.reset();
  draw();
});
byId("window").addEventListener("change", () => once("live"));
byId("agent").addEventListener("change", (event) => {
  forgetFacts();
  Object.assign(state, { agent: event.target.value, tag: null, plan: null, live: null, failures: null });
  map.reset();
  draw();
  Object.keys(askers).forEach(once);
});
byId("hold").addEventListener("click", (event) => {
  state.held = !state.held;
  event.target.setAttribute("aria-pressed", String(state.held));
  drawState();
});
byId("arrange").addEventListener("click", () => { map.reset(); draw(); });
byId("smaller").addEventListener("click", () => map.zoom(1 / 1.25));
byId("larger").addEventListener("click", () => map.zoom(1.25));
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); byId("content").focus(); });
addEventListener("hashchange", () => { forgetFacts(); draw(); once("failures"); byId("content").focus({ preventScroll: true }); scrollTo(0, 0); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    byId("filter").focus();
  }
});

prepareExplain(() => state.agent);
draw();
Object.keys(askers).forEach(follow);
