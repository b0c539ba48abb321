// What is behind an alert or a user, as a drawer. The address says what is open (#alert/USER/ID, #user/ID), so it can be
// linked to, and Back closes it.
//
// Long, as it is one drawer: both kinds share its sections.

import { alertLink, badge } from "./alerts.js";
import { ask } from "./api.js";
import { byId, cells, make, number, say, userLink } from "./dom.js";
import { count, dateAndTime, moneyExact, plural, shortDateAndTime, span, words } from "./format.js";
import { NAMES, onStates, setState, stateOf, takeStates } from "./states.js";
import { timeline } from "./timeline.js";

const SESSIONS = 10;
const ALERTS = 100;
const ORDERS = 50;

const fact = (name, ...value) => make("div", null, make("dt", null, name), make("dd", null, ...value));
const section = (title, ...content) => make("section", null, make("h3", null, title), ...content);
const time = (text) => make("time", { datetime: text, title: dateAndTime(text) }, dateAndTime(text));
const hint = (text) => make("p", { class: "hint" }, text);

function table(heads, rows) {
  const head = make("tr", null, ...heads.map(([text, kind]) => make("th", { scope: "col", class: kind }, text)));
  return make("div", { class: "scroll" }, make("table", null, make("thead", null, head), make("tbody", null, ...rows)));
}

const idsBehind = (alert) => (alert.related_events.includes(alert.order_id) ? alert.related_events : [...alert.related_events, alert.order_id]);

// Of a user's orders by id: those of the last day, and those that completed a pattern.
function knownOrders(user) {
  const known = new Map(user.alerts.map((a) => [a.order_id, { order_id: a.order_id, timestamp: a.timestamp, amount: a.amount, currency: a.currency }]));
  for (const order of user.orders) known.set(order.order_id, order);
  return known;
}

// The store keeps the orders of a day; of older ones that completed no pattern only the id is left.
function ordersBehind(alert, known) {
  const ids = idsBehind(alert);
  const picture = timeline([...known.values()], new Set(ids));
  const list = make(
    "ol",
    { class: "orders" },
    ...ids.map((id) => {
      const order = known.get(id);
      return make(
        "li",
        null,
        make("p", { class: "line" }, make("code", null, id), make("span", null, order ? moneyExact(order.amount, order.currency) : "")),
        make(
          "p",
          { class: "line hint" },
          make("span", null, order ? dateAndTime(order.timestamp) : "no longer in the store", order?.region ? `, ${order.region}` : ""),
          make("span", null, id === alert.order_id ? "completes the pattern" : ""),
        ),
      );
    }),
  );
  return make("div", null, picture, list);
}

// What the team says of the alert.
function judgement(alert, mayLabel) {
  const { state, by, at, note } = stateOf(alert.alert_id);
  const fault = make("p", { class: "bad", role: "alert" });
  const why = make("input", { type: "text", maxlength: "500", "aria-label": "Note", placeholder: "Note (optional)", autocomplete: "off" });
  if (note) why.value = note;
  const choice = (name, key, words) => {
    const button = make("button", { type: "button", "data-state": name, "aria-pressed": String(state === name), "aria-keyshortcuts": key }, words);
    button.addEventListener("click", async () => {
      fault.textContent = "";
      await setState(alert, name, why.value).catch((error) => (fault.textContent = `Not kept: ${error.message}.`));
    });
    return button;
  };
  const who = state === "new" && !at ? "nobody has looked at it yet" : [by ? `by ${by}` : "", at ? dateAndTime(at) : ""].filter(Boolean).join(", ");
  return make(
    "section",
    { id: "judgement", "aria-label": "State" },
    make("p", { class: "line" }, make("strong", { class: `state ${state}` }, NAMES[state]), make("span", { class: "hint" }, who)),
    ...(note ? [make("p", { class: "note" }, note)] : []),
    ...(mayLabel
      ? [
          make("div", { class: "choices" }, choice("confirmed", "c", "Confirm fraud"), choice("false_alarm", "f", "False alarm"), choice("new", "n", "Back to new")),
          why,
          fault,
        ]
      : [hint("To say what it is you need a key of the scope label: python -m serving.keys new NAME --scope=read --scope=label")]),
  );
}

