// Who is on the site now: of those who came last, the busiest, as most have only just begun.

import { byId, cells, keep, make, number, say, userLink } from "./dom.js";
import { clock, count, money, span } from "./format.js";

const SHOWN = 12;

function row(session) {
  return make(
    "tr",
    null,
    make("td", null, userLink(session.user_id)),
    ...cells(clock(session.start_time)),
    number(span(session.duration_seconds)),
    number(count(session.page_views)),
    number(count(session.product_views)),
    number(count(session.add_to_carts)),
    number(session.purchases ? money(session.revenue) : "–"),
    ...cells(session.primary_category ?? "–", `${session.device_type}, ${session.geo_region}`),
  );
}

// A session that goes on is a new row: its key holds what can change.
const key = (s) => [s.session_id, s.end_time, s.page_views, s.product_views, s.add_to_carts, s.purchases].join(" ");

const busiestFirst = (a, b) =>
  b.purchases - a.purchases ||
  b.add_to_carts - a.add_to_carts ||
  b.page_views + b.product_views - a.page_views - a.product_views;

export function showSessions(sessions) {
  const panel = byId("sessions");
  const empty = panel.querySelector(".empty");
  keep(panel.querySelector("tbody"), [...sessions].sort(busiestFirst).slice(0, SHOWN), key, row);
  say(byId("sessions-shown"), sessions.length > SHOWN ? `the busiest of the newest ${count(sessions.length)}` : "");
  panel.querySelector(".scroll").hidden = !sessions.length;
  empty.hidden = sessions.length > 0;
  say(empty, "Nobody is on the site. “make demo” sends visitors.");

  const [newest] = sessions;
  say(byId("tile-sessions-more"), newest ? `the newest since ${clock(newest.start_time)}` : "nobody is there");
}
