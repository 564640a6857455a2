// How numbers are written, and how well a share of success is: by a sign and a word besides the colour.

export function rate(value) {
  if (!value) return "0/s";
  if (value >= 9999.5) return `${(value / 1000).toFixed(0)}k/s`;
  if (value >= 999.5) return `${(value / 1000).toFixed(1)}k/s`;
  return value < 9.95 ? `${value.toFixed(1)}/s` : `${value.toFixed(0)}/s`;
}

/** What is not all never shows as 100 %. */
export function share(value) {
  if (value === null || value === undefined) return "–";
  return value < 1 ? `${Math.min(value * 100, 99.99).toFixed(2)} %` : "100 %";
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 0.9995) return `${value.toFixed(1)} s`;
  const ms = value * 1000;
  return ms >= 9.95 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(ms < 0.995 ? 2 : 1)} ms`;
}

export function bytes(value) {
  if (value < 1000) return `${value.toFixed(0)} B/s`;
  return value < 1e6 ? `${(value / 1000).toFixed(1)} kB/s` : `${(value / 1e6).toFixed(1)} MB/s`;
}

const GRADES = {
  good: { name: "good", sign: "✓", word: "good" },
  warn: { name: "warn", sign: "▲", word: "some fail" },
  bad: { name: "bad", sign: "✖", word: "many fail" },
  idle: { name: "idle", sign: "–", word: "silent" },
};

export function grade(signals) {
  if (!signals || signals.success === null) return GRADES.idle;
  if (signals.success >= 0.99) return GRADES.good;
  return signals.success >= 0.95 ? GRADES.warn : GRADES.bad;
}

/** A share that is compared with a promise: 0.9995 is `99.95 %`. It is never rounded up to what was promised. */
export const exact = (value) => (value === null ? "–" : `${Math.floor(value * 1e5 + 1e-6) / 1e3} %`);

const OBJECTIVES = {
  met: { name: "good", sign: "✓", word: "met" },
  missed: { name: "bad", sign: "✖", word: "missed" },
  "": { name: "idle", sign: "–", word: "none" },
};

/** Whether a Service keeps its objective, with the figure that decides: of what is missed, else of all, the worst one. */
export function objective(row) {
  const judged = OBJECTIVES[row?.objective ?? ""] ?? OBJECTIVES[""];
  const goals = (row?.objectives ?? []).flatMap((one) => one.goals).filter((goal) => goal.got !== null);
  const wrong = goals.filter((goal) => !goal.kept);
  const margin = (goal) => (1 - goal.got) / (1 - goal.share);
  const worst = (wrong.length ? wrong : goals).reduce((found, goal) => (!found || margin(goal) > margin(found) ? goal : found), null);
  return { ...judged, figure: worst ? `${exact(worst.got)}${worst.within ? ` in ${seconds(worst.within)}` : ""}` : "" };
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

export function milliseconds(value) {
  if (!value) return "0 ms";
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value >= 10 ? value.toFixed(0) : value.toFixed(value < 1 ? 2 : 1)} ms`;
}

/** The time of day of a moment in milliseconds; with its date if that is not today. */
export function clock(moment, exact = false) {
  const date = new Date(moment);
  if (Number.isNaN(date.getTime())) return "–";
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}${exact ? `.${String(date.getMilliseconds()).padStart(3, "0")}` : ""}`;
  return date.toDateString() === new Date().toDateString() ? time : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}
