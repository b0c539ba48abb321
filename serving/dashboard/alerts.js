// The feed: newest alerts first, by rule if wanted, and the tile that counts them.

import { byId, keep, make, say, userLink } from "./dom.js";
import { clock, count, dateAndTime, money, moneyExact, plural, words } from "./format.js";

const KEPT = 2000;
const SHOWN = 60;
const ANNOUNCE_EVERY_MS = 5000;
const FRESH_MS = 10_000;
const RECENT_MS = 600_000;

export const level = (risk) => (risk >= 0.9 ? "critical" : risk >= 0.8 ? "high" : "medium");
export const badge = (risk) => make("span", { class: `badge ${level(risk)}` }, `risk ${risk.toFixed(2)}`);
// What a card shows: one that is corrected has another key, and is drawn anew.
const shownAs = (alert) => JSON.stringify([alert.alert_id, alert.timestamp, alert.amount, alert.currency, alert.description, alert.risk_score]);
export const alertLink = (alert) => `#alert/${encodeURIComponent(alert.user_id)}/${encodeURIComponent(alert.alert_id)}`;

function newestFirst(a, b) {
  if (a.timestamp !== b.timestamp) return a.timestamp < b.timestamp ? 1 : -1;
  return a.alert_id < b.alert_id ? 1 : -1;
}

function card(alert, isFresh) {
  const title = make("a", { class: "cover", href: alertLink(alert) }, words(alert.alert_type));
  const time = make("time", { datetime: alert.timestamp, title: dateAndTime(alert.timestamp) }, clock(alert.timestamp));
  const item = make(
    "li",
    { class: `alert ${level(alert.risk_score)}${isFresh ? " fresh" : ""}` },
    make("p", { class: "line" }, title, make("span", { class: "amount" }, moneyExact(alert.amount, alert.currency))),
    make("p", { class: "line hint" }, make("span", null, userLink(alert.user_id)), time),
    make("p", { class: "line hint" }, make("span", null, alert.description), badge(alert.risk_score)),
  );
  if (isFresh) setTimeout(() => item.classList.remove("fresh"), FRESH_MS);
  return item;
}

export function makeFeed() {
  const panel = byId("alerts");
  const list = panel.querySelector("ol");
  const empty = panel.querySelector(".empty");
  const chips = byId("rules");
  const pause = byId("pause");
  const announcer = byId("announce");
  const alerts = new Map(); // by id
  const unseen = new Set(); // came after the first answer, and are to be shown as new
  let begun = false;
  let isCut = false; // whether the store may hold more recent alerts than we have
  let rule = null;
  let isPaused = false;
  let isDue = false;
  let unannounced = [];

  function add(rows) {
    let isChanged = false;
    for (const alert of rows) {
      const known = alerts.get(alert.alert_id);
      if (known && shownAs(known) === shownAs(alert)) continue;
      alerts.set(alert.alert_id, alert); // one that is known comes again when its order was corrected
      isChanged = true;
      if (begun && !known) {
        unseen.add(alert.alert_id);
        unannounced.push(alert);
      }
    }
    if (isChanged) drawSoon();
  }

  // Alerts come in bursts: once a frame is enough.
  function drawSoon() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(draw);
  }

  function draw() {
    isDue = false;
    const sorted = [...alerts.values()].sort(newestFirst);
    for (const old of sorted.splice(KEPT)) alerts.delete(old.alert_id);
    drawTile(sorted);
    if (isPaused) {
      say(pause, unseen.size ? `Resume (${count(unseen.size)} new)` : "Resume");
      return;
    }
    say(pause, "Pause");
    drawChips(sorted);
    const wanted = rule ? sorted.filter((alert) => alert.alert_type === rule) : sorted;
    keep(list, wanted.slice(0, SHOWN), shownAs, (alert) => card(alert, unseen.has(alert.alert_id)));
    unseen.clear();
    list.hidden = !wanted.length;
    empty.hidden = wanted.length > 0;
    say(
      empty,
      rule
        ? `No alerts of this rule among the newest ${count(sorted.length)}.`
        : "No alerts yet. “make demo” generates traffic with planted fraud; an alert appears here within a second of the order that completes a pattern.",
    );
  }

  function drawChips(sorted) {
    const counts = new Map();
    for (const alert of sorted) counts.set(alert.alert_type, (counts.get(alert.alert_type) ?? 0) + 1);
    if (rule && !counts.has(rule)) counts.set(rule, 0);
    const wanted = [[null, sorted.length], ...[...counts].sort(([a], [b]) => (a < b ? -1 : 1))];
    const label = ([name, n]) => `${name ? words(name) : "All"} ${count(n)}`;
    keep(
      chips,
      wanted,
      ([name]) => name ?? "",
      (row) => {
        const chip = make("button", { type: "button", class: "chip", "aria-pressed": String(row[0] === rule) }, label(row));
        chip.addEventListener("click", () => {
          rule = row[0];
          draw();
        });
        return chip;
      },
      (chip, row) => {
        say(chip, label(row));
        chip.setAttribute("aria-pressed", String(row[0] === rule));
      },
    );
  }

  function drawTile(sorted) {
    const since = new Date(Date.now() - RECENT_MS).toISOString();
    const recent = sorted.filter((alert) => alert.timestamp >= since);
    const isAll = !isCut || recent.length < sorted.length;
    const worth = new Map(); // by currency, never added
    for (const alert of recent) worth.set(alert.currency, (worth.get(alert.currency) ?? 0) + alert.amount);
    const amounts = [...worth].sort(([a], [b]) => (a < b ? -1 : 1)).map(([currency, sum]) => money(sum, currency));
    say(byId("tile-alerts"), `${count(recent.length)}${isAll ? "" : "+"}`);
    say(byId("tile-alerts-more"), recent.length ? `orders worth ${amounts.join(", ")}` : "none");
  }

  function announce() {
    if (!unannounced.length) return;
    const [newest] = unannounced.sort(newestFirst);
    const what = `${words(newest.alert_type)}, user ${newest.user_id}, ${moneyExact(newest.amount, newest.currency)}`;
    const more = unannounced.length > 1 ? `${plural(unannounced.length, "new alert")}; the newest: ` : "New alert: ";
    unannounced = [];
    if (!isPaused) announcer.textContent = more + what;
  }

  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    draw();
  });
  setInterval(announce, ANNOUNCE_EVERY_MS);

  return {
    add,
    // What the list answered; more of it than we have asked for may be in the store.
    addPage(answer) {
      isCut ||= !begun && answer.next_cursor !== null;
      add(answer.data);
      begun = true;
      draw();
    },
    find: (alertId) => alerts.get(alertId),
    tick: () => begun && drawSoon(), // the clock moves the last ten minutes on
  };
}
