// What is known of one request, as a list of names and values.

import { h } from "./dom.js";
import { milliseconds } from "./format.js";
import { hrefOf } from "./table.js";

const WHO = { mesh: "the mesh", endpoint: "the endpoint", client: "the client" };

export const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** Return all facts of a request, a refusal or a failed connection. */
export function factsOf(one) {
  const facts = [
    ["Why", one.reason ? `${one.reason}${one.detail ? `: ${one.detail}` : ""}` : ""],
    ["Who", one.layer ? `the mesh, middleware ${one.layer}` : WHO[one.by]],
    ["Service", one.service ? h("a", { href: hrefOf(one.service) }, `${one.service}${one.port ? ` port ${one.port}` : ""}`) : one.destination],
    ["Client", [one.source_workload, one.source_pod, one.source].filter(Boolean).join(", ")],
    ["Endpoint", one.endpoint],
    ["Took", one.took_ms === undefined ? "" : milliseconds(one.took_ms)],
    ["Tries", one.tries === undefined ? "" : String(one.tries)],
    ["Decided", one.decided],
    ["Trace", one.trace_id],
    ["Node", one.node],
  ].filter(([, value]) => value);
  return h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
