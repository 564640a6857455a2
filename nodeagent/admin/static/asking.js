// How the page asks the agent.

const PATIENCE = 15000; // milliseconds

/** What the agent has answered, if that is no success. */
export class Refused extends Error {
  constructor(status, text) {
    super(`${status}: ${text}`);
    this.status = status;
    this.text = text;
  }
}

const addressOf = (path, query) => `${path}?${new URLSearchParams(Object.entries(query).filter(([, value]) => value))}`;

async function checked(response) {
  if (!response.ok) throw new Refused(response.status, (await response.text()).slice(0, 300).trim());
  return response;
}

/** Ask for a path beside the page; parameters without a value are left out. */
export async function ask(path, query, headers = {}) {
  const response = await fetch(addressOf(path, query), { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  return response.status === 304 ? response : checked(response);
}

/** Call `take` with each piece of text of an answer that goes on, until its end or that of `signal`. */
export async function askOn(path, query, signal, take) {
  const response = await checked(await fetch(addressOf(path, query), { cache: "no-store", signal }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    take(value);
  }
}

export const reasonOf = (error) => (error.name === "TimeoutError" ? "no answer in time" : error.message);
