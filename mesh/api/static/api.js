// The node's API: the token, requests, links. Every failure is an `ApiError` with a sentence.
//
// The token comes in the address (#token=…), which no server ever sees, and is kept for this tab alone; a new tab of the
// same page asks the others for it.

import { signal } from "./vendor/ui.js";

export class ApiError extends Error {
  constructor(message, status, exitCode = 0) {
    super(message);
    this.status = status;
    this.exitCode = exitCode;
  }
}

export const token = signal(null);

const tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("mesh-token") : null;

export function takeToken() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (given) {
    useToken(decodeURIComponent(given[1]));
    history.replaceState(null, "", location.pathname + "#/");
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    token.value = sessionStorage.getItem("token");
    if (!token.value) tabs?.postMessage({ wanted: true });
  }
}

export function useToken(text) {
  const found = /#token=(.+)$/.exec(text);
  token.value = (found ? decodeURIComponent(found[1]) : text).trim();
  sessionStorage.setItem("token", token.value);
}

export function forgetToken() {
  sessionStorage.removeItem("token");
  token.value = null;
}

tabs?.addEventListener("message", ({ data }) => {
  if (data.wanted && token.value) tabs.postMessage({ token: token.value });
  else if (data.token && !token.value) useToken(data.token);
});

export const headers = () => ({ authorization: `Bearer ${token.value}` });

export async function get(path, signal) {
  return ask(path, { signal });
}

export async function post(path, document = {}) {
  return ask(path, { method: "POST", body: JSON.stringify(document) });
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers(), cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the node does not answer", 0);
  }
  const document = await answer.json().catch(() => null);
  if (answer.ok && document !== null) return document;
  throw new ApiError(document?.error ?? `the node answered with ${answer.status}`, answer.status, document?.exit_code);
}

const links = new Map();

/** An address under which this browser may read what is under the CID, and nothing else. */
export function link(cid) {
  if (!links.has(cid)) {
    const asked = get(`api/link/${cid}`).then((answer) => answer.path.replace(/^\//, ""));
    asked.catch(() => links.delete(cid));
    links.set(cid, asked);
  }
  return links.get(cid);
}

export const query = (fields) => {
  const kept = Object.entries(fields).filter(([, value]) => value !== "" && value != null);
  return kept.length ? "?" + new URLSearchParams(kept) : "";
};
