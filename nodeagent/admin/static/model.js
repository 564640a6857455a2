// What the two documents, /plan and live, say together. Pure.

export const keyOf = (namespace, name) => `${namespace}/${name}`;

function ofPlan(key, service) {
  const at = key.indexOf("/");
  const endpoints = (service.backends ?? []).flatMap((backend) => backend.endpoints ?? []);
  return {
    key,
    namespace: key.slice(0, at),
    name: key.slice(at + 1),
    service,
    endpoints: endpoints.length,
    out: endpoints.filter((one) => one.unhealthy || one.ejected).length,
    problems: (service.problems ?? []).filter((one) => one.severity !== "info").length,
    signals: null,
    objective: "",
    objectives: [],
    nodes: 0,
  };
}

/** All Services, by name: those of the plan, and those that are only used any more. */
export function rowsOf(plan, live) {
  const rows = new Map();
  for (const [key, service] of Object.entries(plan?.services ?? {})) rows.set(key, ofPlan(key, service));
  for (const used of live?.services ?? []) {
    const key = keyOf(used.namespace, used.service);
    const row = rows.get(key) ?? ofPlan(key, {});
    row.signals = used.signals;
    row.nodes = used.nodes;
    row.objective = used.objective ?? "";
    row.objectives = used.objectives ?? [];
    rows.set(key, row);
  }
  return [...rows.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
}

/** Edges between what the map shows: Services, and sources that are none. */
export function edgesOf(live) {
  return (live?.edges ?? []).map((edge) => {
    const from = edge.source_service
      ? { id: `service ${keyOf(edge.source_namespace, edge.source_service)}`, name: edge.source_service,
          namespace: edge.source_namespace, service: keyOf(edge.source_namespace, edge.source_service) }
      : { id: `source ${keyOf(edge.source_namespace, edge.source)}`, name: edge.source,
          namespace: edge.source_namespace, service: null };
    const key = keyOf(edge.namespace, edge.service);
    const to = { id: `service ${key}`, name: edge.service, namespace: edge.namespace, service: key };
    return { id: `${edge.source_namespace} ${edge.source} ${key}`, from, to, source: edge.source, signals: edge.signals };
  });
}

export const matches = (wanted, ...texts) => !wanted || texts.some((text) => text.toLowerCase().includes(wanted));

/** All problems, those of the node first; each knows its Service's key if it has one. */
export function problemsOf(plan) {
  const own = (plan?.problems ?? []).map((problem) => ({ problem, key: null }));
  const others = Object.entries(plan?.services ?? {}).flatMap(([key, service]) =>
    (service.problems ?? []).map((problem) => ({ problem, key })));
  return [...own, ...others];
}

export function totalsOf(rows, live) {
  const used = rows.filter((row) => row.signals);
  const requests = used.reduce((sum, row) => sum + row.signals.requests, 0);
  const failed = used.reduce((sum, row) => sum + row.signals.failed, 0);
  return {
    services: rows.length,
    used: used.length,
    rate: used.reduce((sum, row) => sum + row.signals.rate, 0),
    success: requests ? 1 - failed / requests : null,
    mesh: used.reduce((sum, row) => sum + row.signals.mesh_responses, 0),
    endpoints: rows.reduce((sum, row) => sum + row.endpoints, 0),
    out: rows.reduce((sum, row) => sum + row.out, 0),
    window: live?.window ?? 0,
  };
}
