// The jobs' ledgers, how fast they grow, how far the jobs are behind, how old the newest features are, how many sessions are in progress.

import { byId, keep, make, named, number, say } from "./dom.js";
import { count, span, words } from "./format.js";

const OUTCOMES = ["good", "dead_letters", "late", "duplicates"];
const RATE_OVER_MS = 15_000;
const COLUMNS = ["Job", "In", "Per second", "Lag", "Lost", "Good", "Dead letters", "Late", "Duplicates", "Balance", "Watermark delay", "Last change"];
const samples = new Map(); // job → [{at, in}], the oldest at most RATE_OVER_MS before the newest

const isWell = (ledger) => !missing(ledger) && !ledger.lost;
const missing = (ledger) => (ledger.in ?? 0) - OUTCOMES.reduce((sum, name) => sum + (ledger[name] ?? 0), 0);

function rate(job, ledger) {
  const at = Date.parse(ledger.updated_at);
  const seen = (samples.get(job) ?? []).filter((sample) => sample.in <= ledger.in && at - sample.at <= RATE_OVER_MS);
  if (seen.at(-1)?.at !== at) seen.push({ at, in: ledger.in });
  samples.set(job, seen);
  const [first] = seen;
  if (Date.now() - at > RATE_OVER_MS) return 0;
  return at - first.at >= 1000 ? ((ledger.in - first.in) / (at - first.at)) * 1000 : null;
}

function share(ledger) {
  const bar = make("span", { class: "share", "aria-hidden": "true" });
  for (const name of OUTCOMES) {
    const part = make("i", { class: `part ${name}` });
    part.style.flexGrow = ledger.in ? (ledger[name] ?? 0) / ledger.in : 0;
    bar.append(part);
  }
  return bar;
}

function fill(tr, [job, ledger, progress]) {
  const lag = number(progress ? count(progress.lag) : "–");
  const delay = number(progress?.watermark_delay_s != null ? span(Math.max(0, progress.watermark_delay_s)) : "–");
  if (!ledger) { // it tells of itself somewhere else than in Redis
    const dashes = (...columns) => columns.map(() => number("–"));
    const rest = [...dashes("Lost", ...OUTCOMES), make("td", { class: "hint" }, "not in the store"), delay, ...dashes("Last change")];
    tr.replaceChildren(make("th", { scope: "row" }, job), ...dashes("In", "Per second"), lag, ...rest);
    return named(tr, COLUMNS);
  }
  const perSecond = rate(job, ledger);
  const off = missing(ledger);
  tr.replaceChildren(
    make("th", { scope: "row" }, job, share(ledger)),
    number(count(ledger.in ?? 0)),
    number(perSecond === null ? "…" : perSecond >= 10 ? count(Math.round(perSecond)) : perSecond.toFixed(1)),
    lag,
    make("td", { class: `number${ledger.lost ? " bad" : ""}` }, ledger.lost === undefined ? "–" : count(ledger.lost)),
    ...OUTCOMES.map((name) => number(count(ledger[name] ?? 0))),
    make("td", { class: off ? "bad" : "ok" }, off ? `${count(Math.abs(off))} ${off > 0 ? "missing" : "too many"}` : "✓ balances"),
    delay,
    number(ledger.updated_at ? `${span((Date.now() - Date.parse(ledger.updated_at)) / 1000)} ago` : "–"),
  );
  return named(tr, COLUMNS);
}

// What is known of all jobs together; of one whose ledger is elsewhere nothing is claimed.
function sumUp(ledgers, elsewhere) {
  const all = ledgers.map(([, ledger]) => ledger);
  const wrong = all.filter((ledger) => !isWell(ledger)).length;
  const lost = all.reduce((sum, ledger) => sum + (ledger.lost ?? 0), 0);
  if (!all.length) return ["no job has reported", ""];
  if (lost) return [`${count(lost)} lost before being read`, "bad"];
  if (wrong) return [`${wrong} of ${all.length} ledgers do not balance`, "bad"];
  if (elsewhere.length) return [`${all.length} of ${all.length + elsewhere.length} ledgers balance; not here: ${elsewhere.join(", ")}`, ""];
  return [all.length === 1 ? "one ledger, which balances" : `all ${all.length} ledgers balance`, "ok"];
}

export function showHealth(health) {
  if (!health.ledgers) return; // this server tells them to those who have a key
  const ledgers = Object.entries(health.ledgers);
  const progress = health.progress ?? {};
  const elsewhere = Object.keys(progress).filter((job) => !(job in health.ledgers));
  const jobs = [...ledgers, ...elsewhere.map((job) => [job])].map(([job, ledger]) => [job, ledger, progress[job]]);
  const empty = byId("health-empty");
  keep(
    byId("health-scroll").querySelector("tbody"),
    jobs,
    ([job]) => job,
    (row) => fill(make("tr"), row),
    fill,
  );
  byId("health-scroll").hidden = !jobs.length;
  empty.hidden = jobs.length > 0;
  say(empty, "No job has reported yet. “make demo” starts them all; a job's ledger appears a second after its first record.");
  say(byId("health-store"), `store answers in ${health.redis.latency_ms.toFixed(1)} ms`);

  say(byId("tile-sessions"), count(health.open_sessions));

  const total = ledgers.reduce((sum, [, ledger]) => sum + (ledger.in ?? 0), 0);
  const [summary, level] = sumUp(ledgers, elsewhere);
  say(byId("tile-ledger"), ledgers.length ? count(total) : "–");
  say(byId("tile-ledger-more"), summary);
  byId("tile-ledger-more").className = `hint ${level}`;

  const ages = Object.entries(health.freshness_s ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  byId("freshness").replaceChildren(
    ...ages.map(([family, age]) => make("div", null, make("dt", null, `Newest in ${words(family).toLowerCase()}`), make("dd", null, `${span(age)} ago`))),
  );
  const newest = ages.reduce((least, each) => (least && least[1] <= each[1] ? least : each), null);
  say(byId("tile-fresh"), newest ? `${span(newest[1])} ago` : "–");
  say(byId("tile-fresh-more"), newest ? `in ${words(newest[0]).toLowerCase()}` : "the store is empty");
}
