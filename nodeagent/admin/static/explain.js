// The form that asks what the mesh would do with a request, and its answer, step by step.

import { Refused, ask, reasonOf } from "./asking.js";
import { byId, h } from "./dom.js";
import { hrefOf } from "./table.js";

const FIELDS = ["url", "method", "headers", "from"];
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** Return what is wrong with the answers of the form, by field. Pure. */
export function faults({ url, method, headers }) {
  const found = {};
  if (!url) found.url = "Write the URL of a Service, such as catalog.shop.svc.mesh/items";
  if (method && !TOKEN.test(method)) found.method = "A method is one word, such as GET";
  const wrong = headers.split("\n").findIndex((line) => line.trim() && !(line.includes(":") && TOKEN.test(line.split(":")[0].trim())));
  if (wrong >= 0) found.headers = `Line ${wrong + 1} is no header field: NAME: VALUE`;
  return found;
}

/** Return the field that a message of the agent is about. Pure. */
export function fieldOf(message) {
  if (message.includes("nor a pod that is known")) return "from";
  if (message.includes("header field")) return "headers";
  return "url";
}

const given = () => Object.fromEntries(FIELDS.map((name) => [name, byId(`explain-${name}`).value.trim()]));

function complain(found) {
  for (const name of FIELDS) {
    const field = byId(`explain-${name}`), place = byId(`explain-${name}-error`);
    place.textContent = found[name] ? `✖ ${found[name]}` : "";
    if (found[name]) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  const first = FIELDS.find((name) => found[name]);
  if (first) byId(`explain-${first}`).focus();
  return Boolean(first);
}

/** Have the form ask; `agent` tells which agent is chosen. */
export function prepareExplain(agent) {
  const form = byId("explain-form"), place = byId("explanation"), button = byId("explain-ask");
  let last = 0;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = given();
    if (complain(faults(asked))) return;
    const turn = (last += 1);
    place.replaceChildren(h("p", {}, "Asking …"));
    button.setAttribute("aria-busy", "true");
    try {
      const header = asked.headers.split("\n").map((line) => line.trim()).filter(Boolean).join("\n");
      const response = await ask("../explain", { url: asked.url, method: asked.method, header, from: asked.from, agent: agent() });
      const found = await response.json();
      if (turn === last) {
        place.replaceChildren(...explanation(found));
        place.focus();
      }
    } catch (error) {
      if (turn !== last) return;
      place.replaceChildren();
      if (error instanceof Refused) complain({ [fieldOf(error.text)]: error.text });
      else place.append(h("p", { class: "bad", role: "alert" }, `✖ The agent does not answer: ${reasonOf(error)}`));
    } finally {
      if (turn === last) button.removeAttribute("aria-busy");
    }
  });
}

const causes = (all) => (all?.length ? h("ul", { class: "causes" }, all.map((one) => h("li", {}, h("code", {}, `${one.annotation}: ${one.value}`), ` (${one.where})`))) : "");
const step = (title, ...children) => h("li", {}, h("h3", {}, title), ...children);
const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;

/** Return the steps from the name to the endpoint. */
export function explanation(one) {
  const steps = [
    step("Service", h("p", {}, h("a", { href: hrefOf(one.service) }, one.service), `, port ${one.port_name ? `${one.port_name} (${one.port})` : one.port}, at ${one.address}`)),
    step("Protocol", h("p", {}, `${one.protocol}: ${one.because}${one.upstream ? `; ${one.upstream} to the endpoints` : ""}`)),
    one.rules.length ? step("Rules", h("ul", {}, one.rules.map((rule) => h("li", {}, h("strong", {}, `${rule.takes ? "→ " : ""}${rule.name}`), ` ${rule.takes ? "takes it" : "does not take it"}: ${rule.why}`)))) : "",
    ...one.steps.map((layer) => step(`Middleware ${layer.name}${layer.backend ? ` of ${layer.backend}` : ""}`,
      h("p", { class: layer.status ? "warn" : false }, layer.status ? `▲ ${layer.says}` : layer.says), causes(layer.causes))),
    one.sent ? step("Sent to the endpoint", h("p", {}, h("code", {}, `${one.sent.method} ${one.sent.target}`)), h("ul", {}, one.sent.fields.map(([name, value]) => h("li", {}, h("code", {}, `${name}: ${value}`))))) : "",
    ...one.backends.map(backend),
  ].filter(Boolean);
  return [
    h("p", { class: "answer" }, h("strong", {}, "Answer: "), answer(one)),
    one.problems.length ? h("ul", { class: "problems" }, one.problems.map((text) => h("li", { class: "warn" }, `▲ ${text}`))) : "",
    h("ol", { class: "steps" }, steps),
  ].filter(Boolean);
}

function answer(one) {
  if (one.answer) return h("span", { class: "warn" }, `▲ ${one.answer.status} of ${one.answer.by === "mesh" ? "the mesh" : one.answer.by} (${one.answer.reason})`);
  if (one.protocol === "tcp") return one.backends.length ? "the connection is passed to an endpoint" : "none";
  return one.perhaps.length ? `that of the endpoint, or ${one.perhaps.join(", ")} as described below` : "that of the endpoint";
}

function backend(one) {
  const rows = one.endpoints.map((endpoint) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, endpoint.address)),
    h("td", { class: `grade ${endpoint.state === "in use" ? "good" : "bad"}` }, endpoint.address === one.chosen ? "→ chosen" : endpoint.state === "in use" ? "✓ in use" : `✖ ${endpoint.state}`),
    h("td", { class: "number" }, endpoint.share === null ? "–" : percent(endpoint.share)), h("td", {}, [endpoint.pod, endpoint.zone].filter(Boolean).join(" "))));
  return step(`Backend ${one.backend}`, h("p", {}, `${percent(one.share)} of the requests; ${one.balance || "no balancer"}; ${one.how}`), causes(one.causes),
    rows.length ? h("div", { class: "scroll", role: "region", "aria-label": `Endpoints of ${one.backend}`, tabindex: 0 }, h("table", {}, h("caption", { class: "hidden" }, `Endpoints of ${one.backend}`),
      h("thead", {}, h("tr", {}, ["Endpoint", "State", "Share", "Pod"].map((text, at) => h("th", { scope: "col", class: at === 2 ? "number" : false }, text)))), h("tbody", {}, rows))) : h("p", {}, "▲ It has no endpoints."));
}
