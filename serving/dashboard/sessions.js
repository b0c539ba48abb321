// Who is on the site now: of those who came last, the busiest, as most have only just begun.

import { byId, keep, make, named, number, say, userLink } from "./dom.js";
import { count, money, span, when } from "./format.js";

const SHOWN = 12;

const texts = (session) => [
  when(session.start_time),
  span(session.duration_seconds),
  count(session.page_views),
  count(session.product_views),
  count(session.add_to_carts),
  session.purchases ? money(session.revenue, session.currency) : "–",
  session.primary_category ?? "–",
  `${session.device_type}, ${session.geo_region}`,
];
const COLUMNS = ["User", "Began", "Duration", "Pages", "Products", "In cart", "Revenue", "Category", "Source"];
const NUMBERS = new Set([1, 2, 3, 4, 5]);

function row(session) {
  const others = texts(session).map((text, i) => (NUMBERS.has(i) ? number(text) : make("td", null, text)));
  return named(make("tr", null, make("td", null, userLink(session.user_id)), ...others), COLUMNS);
}

function renew(tr, session) {
  texts(session).forEach((text, i) => say(tr.cells[i + 1], text));
}

const busiestFirst = (a, b) =>
  b.purchases - a.purchases ||
  b.add_to_carts - a.add_to_carts ||
  b.page_views + b.product_views - a.page_views - a.product_views;

export function showSessions(sessions) {
  const panel = byId("sessions");
  const empty = panel.querySelector(".empty");
  keep(panel.querySelector("tbody"), [...sessions].sort(busiestFirst).slice(0, SHOWN), (s) => s.session_id, row, renew);
  say(byId("sessions-shown"), sessions.length > SHOWN ? `busiest of the newest ${count(sessions.length)}` : "");
  panel.querySelector(".scroll").hidden = !sessions.length;
  empty.hidden = sessions.length > 0;
  say(empty, "Nobody is on the site. “make demo” generates visitors.");

  const [newest] = sessions;
  say(byId("tile-sessions-more"), newest ? `latest began ${when(newest.start_time)}` : "nobody on the site");
}
