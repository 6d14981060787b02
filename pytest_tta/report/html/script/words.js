// Write numbers and states as a person reads them.

const STATUS = {
  ok: { word: "ok", icon: "tick" },
  failed: { word: "failed", icon: "cross" },
  timed_out: { word: "timed out", icon: "clock" },
  cancelled: { word: "cancelled", icon: "cancelled" },
  unfinished: { word: "unfinished", icon: "dots" },
};

const OUTCOME = {
  failed: { icon: "cross", tone: "failed" },
  error: { icon: "trouble", tone: "failed" },
  passed: { icon: "tick", tone: "passed" },
  skipped: { icon: "skip", tone: "cancelled" },
};

const UNITS = [
  [86400, "d", 3600, "h"],
  [3600, "h", 60, "m"],
  [60, "m", 1, "s"],
];

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** Return a duration with two units at most: "350 ms", "1.25 s", "2 m 05 s". */
function inSeconds(value, precision) {
  if (!isNumber(value)) return value === null ? "" : String(value);
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  if (size < 1e-3) return `${digits(value * 1e6, precision)} µs`;
  if (size < 1) return `${digits(value * 1e3, precision)} ms`;
  const unit = UNITS.find(([seconds]) => size >= seconds);
  return unit ? inTwo(value, unit) : `${digits(value, precision)} s`;
}

function inTwo(value, [large, name, small, rest]) {
  let whole = Math.floor(Math.abs(value) / large);
  let left = Math.round((Math.abs(value) % large) / small);
  if (left * small >= large) [whole, left] = [whole + 1, 0];
  const sign = value < 0 ? "-" : "";
  if (!left) return `${sign}${whole} ${name}`;
  return `${sign}${whole} ${name} ${String(left).padStart(2, "0")} ${rest}`;
}

function digits(value, precision) {
  return String(Number(value.toPrecision(precision || 3)));
}

/** Return a moment exactly enough for a distance: "250 ms", "12.5 s", "1:00:01". */
function asMoment(value, distance) {
  if (Math.abs(value) < 60) return inSeconds(Number(value.toPrecision(9)), 9);
  const places = clamped(Math.ceil(-Math.log10(distance || 1) - 1e-9), 0, 6);
  const rounded = Number(value.toFixed(places));
  const days = Math.floor(rounded / 86400);
  const hours = Math.floor((rounded % 86400) / 3600);
  const minutes = Math.floor((rounded % 3600) / 60);
  const seconds = (rounded % 60).toFixed(places).padStart(places ? places + 3 : 2, "0");
  const padded = days || hours ? String(minutes).padStart(2, "0") : minutes;
  const clock = [...(days || hours ? [hours] : []), padded, seconds].join(":");
  return days ? `${days} d ${clock}` : clock;
}

/** Return a number of things: "1 call", "2 calls", "10,000 calls". */
function count(number, one, many) {
  const shown = number.toLocaleString("en-US");
  return `${shown} ${number === 1 ? one : many || `${one}s`}`;
}

/** Return a distance between the labels of an axis that people like to read. */
function step(least) {
  const seconds = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800];
  const hours = [3600, 7200, 10800, 21600, 43200, 86400];
  const found = [...seconds, ...hours].find((one) => one >= least);
  if (least > 0.5 && found) return found;
  const unit = least > 86400 ? 86400 : 1;
  const power = 10 ** Math.floor(Math.log10(least / unit));
  return unit * power * [1, 2, 5, 10].find((one) => one * power * unit >= least * 0.999);
}

/** Return the name of a test without its file, and the file. */
function nameOf(test) {
  const at = test.node_id.indexOf("::");
  if (at < 0) return [test.node_id, ""];
  return [test.node_id.slice(at + 2).split("::").join(" · "), test.node_id.slice(0, at)];
}

/** Return the line of a failure that says what is wrong. */
function headline(test) {
  const lines = test.failure.split("\n");
  const marked = lines.find((line) => /^E\s+\S/.test(line));
  if (marked) return marked.replace(/^E\s+/, "");
  return lines.filter((line) => line.trim()).pop() || "";
}
