// Revenue of the last hour: stacked bars by minute, a tile for the open minute and one for the hour.

import { byId, cells, make, number, say } from "./dom.js";
import { count, minute as clockMinute, money, moneyExact, moneyShort, plural } from "./format.js";

const MINUTE_MS = 60_000;
const MINUTES = 60;
const LEAST_MINUTES = 15; // a demo that has just begun shall not show one huge bar
const GROUPS = 6; // the largest; the others together are one more
const OTHERS = "Others";
const HEIGHT = 280;

const startOf = (ms) => Math.floor(ms / MINUTE_MS) * MINUTE_MS;
const parts = (row, split) => (row === undefined ? {} : split === "total" ? { Total: row.total_gmv } : row[split]);

export function makeRevenue() {
  const rows = new Map(); // start in ms → minute as the API gives it
  const box = byId("chart");
  const legend = byId("legend");
  const empty = byId("revenue-empty");
  const table = byId("revenue-table");
  const tip = make("div", { class: "tip", hidden: "" });
  const announcer = byId("announce");
  const colour = Array.from({ length: GROUPS + 1 }, () => make("i", { class: "probe" }));
  colour.forEach((probe, slot) => probe.classList.add(`slot-${slot}`));
  const text = make("i", { class: "probe text" });
  const line = make("i", { class: "probe line" });
  const openMinute = make("i", { class: "probe open" });
  box.append(tip, ...colour, text, line, openMinute);

  let split = "by_category";
  let slots = []; // names by slot, undefined where free
  let starts = []; // of the minutes shown, in ms
  let plot = null;
  let begun = false;
  let currency = null; // whose amounts are shown; those of others are never added
  let chosen = null; // the start of the minute that the tip is about

  const colourOf = (probe) => getComputedStyle(probe).color;

  function put(row) {
    if (row.currency !== currency) return; // it was asked for before another was chosen
    rows.set(Date.parse(row.window_start), row);
  }

  function shownMinutes() {
    const open = startOf(Date.now());
    const oldest = open - (MINUTES - 1) * MINUTE_MS;
    for (const start of rows.keys()) if (start < oldest) rows.delete(start);
    const first = Math.min(open - (LEAST_MINUTES - 1) * MINUTE_MS, ...rows.keys());
    return Array.from({ length: (open - first) / MINUTE_MS + 1 }, (_, i) => first + i * MINUTE_MS);
  }

  // Not those ahead of the clock, of a producer whose clock is wrong.
  const shownRows = () => starts.map((start) => rows.get(start)).filter(Boolean);

  // The largest groups keep their colours while they are among the largest.
  function assignSlots(sums) {
    const top = [...sums].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).slice(0, GROUPS).map(([name]) => name);
    slots = slots.map((name) => (top.includes(name) ? name : undefined));
    for (const name of top) {
      if (slots.includes(name)) continue;
      const free = Array.from({ length: GROUPS }, (_, i) => i).find((i) => slots[i] === undefined);
      slots[free] = name;
    }
  }

  function amounts(row) {
    const bySlot = new Array(GROUPS + 1).fill(0);
    for (const [name, gmv] of Object.entries(parts(row, split))) {
      const slot = slots.indexOf(name);
      bySlot[slot < 0 ? GROUPS : slot] += gmv;
    }
    return bySlot;
  }

  // Drawn from the tallest to the lowest: each bar covers the lower part of the one before.
  function stacks() {
    const columns = Array.from({ length: GROUPS + 1 }, () => []);
    for (const start of starts) {
      const row = rows.get(start);
      const bySlot = amounts(row);
      let below = 0;
      for (let slot = 0; slot <= GROUPS; slot += 1) {
        below += bySlot[slot];
        columns[slot].push(row && bySlot[slot] ? below : null);
      }
    }
    return [starts.map((start) => start / 1000), ...columns.reverse()];
  }

  function draw() {
    if (!begun) return;
    starts = shownMinutes();
    const sums = new Map();
    for (const row of shownRows()) {
      for (const [name, gmv] of Object.entries(parts(row, split))) sums.set(name, (sums.get(name) ?? 0) + gmv);
    }
    assignSlots(sums);
    drawTiles();
    drawLegend(sums);
    if (table.open) drawTable();
    empty.hidden = rows.size > 0;
    box.hidden = !rows.size;
    say(empty, "No orders in the last hour. “make demo” generates some; the first minute appears within seconds.");
    if (box.hidden) return;
    const data = stacks();
    if (plot) plot.setData(data);
    else makePlot(data);
    if (chosen !== null) showTip(starts.indexOf(chosen));
  }

  function makePlot(data) {
    const bars = window.uPlot.paths.bars({ size: [0.82, 48], align: 1, gap: 1 });
    const axis = () => colourOf(text);
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const series = Array.from({ length: GROUPS + 1 }, (_, i) => {
      const fill = colourOf(colour[GROUPS - i]);
      return { fill, stroke: fill, width: 0, paths: bars, points: { show: false } };
    });
    plot = new window.uPlot(
      {
        width: Math.max(box.clientWidth, 100),
        height: HEIGHT,
        legend: { show: false },
        padding: [14, 18, 0, 0],
        cursor: { show: false },
        scales: {
          x: { range: () => [starts[0] / 1000, starts.at(-1) / 1000 + 60] },
          y: { range: (_u, _least, most) => [0, (most || 1) * 1.08] },
        },
        axes: [
          {
            stroke: axis,
            font,
            grid: { show: false },
            ticks: { show: false },
            size: 30,
            space: 64,
            incrs: [60, 300, 600, 900],
            values: (_u, times) => times.map((time) => clockMinute(time * 1000)),
          },
          {
            stroke: axis,
            font,
            size: 62,
            space: 44,
            grid: { stroke: () => colourOf(line), width: 1 },
            ticks: { show: false },
            values: (_u, sums) => sums.map((sum) => moneyShort(sum, currency)),
          },
        ],
        series: [{}, ...series],
        hooks: {
          drawClear: [markMinutes],
        },
      },
      data,
      box,
    );
  }

  // Behind the bars: the open minute, and the one that the tip is about.
  function markMinutes(u) {
    const { ctx, bbox } = u;
    const above = 12 * devicePixelRatio;
    const mark = (start) => {
      const from = u.valToPos(start / 1000, "x", true);
      const to = u.valToPos(start / 1000 + 60, "x", true);
      ctx.fillRect(from, bbox.top - above, to - from, bbox.height + above);
      return to;
    };
    ctx.save();
    ctx.fillStyle = colourOf(openMinute);
    const right = mark(starts.at(-1));
    if (chosen !== null && chosen !== starts.at(-1)) mark(chosen);
    ctx.fillStyle = colourOf(text);
    ctx.font = `${11 * devicePixelRatio}px ${getComputedStyle(document.body).fontFamily}`;
    ctx.textAlign = "right";
    ctx.textBaseline = "bottom";
    ctx.fillText("open", right - 2 * devicePixelRatio, bbox.top);
    ctx.restore();
  }

  function showTip(index) {
    const start = starts[index];
    if (chosen !== (start ?? null)) {
      chosen = start ?? null;
      plot?.redraw(false);
    }
    tip.hidden = start === undefined;
    if (tip.hidden) return;
    const row = rows.get(start);
    const isOpen = index === starts.length - 1;
    const bySlot = amounts(row);
    const lines = bySlot
      .map((gmv, slot) => ({ gmv, slot, name: slot === GROUPS ? OTHERS : slots[slot] }))
      .filter(({ gmv }) => gmv)
      .reverse()
      .map(({ gmv, slot, name }) =>
        make("p", { class: "line" }, make("span", { class: `key slot-${slot}` }, name), make("span", null, money(gmv, currency))),
      );
    tip.replaceChildren(
      make("p", { class: "strong" }, `${clockMinute(start)}${isOpen ? ", open" : ""}`),
      row
        ? make("p", { class: "line strong" }, make("span", null, plural(row.order_count, "order")), make("span", null, money(row.total_gmv, currency)))
        : make("p", null, "no orders"),
      ...(split === "total" ? [] : lines),
    );
    const middle = plot.valToPos(start / 1000 + 30, "x") + plot.over.offsetLeft;
    const left = middle + 16 + tip.offsetWidth < box.clientWidth ? middle + 16 : middle - 16 - tip.offsetWidth;
    tip.style.left = `${Math.max(0, left)}px`;
  }

  function drawTiles() {
    const open = rows.get(startOf(Date.now()));
    const last = rows.get(startOf(Date.now()) - MINUTE_MS);
    say(byId("tile-minute"), money(open?.total_gmv ?? 0, currency));
    const before = last ? `; previous minute ${money(last.total_gmv, currency)}` : "";
    say(byId("tile-minute-more"), plural(open?.order_count ?? 0, "order") + before);
    const all = shownRows();
    say(byId("tile-hour"), money(all.reduce((sum, row) => sum + row.total_gmv, 0), currency));
    const orders = all.reduce((sum, row) => sum + row.order_count, 0);
    say(byId("tile-hour-more"), plural(orders, "order"));
  }

  function drawLegend(sums) {
    const others = [...sums].filter(([name]) => !slots.includes(name)).reduce((sum, [, gmv]) => sum + gmv, 0);
    const entries = slots.map((name, slot) => ({ name, slot, gmv: sums.get(name) })).filter(({ name }) => name);
    if (others) entries.push({ name: OTHERS, slot: GROUPS, gmv: others });
    legend.replaceChildren(
      ...entries.map(({ name, slot, gmv }) =>
        make("li", null, make("span", { class: `key slot-${slot}` }, name), " ", make("span", { class: "hint" }, moneyShort(gmv, currency))),
      ),
    );
  }

  function drawTable() {
    const newestFirst = shownRows().reverse();
    table.querySelector("tbody").replaceChildren(
      ...newestFirst.map((row) =>
        make(
          "tr",
          null,
          ...cells(clockMinute(row.window_start)),
          number(moneyExact(row.total_gmv, currency)),
          number(count(row.order_count)),
          number(moneyExact(row.avg_order_value, currency)),
          number(count(row.unique_users)),
          number(count(row.first_time_orders)),
          ...cells(row.top_category ?? "–"),
        ),
      ),
    );
  }

  function makeAnew() {
    plot?.destroy();
    plot = null;
    draw();
  }

  const buttons = [...document.querySelectorAll("[data-split]")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      split = button.dataset.split;
      slots = [];
      for (const each of buttons) each.setAttribute("aria-pressed", String(each === button));
      draw();
    });
  }
  box.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") showTip(-1);
    if (!step || !plot) return;
    event.preventDefault();
    const now = chosen === null ? starts.length - (step < 0 ? 0 : 1) : starts.indexOf(chosen);
    showTip(Math.min(Math.max(now + step, 0), starts.length - 1));
    announcer.textContent = [...tip.children].map((child) => child.textContent).join(", ");
  });
  box.addEventListener("pointermove", (event) => {
    if (!plot) return;
    const left = event.clientX - plot.over.getBoundingClientRect().left;
    showTip(Math.floor((plot.posToVal(left, "x") - starts[0] / 1000) / 60));
  });
  box.addEventListener("pointerleave", () => showTip(-1));
  box.addEventListener("blur", () => showTip(-1));
  table.addEventListener("toggle", draw);
  document.addEventListener("themechange", makeAnew);
  new ResizeObserver(() => plot?.setSize({ width: Math.max(box.clientWidth, 100), height: HEIGHT })).observe(box);

  return {
    currency: () => currency,
    show(code) {
      if (code === currency) return;
      currency = code;
      slots = [];
      rows.clear();
      draw();
    },
    addPage(answer) {
      begun = true;
      if (rows.size < 2) slots = []; // the first hour decides the order of the colours, not its first minute
      answer.data.forEach(put);
      draw();
    },
    add(row) {
      begun = true;
      put(row);
      draw();
    },
    tick: draw, // the clock moves the hour on
  };
}
