// Numbers, times and names as people read them. Pure.

const NUMBER = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const MINUTE = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const DASH = "–";

export const whole = (number) => (number == null ? DASH : NUMBER.format(number));

export const plural = (count, noun, many = noun + "s") => `${whole(count)} ${count === 1 ? noun : many}`;

export function seconds(value) {
  if (value == null || !Number.isFinite(value)) return DASH;
  if (value < 0.0005) return "0 s";
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(2)} s`;
  if (value < 59.95) return `${value.toFixed(1)} s`;
  const rounded = Math.round(value);
  if (rounded < 3600) return `${Math.floor(rounded / 60)} min ${rounded % 60} s`;
  if (rounded < 172800) return `${Math.floor(rounded / 3600)} h ${Math.floor((rounded % 3600) / 60)} min`;
  return `${Math.floor(rounded / 86400)} days`;
}

/** At an axis: no more digits than it needs. */
export function tick(value) {
  if (value < 1) return `${Math.round(value * 1000)} ms`.replace(/^0 ms$/, "0");
  if (value < 60) return `${+value.toFixed(1)} s`;
  if (value < 7200) return `${+(value / 60).toFixed(1)} min`;
  return `${+(value / 3600).toFixed(1)} h`;
}

/** A time to come, which is never known to the second. */
export function about(value) {
  if (value == null || !Number.isFinite(value)) return "";
  if (value < 10) return "a few seconds";
  if (value < 90) return `about ${Math.round(value / 5) * 5} s`;
  if (value < 5400) return `about ${Math.round(value / 60)} min`;
  return `about ${(value / 3600).toFixed(1)} h`;
}

export const ago = (at, now) => `${spent(now - at)} ago`;

/** A time that goes on: in whole seconds. */
export const spent = (value) => (value < 59.5 ? `${Math.max(0, Math.round(value))} s` : seconds(Math.round(value)));

export const clock = (at) => (at ? CLOCK.format(at * 1000) : DASH);

export const minute = (at) => MINUTE.format(at * 1000);

export const moment = (at) => (at ? DAY.format(at * 1000) : DASH);

export const iso = (at) => (at ? new Date(at * 1000).toISOString() : "");

export function bytes(value) {
  if (value == null) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let power = 0;
  while (value >= 1000 && power < units.length - 1) [value, power] = [value / 1024, power + 1];
  return `${power && value < 99.5 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

/** A share of the whole; what is neither all nor nothing never looks as if it were. */
export function percent(share) {
  if (share == null || !Number.isFinite(share)) return DASH;
  if (share > 0 && share < 0.01) return "< 1 %";
  if (share < 1 && share > 0.99) return "> 99 %";
  return `${Math.round(share * 100)} %`;
}

export const milliseconds = (value) => (value == null ? DASH : value < 0.0995 ? `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms` : seconds(value));

export const short = (peer) => (peer ? `…${peer.slice(-6)}` : "");

/** A test's ID as where it lies and what it is called: "a/test_b.py::TestC::" and "test_d[1]". */
export function split(test) {
  const bracket = test.indexOf("[");
  const at = test.lastIndexOf("::", bracket < 0 ? undefined : bracket);
  return at < 0 ? ["", test] : [test.slice(0, at + 2), test.slice(at + 2)];
}

// Colours and other commands to a terminal (ECMA-48), also one that is not all there yet; and other control characters.
const ESCAPES = /\x1b\[[0-?]*[ -/]*(?:[@-~]|$)|\x1b[\]P^_X][^\x07\x1b\n]*(?:\x07|\x1b\\|$)|\x1b[ -/]*(?:[0-~]|$)/g;
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;

/** Of a line that was printed over itself, as progress is, what was printed last. */
export function lastPrinted(line) {
  let end = line.length;
  while (end && line[end - 1] === "\r") end--;
  return line.slice(line.lastIndexOf("\r", end - 1) + 1);
}

/** What a terminal would leave of a text: no commands, no colours. */
export const printed = (text) => text.split("\n").map(lastPrinted).join("\n").replace(ESCAPES, "").replace(CONTROLS, "");

export const OUTCOMES = ["passed", "failed", "error", "skipped", "xfailed", "xpassed"];

/** In the order of a bar: what is wrong first. */
export const BAR_ORDER = ["failed", "error", "passed", "xpassed", "xfailed", "skipped"];

export const OVER = new Set(["passed", "failed", "cancelled", "error"]);

/** Whether nothing is known of any of these tests: all are expected to take the same. */
export const areGuessed = (tests) => new Set(tests.map((test) => test.expected)).size < 2;

export const isOver = (run) => OVER.has(run.state);

export const bad = (run) => (run.counts?.failed ?? 0) + (run.counts?.error ?? 0);
