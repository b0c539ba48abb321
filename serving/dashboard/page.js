"use strict";

const EVERY_MS = 2000;
const COLUMNS = [
  (alert) => new Date(alert.timestamp).toLocaleString(),
  (alert) => alert.alert_type.replaceAll("_", " ").toLowerCase(),
  (alert) => alert.risk_score.toFixed(2),
  (alert) => alert.user_id,
  (alert) => alert.order_id,
  (alert) => alert.amount.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 }),
  (alert) => alert.description,
];
const NUMBERS = new Set([2, 5]);

const state = document.getElementById("state");
const rows = document.getElementById("alerts");
const empty = document.getElementById("empty");
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

async function refresh() {
  try {
    const response = await fetch("/api/v1/fraud-alerts?limit=50", { signal: AbortSignal.timeout(5000) });
    const answer = await response.json();
    if (!answer.success) throw new Error(answer.error);
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
