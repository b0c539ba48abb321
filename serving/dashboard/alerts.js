// The feed: newest alerts first, by rule, state and text if wanted, and the tile that counts them.

import { filters, setFilter } from "./address.js";
import { byId, keep, make, say, userLink } from "./dom.js";
import { count, dateAndTime, money, moneyExact, plural, when, words } from "./format.js";
import { NAMES, onStates, stateOf, takeStates } from "./states.js";

const KEPT = 10_000; // as the store
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
  const time = make("time", { datetime: alert.timestamp, title: dateAndTime(alert.timestamp) }, when(alert.timestamp));
  const item = make(
    "li",
    { class: `alert ${level(alert.risk_score)}${isFresh ? " fresh" : ""}` },
    make("p", { class: "line" }, title, make("span", { class: "amount" }, moneyExact(alert.amount, alert.currency))),
    make("p", { class: "line hint" }, make("span", null, userLink(alert.user_id)), time),
    make("p", { class: "line hint" }, make("span", null, alert.description), make("span", null, make("span", { class: "state" }), " ", badge(alert.risk_score))),
  );
  showState(item, alert);
  if (isFresh) setTimeout(() => item.classList.remove("fresh"), FRESH_MS);
  return item;
}

function showState(item, alert) {
  const { state, by } = stateOf(alert.alert_id);
  item.dataset.state = state;
  const mark = item.querySelector(".state");
  mark.title = by ? `by ${by}` : "";
  say(mark, state === "new" ? "" : NAMES[state]);
}

const contains = (alert, text) =>
  [alert.user_id, alert.order_id, alert.alert_id, ...alert.related_events].some((id) => id.toLowerCase().includes(text));

// Args: more(): asks for the alerts before the oldest that is here; resolves to an answer as of addPage.
export function makeFeed(more) {
  const panel = byId("alerts");
  const list = panel.querySelector("ol");
  const empty = panel.querySelector(".empty");
  const chips = byId("rules");
  const search = byId("search");
  const stateFilter = byId("state-filter");
  const shown = byId("alerts-shown");
  const older = byId("older");
  const pause = byId("pause");
  const announcer = byId("announce");
  const alerts = new Map(); // by id
  const unseen = new Set(); // came after the first answer, and are to be shown as new
  let begun = false;
  let next = null; // cursor of the alerts before those that are here; null when there are none
  let longest = 0; // the list that was answered with the most alerts: it knows what is before them
  let most = SHOWN;
  let all = 0; // that are like what is wanted, of those that are here
  let wanted = { rule: "", state: "", q: "" };
  let isPaused = false;
  let isDue = false;
  let unannounced = [];

  function add(rows) {
    let isChanged = false;
    takeStates(rows);
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
    const text = wanted.q.trim().toLowerCase();
    const others = sorted.filter(
      (alert) => (!wanted.state || stateOf(alert.alert_id).state === wanted.state) && (!text || contains(alert, text)),
    );
    drawChips(others);
    const found = wanted.rule ? others.filter((alert) => alert.alert_type === wanted.rule) : others;
    keep(list, found.slice(0, most), shownAs, (alert) => card(alert, unseen.has(alert.alert_id)), showState);
    unseen.clear();
    list.hidden = !found.length;
    empty.hidden = found.length > 0;
    if (!sorted.length) {
      say(empty, "No alerts yet. “make demo” generates traffic with planted fraud; an alert appears here within a second of the order that completes a pattern.");
    } else if (!found.length) {
      const user = text && make("a", { href: `#user/${encodeURIComponent(wanted.q.trim())}` }, `Open user ${wanted.q.trim()}`);
      empty.replaceChildren(`None of the newest ${count(sorted.length)} alerts is like that. `, ...(user ? [user, " "] : []), resetButton());
    }
    all = found.length;
    const isAll = found.length <= most && !next;
    say(shown, found.length ? `${count(Math.min(most, found.length))} of ${count(found.length)}${next ? ` among the newest ${count(sorted.length)}` : ""}` : "");
    older.hidden = isAll;
    say(older, found.length > most ? "Show more" : "Look further back");
  }

  function resetButton() {
    const button = make("button", { type: "button", class: "quiet" }, "Show all alerts");
    button.addEventListener("click", () => choose({ rule: "", state: "", q: "" }));
    return button;
  }

  function choose(changed) {
    for (const [name, value] of Object.entries(changed)) setFilter(name, value);
    readAddress();
  }

  function readAddress() {
    wanted = filters();
    if (search.value !== wanted.q) search.value = wanted.q;
    stateFilter.value = wanted.state in NAMES ? wanted.state : "";
    most = SHOWN;
    if (begun) draw();
  }

  function drawChips(sorted) {
    const counts = new Map();
    for (const alert of sorted) counts.set(alert.alert_type, (counts.get(alert.alert_type) ?? 0) + 1);
    if (wanted.rule && !counts.has(wanted.rule)) counts.set(wanted.rule, 0);
    const rows = [["", sorted.length], ...[...counts].sort(([a], [b]) => (a < b ? -1 : 1))];
    // The store may have more than is here.
    const label = ([name, n]) => `${name ? words(name) : "All"} ${count(n)}${next ? "+" : ""}`;
    const renew = (chip, row) => {
      say(chip, label(row));
      chip.setAttribute("aria-pressed", String(row[0] === wanted.rule));
    };
    const build = (row) => {
      const chip = make("button", { type: "button", class: "chip" });
      chip.addEventListener("click", () => choose({ rule: row[0] }));
      renew(chip, row);
      return chip;
    };
    keep(chips, rows, ([name]) => name, build, renew);
  }

  function drawTile(sorted) {
    const since = new Date(Date.now() - RECENT_MS).toISOString();
    const recent = sorted.filter((alert) => alert.timestamp >= since);
    const isAll = !next || recent.length < sorted.length;
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
  search.addEventListener("input", () => choose({ q: search.value }));
  stateFilter.addEventListener("change", () => choose({ state: stateFilter.value }));
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const first = list.hidden ? empty.querySelector("a") : list.querySelector(".cover");
    if (search.value.trim()) first?.click(); // the user of that id, if no alert has it
  });
  older.addEventListener("click", async () => {
    if (all > most) most *= 2;
    if (next && all <= most) {
      older.disabled = true;
      const answer = await more(next).catch(() => null);
      older.disabled = false;
      if (answer) {
        next = alerts.size + answer.data.length < KEPT ? answer.next_cursor : null;
        begun = false; // old ones are no news
        add(answer.data);
        begun = true;
      }
    }
    draw();
  });
  addEventListener("popstate", readAddress);
  onStates(() => begun && drawSoon());
  readAddress();
  setInterval(announce, ANNOUNCE_EVERY_MS);

  return {
    add,
    // What the list answered; more of it than we have asked for may be in the store.
    addPage(answer) {
      if (!begun || answer.data.length > longest) {
        next = answer.next_cursor;
        longest = answer.data.length;
      }
      add(answer.data);
      begun = true;
      draw();
    },
    find: (alertId) => alerts.get(alertId),
    tick: () => begun && drawSoon(), // the clock moves the last ten minutes on
  };
}
