// Server-sent events, by fetch: EventSource can neither send an API key nor tell a refusal (401, 503) from an outage.
// While there is no stream, `refresh` is called every two seconds instead.

import { headers } from "./api.js";

const POLL_MS = 2000;
const POLLED = 100;
const MOST = 1000; // the API's limit
const TRY_AGAIN_MS = 10_000;
const SILENCE_MS = 40_000; // the server sends a comment every 15 s

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Calls back with one parsed event at a time: {event, data}.
export function makeParser(onEvent) {
  let rest = "";
  let event = "message";
  let data = [];
  return (text) => {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) onEvent({ event, data: data.join("\n") });
        event = "message";
        data = [];
      } else if (!line.startsWith(":")) {
        const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (field === "event") event = value;
        if (field === "data") data.push(value);
      }
    }
  };
}

// Follows alerts and the open minute for as long as the page is shown; a hidden page holds no connection, as browsers
// allow few to one host.
//   refresh(n)            asks for the newest n alerts and the open minute; called whenever events may have been missed
//   onAlert, onMinute     take one each
//   onMode("live"|"polling")
//   currency()            of the minutes
// Returns what begins the stream anew, for another currency.
export function follow({ refresh, onAlert, onMinute, onMode, currency }) {
  let streaming = false;
  let current = null;
  let isAnew = false;

  function setStreaming(now) {
    streaming = now;
    onMode(now ? "live" : "polling");
  }

  async function stream() {
    const stop = new AbortController();
    current = stop;
    const whenHidden = () => document.hidden && stop.abort();
    document.addEventListener("visibilitychange", whenHidden);
    let silence = setTimeout(() => stop.abort(), SILENCE_MS);
    try {
      const url = `/api/v1/stream?events=alert,revenue${currency() ? `&currency=${currency()}` : ""}`;
      const response = await fetch(url, { headers: headers(), signal: stop.signal });
      if (!response.ok || !response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
        stop.abort();
        return;
      }
      setStreaming(true);
      refresh(MOST);
      const parse = makeParser(({ event, data }) => {
        if (event === "alert") onAlert(JSON.parse(data));
        if (event === "revenue") onMinute(JSON.parse(data));
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(() => stop.abort(), SILENCE_MS);
        parse(value);
      }
    } catch {
      // ended, refused or away: polling goes on, and says which
    } finally {
      clearTimeout(silence);
      document.removeEventListener("visibilitychange", whenHidden);
    }
  }

  async function keepStreaming() {
    for (;;) {
      if (!document.hidden) await stream();
      if (isAnew) {
        isAnew = false;
        continue;
      }
      if (streaming) setStreaming(false);
      await wait(document.hidden ? POLL_MS : TRY_AGAIN_MS);
    }
  }

  async function keepPolling() {
    for (;;) {
      if (!streaming && !document.hidden) await refresh(POLLED);
      await wait(POLL_MS);
    }
  }

  setStreaming(false);
  keepStreaming();
  keepPolling();
  return () => {
    if (!streaming) return;
    isAnew = true;
    current.abort();
  };
}
