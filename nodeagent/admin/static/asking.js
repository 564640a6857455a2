// How the page asks the agent.

const PATIENCE = 15000; // milliseconds

/** What the agent has answered, if that is no success. */
export class Refused extends Error {
  constructor(status, text) {
    super(`${status}: ${text}`);
    this.text = text;
  }
}

/** Ask for a path beside the page; parameters without a value are left out. */
export async function ask(path, query, headers = {}) {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  const response = await fetch(`${path}?${text}`, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (response.status === 304) return response;
  if (!response.ok) throw new Refused(response.status, (await response.text()).slice(0, 300).trim());
  return response;
}

export const reasonOf = (error) => (error.name === "TimeoutError" ? "no answer in time" : error.message);