function ofOrders(orders) {
  if (!orders.length) return hint("None in the store, which keeps the orders of one day, for a week after the user was last seen.");
  const heads = [["Time"], ["Order"], ["Amount", "number"], ["Region"]];
  const rows = orders.slice(0, ORDERS).map((o) =>
    make("tr", null, ...cells(shortDateAndTime(o.timestamp)), make("td", null, make("code", null, o.order_id)), number(moneyExact(o.amount, o.currency)), ...cells(o.region ?? "–")),
  );
  const rest = orders.length > ORDERS ? hint(`The newest ${count(ORDERS)} of ${count(orders.length)}; all are in the JSON below.`) : null;
  return make("div", null, table(heads, rows), rest);
}

function ofAlert(alert) {
  return make(
    "div",
    null,
    make("p", null, badge(alert.risk_score), " ", alert.description),
    make(
      "dl",
      { class: "facts" },
      fact("Amount", moneyExact(alert.amount, alert.currency)),
      fact("Order time", time(alert.timestamp)),
      fact("User", userLink(alert.user_id)),
      fact("Alert", make("code", null, alert.alert_id)),
    ),
  );
}

// In each currency, never added.
function spent(features, span) {
  const each = Object.entries(features.spend_by_currency ?? {}).filter(([, spend]) => spend[span]);
  if (!each.length) return moneyExact(features[span], features.currency);
  return each.map(([currency, spend]) => moneyExact(spend[span], currency)).join(", ");
}

function ofUser(features) {
  return make(
    "dl",
    { class: "facts" },
    fact("Orders, 1 h", count(features.orders_1h)),
    fact("Spend, 1 h", spent(features, "spend_1h")),
    fact("Orders, 24 h", count(features.orders_24h)),
    fact("Spend, 24 h", spent(features, "spend_24h")),
    fact("Alerts kept", count(features.alerts)),
    fact("Last seen", features.last_seen ? time(features.last_seen) : "–"),
  );
}

function ofSessions(sessions) {
  if (!sessions.length) return hint("No sessions in the store, which keeps them for a week after the user was last seen.");
  const heads = [["Began"], ["Duration", "number"], ["Pages", "number"], ["In cart", "number"], ["Revenue", "number"], ["Source"]];
  return table(
    heads,
    sessions.map((s) =>
      make(
        "tr",
        null,
        ...cells(shortDateAndTime(s.start_time)),
        number(`${span(s.duration_seconds)}${s.open ? ", open" : ""}`),
        number(count(s.page_views + s.product_views)),
        number(count(s.add_to_carts)),
        number(s.purchases ? moneyExact(s.revenue, s.currency) : "–"),
        ...cells(`${s.device_type}, ${s.geo_region}`),
      ),
    ),
  );
}

function ofAlerts(alerts, isCut, but) {
  const others = alerts.filter((alert) => alert.alert_id !== but?.alert_id);
  if (!others.length) return hint(but ? "No others." : "None.");
  const more = isCut ? [hint(`The newest ${count(alerts.length)}; there are more.`)] : [];
  const said = (alert) => (stateOf(alert.alert_id).state === "new" ? "" : `, ${NAMES[stateOf(alert.alert_id).state].toLowerCase()}`);
  const list = make(
    "ul",
    { class: "plain" },
    ...others.map((alert) =>
      make(
        "li",
        { class: "line" },
        make("a", { href: alertLink(alert) }, words(alert.alert_type)),
        make("span", { class: "hint" }, `${shortDateAndTime(alert.timestamp)}, ${moneyExact(alert.amount, alert.currency)}${said(alert)}`),
      ),
    ),
  );
  return make("div", null, list, ...more);
}

async function about(userId) {
  // By query and body: a browser takes `.` and `..` out of a path, encoded or not.
  const id = encodeURIComponent(userId);
  const [features, sessions, alerts, orders, info] = await Promise.all([
    ask("/features", { user_ids: [userId] }),
    ask(`/sessions?limit=${SESSIONS}&user_id=${id}`),
    ask(`/fraud-alerts?limit=${ALERTS}&user_id=${id}`),
    ask(`/orders?user_id=${id}`),
    ask("/info"),
  ]);
  takeStates(alerts.data);
  return {
    features: features.data[0],
    sessions: sessions.data,
    hasMoreSessions: sessions.next_cursor !== null,
    alerts: alerts.data,
    hasMoreAlerts: alerts.next_cursor !== null,
    orders: orders.data,
    mayLabel: info.data.may_label,
  };
}

