// Answers that last, and the first of them: the feed of events. Read by `fetch`, since `EventSource` can't send a token.
//
// The feed goes on where it was: each try names the last event that arrived, so that nothing is lost while the node restarts.
// A page that nobody sees lets go of its connections after a while (a browser has six to a host, and the node has
// work to do), one that was left lets go of them at once (browsers keep such pages alive), and both go on likewise.

import { createParser, signal } from "./vendor/ui.js";
import { forgetToken, headers } from "./api.js";

const WAIT_MS_MIN = 250;
const WAIT_MS_MAX = 8000;
const SILENCE_MS_MAX = 25000; // the node says something every 10 s, in every such answer
const HIDDEN_MS_MAX = 15000;

/** {state: "connecting" | "live" | "reconnecting" | "refused", since: ms, text} */
export const connection = signal({ state: "connecting", since: Date.now(), text: "" });

function become(state, text = "") {
  const { state: before, since } = connection.value;
  connection.value = { state, since: state === before ? since : Date.now(), text };
}

/** Follow until the page is gone; `take(events)`: [{id, event, data}], several where several came together. */
export async function follow(take) {
  let last = "";
  await insist(async () => {
    let events = [];
    const parser = createParser({ onEvent: ({ id, event, data }) => events.push({ id, event, data: JSON.parse(data) }) });
    const heard = (text) => {
      parser.feed(text);
      if (!events.length) return;
      for (const { id, event, data } of events) {
        if (id) last = id;
        else if (event === "hello" && (!last || data.reset)) last = String(data.head);
      }
      become("live");
      take(events);
      events = [];
    };
    try {
      await listen("api/events", { accept: "text/event-stream", ...(last && { "last-event-id": last }) }, heard);
    } catch (error) {
      if (error.status === 401) {
        become("refused", error.message);
        forgetToken();
        return true;
      }
    }
    if (!document.hidden) become("reconnecting");
    return false;
  });
}

/** Try again and again, until `attempt()` comes to true; not while nobody looks. */
export async function insist(attempt) {
  let wait = WAIT_MS_MIN;
  for (;;) {
    await seen();
    const began = Date.now();
    if (await attempt()) return;
    if (document.hidden) continue;
    wait = Date.now() - began > 5000 ? WAIT_MS_MIN : Math.min(wait * 1.7, WAIT_MS_MAX);
    await pause(wait * (0.7 + 0.6 * Math.random()));
  }
}

/** Give `take` an answer's text as it comes, to its end; less than that when the node falls silent, nobody looks, or `signal` says so. */
export async function listen(path, more, take, signal) {
  const control = new AbortController();
  let alarm = 0;
  const heard = () => {
    clearTimeout(alarm);
    alarm = setTimeout(() => control.abort(), SILENCE_MS_MAX);
  };
  let hiding = 0;
  const looked = () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => control.abort(), HIDDEN_MS_MAX);
  };
  const left = () => control.abort();
  document.addEventListener("visibilitychange", looked);
  addEventListener("pagehide", left);
  signal?.addEventListener("abort", left);
  try {
    heard();
    const answer = await fetch(path, { headers: { ...headers(), ...more }, cache: "no-store", signal: control.signal });
    if (!answer.ok) throw Object.assign(new Error((await answer.json()).error), { status: answer.status });
    const text = new TextDecoder();
    const reader = answer.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      take(text.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(alarm);
    clearTimeout(hiding);
    document.removeEventListener("visibilitychange", looked);
    removeEventListener("pagehide", left);
    signal?.removeEventListener("abort", left);
    control.abort();
  }
}

/** Wait until the page is looked at. */
function seen() {
  if (!document.hidden) return null;
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", function shown() {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", shown);
      resolve();
    });
  });
}

/** Shorter when the network returns, or the page is looked at again. */
function pause(ms) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      document.removeEventListener("visibilitychange", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    addEventListener("online", end);
    document.addEventListener("visibilitychange", end);
  });
}
