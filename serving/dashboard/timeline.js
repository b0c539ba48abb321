// A user's orders as dots along time: those behind the alert are filled, the larger the amount the larger the dot.

import { makeSvg } from "./dom.js";
import { moneyExact, plural, shortDateAndTime, span, when } from "./format.js";

const WIDTH = 560;
const HEIGHT = 92;
const EDGE = 24;
const LINE = 46;
const LEAST_MS = 60_000; // so that orders of one second do not fill the page
const AROUND = 0.5; // of the pattern's length, before and after

const isNear = (from, to) => (order) => order.at >= from && order.at <= to;

export function timeline(orders, behind) {
  const timed = orders.map((order) => ({ ...order, at: Date.parse(order.timestamp) }));
  const times = timed.filter((order) => behind.has(order.order_id)).map((order) => order.at);
  if (!times.length) return null;
  const length = Math.max(Math.max(...times) - Math.min(...times), LEAST_MS);
  const from = Math.min(...times) - length * AROUND;
  const to = Math.max(...times) + length * AROUND;
  const shown = timed.filter(isNear(from, to)).sort((a, b) => a.at - b.at);
  const most = new Map(); // by currency, as amounts of several cannot be compared
  for (const order of shown) most.set(order.currency, Math.max(order.amount, most.get(order.currency) ?? 1));
  const x = (at) => EDGE + ((at - from) / (to - from)) * (WIDTH - 2 * EDGE);
  const dot = (order) => {
    const r = 4 + 9 * Math.sqrt(order.amount / most.get(order.currency));
    const kind = behind.has(order.order_id) ? "behind" : "beside";
    const says = `${order.order_id}, ${moneyExact(order.amount, order.currency)}, ${when(order.timestamp)}`;
    return makeSvg("circle", { cx: x(order.at).toFixed(1), cy: LINE, r: r.toFixed(1), class: kind }, makeSvg("title", {}, says));
  };
  const text = (at, anchor, words) => makeSvg("text", { x: at, y: HEIGHT - 6, "text-anchor": anchor }, words);
  const others = shown.length - times.length;
  const label = `${plural(times.length, "order")} within ${span((Math.max(...times) - Math.min(...times)) / 1000)}${others ? `, ${plural(others, "other")} around them` : ""}`;
  return makeSvg(
    "svg",
    { class: "timeline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    makeSvg("line", { x1: EDGE, x2: WIDTH - EDGE, y1: LINE, y2: LINE }),
    makeSvg("text", { x: WIDTH / 2, y: 14, "text-anchor": "middle" }, label),
    ...shown.map(dot),
    text(EDGE, "start", shortDateAndTime(from)),
    text(WIDTH - EDGE, "end", shortDateAndTime(to)),
  );
}
