// The dashboard: who asks the API for what, how often, and what the page says when there is no answer.

import { makeFeed } from "./alerts.js";
import { ask, useKey } from "./api.js";
import { makeDetail } from "./detail.js";
import { byId, keep, say } from "./dom.js";
import { when, zone } from "./format.js";
import { showHealth } from "./health.js";
import { showInventory } from "./inventory.js";
import { listen } from "./keyboard.js";
import { follow } from "./live.js";
import { makeRevenue } from "./revenue.js";
import { showSessions } from "./sessions.js";
import { refreshStates } from "./states.js";

const OLDER = 1000;

const feed = makeFeed((cursor) => ask(`/fraud-alerts?limit=${OLDER}&cursor=${cursor}`));
const revenue = makeRevenue();
const currencies = byId("currency");
let beginAnew = () => {};
let health = null; // its last answer
let answeredAt = null;
let mode = "polling";
let isFollowing = false; // not before the lists are answered: without a key it would be refused

function showStatus(error) {
  const pill = byId("status");
  const away = byId("away");
  document.body.classList.toggle("stale", Boolean(error));
  const isLocked = error?.status === 401;
  byId("key-form").hidden = !isLocked;
  document.body.classList.toggle("locked", isLocked); // no figures, rather than those of an empty store
  if (isLocked) {
    for (const hint of document.querySelectorAll(".tile .hint")) say(hint, "needs an API key");
    for (const big of document.querySelectorAll(".tile .big")) say(big, "–");
    for (const empty of document.querySelectorAll(".panel > .empty")) {
      say(empty, "Not shown without an API key: enter it above.");
      empty.hidden = false;
    }
  }
  away.hidden = !error || error.status === 401;
  if (!error) {
    pill.dataset.level = "ok";
    say(pill, mode === "live" ? "Live" : "Live, every 2 s");
    return;
  }
  pill.dataset.level = "bad";
  const since = answeredAt ? ` This is the state of ${when(answeredAt)}.` : "";
  const [short, long] =
    error.status === 0
      ? ["API down", "The API does not answer. Is it running? “make demo” or “python -m serving” starts it."]
      : error.status === 503
        ? ["Store down", `The API answers, but its store does not: ${error.message}.`]
        : error.status === 401
          ? ["Key needed", ""]
          : ["Out of date", `${error.message}.`];
  say(pill, short);
  say(away, `${long}${since} This page keeps retrying.`);
}

// Asks again and again while the page is shown. What it returns can be run at once, and holds the last failure.
function every(ms, task) {
  const it = { run, error: null };
  let timer = null;
  let running = null;

  async function once() {
    if (document.hidden) return;
    try {
      await task();
      it.error = null;
    } catch (error) {
      it.error = error;
    }
  }

  function run() {
    clearTimeout(timer);
    running ??= once().finally(() => {
      running = null;
      timer = setTimeout(run, ms);
    });
    return running;
  }

  document.addEventListener("visibilitychange", () => document.hidden || run());
  run();
  return it;
}

const lists = [
  every(15_000, async () => {
    await knowCurrencies();
    revenue.addPage(await ask(`/revenue?limit=60&currency=${revenue.currency()}`));
  }),
  every(5000, async () => showSessions((await ask("/sessions?open=true&limit=200")).data)),
  every(5000, refreshStates),
  every(15_000, async () => {
    const answer = await ask("/inventory?low_stock=true&limit=20");
    showInventory(answer.data, "cdc-processor" in (health?.ledgers ?? {}));
  }),
];

// The shop's currency first; when there are only orders in others, one of those.
async function knowCurrencies() {
  const codes = (await ask("/revenue/currencies")).data;
  if (!revenue.currency()) {
    const shop = (await ask("/info")).data.currency;
    revenue.show(codes.includes(shop) || !codes.length ? shop : codes[0]);
    beginAnew();
  }
  const every = [...new Set([...codes, revenue.currency()])].sort();
  const options = (code) => {
    const option = document.createElement("option");
    say(option, code);
    return option;
  };
  keep(currencies, every, (code) => code, options);
  currencies.value = revenue.currency();
  currencies.hidden = every.length < 2;
}

currencies.addEventListener("change", () => {
  revenue.show(currencies.value);
  lists[0].run();
  beginAnew();
});

async function refreshLive(most) {
  try {
    const [alerts, minute] = await Promise.all([ask(`/fraud-alerts?limit=${most}`), ask(`/revenue/realtime${revenue.currency() ? `?currency=${revenue.currency()}` : ""}`)]);
    feed.addPage(alerts);
    if (minute.data) revenue.add(minute.data);
  } catch {
    // the lists fail too, and the health check says why
  }
}

function followLive() {
  isFollowing = true;
  beginAnew = follow({
    refresh: refreshLive,
    onAlert: (alert) => feed.add([alert]),
    onMinute: revenue.add,
    currency: revenue.currency,
    onMode: (now) => {
      mode = now;
      if (isWell()) showStatus(null);
    },
  });
}

const isWell = () => byId("status").dataset.level === "ok";

async function checkHealth() {
  try {
    health = (await ask("/health")).data;
    answeredAt = Date.now();
    showHealth(health);
    if (!isWell()) {
      refreshLive(1000);
      await Promise.all(lists.map((list) => list.run()));
    }
    // Health is open to everybody; the lists may be refused without a key, or after too many requests.
    const refusal = lists.find((list) => list.error)?.error ?? null;
    if (!refusal && !isFollowing) followLive();
    showStatus(refusal);
  } catch (error) {
    showStatus(error);
  }
}

const check = every(2000, checkHealth);
setInterval(() => {
  if (!isWell()) return; // what is shown is of the last answer
  revenue.tick();
  feed.tick();
}, 5000);

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value);
  say(byId("key-hint"), "Unknown key."); // seen only if it is so
  check.run();
});

makeDetail(feed.find);
listen({ find: feed.find, refused: (text) => say(byId("alerts-fault"), text) });
say(byId("zone"), `Times are in ${zone()}.`);