function links(userId) {
  const id = encodeURIComponent(userId);
  const link = (kind) => make("a", { href: `/api/v1/${kind}?user_id=${id}` }, kind);
  const features = make("a", { href: `/api/v1/features/${id}` }, "features");
  const isDots = userId === "." || userId === ".."; // as above
  return make("p", { class: "hint" }, "As JSON: ", ...(isDots ? [] : [features, ", "]), link("orders"), ", ", link("sessions"), ", ", link("fraud-alerts"));
}

export function makeDetail(findAlert) {
  const dialog = byId("detail");
  const title = byId("detail-title");
  const body = byId("detail-body");
  let judged = null; // the alert that is shown, and whether the reader may label it
  let shown = 0; // an answer that comes after something else was opened is dropped

  async function open(kind, userId, alertId) {
    shown += 1;
    const mine = shown;
    let alert = kind === "alert" ? findAlert(alertId) : null;
    judged = null;
    say(title, alert ? words(alert.alert_type) : kind === "alert" ? "Alert" : userId);
    body.replaceChildren(...(alert ? [ofAlert(alert)] : []), hint("Loading…"));
    if (!dialog.open) dialog.showModal();
    title.focus();
    try {
      const user = await about(userId);
      if (mine !== shown) return;
      if (kind === "alert") {
        alert ??= user.alerts.find((each) => each.alert_id === alertId);
        say(title, alert ? words(alert.alert_type) : "Alert");
      }
      judged = alert && { alert, mayLabel: user.mayLabel };
      const isUnknown = !user.features && !user.alerts.length && !user.sessions.length && !user.orders.length;
      const whose = kind === "alert" ? make("a", { href: `#user/${encodeURIComponent(userId)}` }, `User ${userId}`) : "Features";
      const unknown = hint("The store knows nothing of this user: check the id, or they were last seen more than a week ago.");
      body.replaceChildren(
        ...(kind === "alert" ? (alert ? [ofAlert(alert), judgement(alert, user.mayLabel)] : [hint("The store no longer holds this alert.")]) : []),
        ...(alert ? [section(plural(idsBehind(alert).length, "order"), ordersBehind(alert, knownOrders(user)))] : []),
        section(whose, user.features ? ofUser(user.features) : isUnknown ? unknown : hint("No features.")),
        ...(kind === "user" ? [section("Orders of the last day", ofOrders(user.orders))] : []),
        section(user.hasMoreSessions ? `Latest ${SESSIONS} sessions` : "Latest sessions", ofSessions(user.sessions)),
        section(alert ? "Other alerts of this user" : "Alerts", ofAlerts(user.alerts, user.hasMoreAlerts, alert)),
        links(userId),
      );
    } catch (error) {
      if (mine === shown) body.lastElementChild.replaceWith(hint(`Failed to load: ${error.message}. Close this and open it again.`));
    }
  }

  function follow() {
    const [kind, ...ids] = location.hash.slice(1).split("/");
    let names;
    try {
      names = ids.map(decodeURIComponent);
    } catch {
      names = []; // not an address of ours
    }
    if (kind === "alert" && names.length === 2) open("alert", ...names);
    else if (kind === "user" && names.length === 1) open("user", ...names);
    else dialog.close();
  }

  dialog.addEventListener("close", () => {
    shown += 1;
    judged = null;
    if (/^#(alert|user)\//.test(location.hash)) history.pushState(null, "", location.pathname + location.search);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  byId("detail-close").addEventListener("click", () => dialog.close());
  // Only what the team says is drawn anew.
  onStates((ids) => {
    if (!judged || !ids.has(judged.alert.alert_id)) return;
    const old = byId("judgement");
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    old.replaceWith(judgement(judged.alert, judged.mayLabel));
    if (!focused) return;
    const same = byId("judgement").querySelector(focused.dataset.state ? `[data-state="${focused.dataset.state}"]` : "input");
    if (same.matches("input")) same.value = focused.value; // somebody else's word comes while one is written
    same.focus();
  });
  addEventListener("hashchange", follow);
  addEventListener("popstate", follow);
  follow();
}
