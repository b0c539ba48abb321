// What the team says of alerts: confirmed, a false alarm, or new again; by whom, and when.

import { ask } from "./api.js";

export const NAMES = { new: "New", confirmed: "Confirmed", false_alarm: "False alarm" };

const NEW = { state: "new", by: null, at: "", note: null };
const OVERLAP_MS = 60_000; // clocks of servers differ
const MOST = 1000;

const said = new Map(); // alert id → {state, by, at, note}; times as text are in order
const listeners = [];
let latest = new Date(Date.now() - 10 * OVERLAP_MS).toISOString();

export const stateOf = (alertId) => said.get(alertId) ?? NEW;
export const onStates = (listener) => listeners.push(listener);

function take(id, state) {
  if (!state.at || (said.get(id)?.at ?? "") >= state.at) return false;
  said.set(id, state);
  if (state.at > latest) latest = state.at;
  return true;
}

const tell = (ids) => ids.length && listeners.forEach((listener) => listener(new Set(ids)));

// Of lists; alerts of the stream have no state.
export function takeStates(alerts) {
  const changed = alerts.filter((a) => take(a.alert_id, { state: a.state, by: a.state_by, at: a.state_at, note: a.state_note }));
  tell(changed.map((a) => a.alert_id));
}

const takeLabels = (labels) => tell(labels.filter((label) => take(label.alert_id, label)).map((label) => label.alert_id));

// What others have said since.
export async function refreshStates() {
  const since = new Date(Date.parse(latest) - OVERLAP_MS).toISOString();
  takeLabels((await ask(`/labels?limit=${MOST}&since=${since}`)).data);
}

// Throws what the API refuses.
export async function setState(alert, state, note) {
  const body = { state, user_id: alert.user_id, ...(note ? { note } : {}) };
  takeLabels([(await ask(`/fraud-alerts/${encodeURIComponent(alert.alert_id)}/state`, body, "PUT")).data]);
}
