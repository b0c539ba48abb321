"use strict";

const EVERY_MS = 2000;
const MONEY = { minimumFractionDigits: 2, maximumFractionDigits: 2 };
const COLUMNS = [
  (alert) => new Date(alert.timestamp).toLocaleString(),
  (alert) => alert.alert_type.replaceAll("_", " ").toLowerCase(),
  (alert) => alert.risk_score.toFixed(2),
  (alert) => alert.user_id,
  (alert) => alert.order_id,
  (alert) => alert.amount.toLocaleString(undefined, MONEY),
  (alert) => alert.description,
];
const NUMBERS = new Set([2, 5]);

const state = document.getElementById("state");
const rows = document.getElementById("alerts");
const empty = document.getElementById("empty");
const revenue = document.getElementById("revenue");
let known = null;

function row(alert) {
  const tr = document.createElement("tr");
  if (known && !known.has(alert.alert_id)) tr.className = "new";
  COLUMNS.forEach((text, i) => {
    const td = tr.insertCell();
    td.textContent = text(alert); // never HTML: ids and descriptions come from the stream
    if (NUMBERS.has(i)) td.className = "number";
  });
  return tr;
}

function say(text, bad) {
  if (state.textContent !== text) state.textContent = text; // said again only when it changes
  state.className = bad ? "bad" : "";
}

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(5000) });
  const answer = await response.json();
  if (!answer.success) throw new Error(answer.error);
  return answer;
}

function showRevenue(minute) {
  if (!minute) return;
  const from = new Date(minute.window_start).toLocaleTimeString();
  const gmv = minute.total_gmv.toLocaleString(undefined, MONEY);
  const top = minute.top_category ? `, most in ${minute.top_category}` : "";
  revenue.textContent = `${gmv} TRY from ${minute.order_count} orders of ${minute.unique_users} users since ${from}${top}`;
}

async function refresh() {
  try {
    const [answer, minute] = await Promise.all([
      ask("/api/v1/fraud-alerts?limit=50"),
      ask("/api/v1/revenue/realtime"),
    ]);
    showRevenue(minute.data);
    rows.replaceChildren(...answer.data.map(row));
    known = new Set(answer.data.map((alert) => alert.alert_id));
    empty.hidden = answer.count > 0;
    say("Live", false);
  } catch (error) {
    say(`Not up to date: ${error.message}`, true);
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
