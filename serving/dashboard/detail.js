// What is behind an alert or a user, as a drawer. The address says what is open (#alert/USER/ID, #user/ID), so it can be
// linked to, and Back closes it.

import { alertLink, badge } from "./alerts.js";
import { ask } from "./api.js";
import { byId, cells, make, number, say, userLink } from "./dom.js";
import { clock, count, dateAndTime, moneyExact, plural, span, words } from "./format.js";

const SESSIONS = 5;
const ALERTS = 100;

const fact = (name, ...value) => make("div", null, make("dt", null, name), make("dd", null, ...value));
const section = (title, ...content) => make("section", null, make("h3", null, title), ...content);
const time = (text) => make("time", { datetime: text, title: dateAndTime(text) }, dateAndTime(text));
const hint = (text) => make("p", { class: "hint" }, text);

function table(heads, rows) {
  const head = make("tr", null, ...heads.map(([text, kind]) => make("th", { scope: "col", class: kind }, text)));
  return make("div", { class: "scroll" }, make("table", null, make("thead", null, head), make("tbody", null, ...rows)));
}

// The API tells time and amount of those orders that completed a pattern, of the others the id.
function ordersBehind(alert, known) {
  const ids = alert.related_events.includes(alert.order_id) ? alert.related_events : [...alert.related_events, alert.order_id];
  return make(
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
          make("span", null, order ? clock(order.timestamp) : ""),
          make("span", null, id === alert.order_id ? "completes the pattern" : ""),
        ),
      );
    }),
  );
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
  if (!sessions.length) return hint("No sessions in the last week.");
  const heads = [["Began"], ["Duration", "number"], ["Pages", "number"], ["In cart", "number"], ["Revenue", "number"], ["Source"]];
  return table(
    heads,
    sessions.map((s) =>
      make(
        "tr",
        null,
        ...cells(dateAndTime(s.start_time)),
        number(`${span(s.duration_seconds)}${s.open ? ", open" : ""}`),
        number(count(s.page_views + s.product_views)),
        number(count(s.add_to_carts)),
        number(s.purchases ? moneyExact(s.revenue, s.currency) : "–"),
        ...cells(`${s.device_type}, ${s.geo_region}`),
      ),
    ),
  );
}

function ofAlerts(alerts, but) {
  const others = alerts.filter((alert) => alert.alert_id !== but?.alert_id);
  if (!others.length) return hint(but ? "No others." : "None.");
  return make(
    "ul",
    { class: "plain" },
    ...others.map((alert) =>
      make(
        "li",
        { class: "line" },
        make("a", { href: alertLink(alert) }, words(alert.alert_type)),
        make("span", { class: "hint" }, `${dateAndTime(alert.timestamp)}, ${moneyExact(alert.amount, alert.currency)}`),
      ),
    ),
  );
}

async function about(userId) {
  // By query and body: a browser takes `.` and `..` out of a path, encoded or not.
  const id = encodeURIComponent(userId);
  const [features, sessions, alerts] = await Promise.all([
    ask("/features", { user_ids: [userId] }),
    ask(`/sessions?limit=${SESSIONS}&user_id=${id}`),
    ask(`/fraud-alerts?limit=${ALERTS}&user_id=${id}`),
  ]);
  return { features: features.data[0], sessions: sessions.data, alerts: alerts.data };
}

function links(userId) {
  const id = encodeURIComponent(userId);
  const link = (kind) => make("a", { href: `/api/v1/${kind}?user_id=${id}` }, kind);
  const features = make("a", { href: `/api/v1/features/${id}` }, "features");
  const isDots = userId === "." || userId === ".."; // as above
  return make("p", { class: "hint" }, "As JSON: ", ...(isDots ? [] : [features, ", "]), link("sessions"), ", ", link("fraud-alerts"));
}

export function makeDetail(findAlert) {
  const dialog = byId("detail");
  const title = byId("detail-title");
  const body = byId("detail-body");
  let shown = 0; // an answer that comes after something else was opened is dropped

  async function open(kind, userId, alertId) {
    shown += 1;
    const mine = shown;
    let alert = kind === "alert" ? findAlert(alertId) : null;
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
      const known = new Map(user.alerts.map((each) => [each.order_id, each]));
      body.replaceChildren(
        ...(kind === "alert" ? (alert ? [ofAlert(alert)] : [hint("The store no longer holds this alert.")]) : []),
        ...(alert ? [section(plural(alert.related_events.length, "related order"), ordersBehind(alert, known))] : []),
        section(kind === "alert" ? `User ${userId}` : "Features", user.features ? ofUser(user.features) : hint("Unknown user.")),
        section("Latest sessions", ofSessions(user.sessions)),
        section(alert ? "Other alerts of this user" : "Alerts", ofAlerts(user.alerts, alert)),
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
    if (/^#(alert|user)\//.test(location.hash)) history.pushState(null, "", location.pathname);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  byId("detail-close").addEventListener("click", () => dialog.close());
  addEventListener("hashchange", follow);
  addEventListener("popstate", follow);
  follow();
}
