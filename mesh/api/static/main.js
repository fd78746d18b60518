// The frame around all pages: where one is, whether what is shown is true now, and the keys.

import { html, render, signal, useEffect, useLayoutEffect, useRef } from "./vendor/ui.js";
import { takeToken, token, useToken } from "./api.js";
import { ago, bad, clock, spent } from "./format.js";
import { go, route } from "./route.js";
import { mesh, now, open, raised, said, start, trouble } from "./store.js";
import { connection } from "./stream.js";
import { theme, turn } from "./theme.js";
import { Alerts } from "./alerts.js";
import { History } from "./history.js";
import { Node } from "./node.js";
import { Nodes } from "./nodes.js";
import { Overview } from "./overview.js";
import { Run } from "./run.js";
import { Runs } from "./runs.js";
import { Test } from "./test.js";
import { Trends } from "./trends.js";
import { Confirm, Empty, Shape } from "./widgets.js";

const PAGES = [
  ["", "Overview", "o"],
  ["runs", "Runs", "r"],
  ["nodes", "Nodes", "n"],
  ["trends", "Trends", "t"],
  ["alerts", "Alerts", "a"],
];
const QUIET_MS = 1500; // a reconnection that takes no longer is not worth a word

const helping = signal(false);
const keys = signal(localStorage.getItem("keys") !== "off");

function page({ parts }) {
  const [first, id, tab, index] = parts;
  if (!first) return ["Overview", html`<${Overview} />`];
  if (first === "runs" && id && tab === "tests" && index) return [`Test ${Number(index) + 1} of run ${id}`, html`<${Test} key=${id + index} run=${id} index=${index} />`];
  if (first === "runs" && id) return [`Run ${id}`, html`<${Run} key=${id} id=${id} tab=${tab} />`];
  if (first === "runs") return ["Runs", html`<${Runs} />`];
  if (first === "tests") return ["A test over time", html`<${History} />`];
  if (first === "nodes" && id) return ["Node", html`<${Node} key=${id} peer=${id} />`];
  if (first === "nodes") return ["Nodes", html`<${Nodes} />`];
  if (first === "trends") return ["Trends", html`<${Trends} />`];
  if (first === "alerts") return ["Alerts", html`<${Alerts} />`];
  return ["Not found", html`<h1 tabindex="-1">There is no such page</h1><p><a href="#/">To the overview</a></p>`];
}

function App() {
  const [title, shown] = page(route.value);
  const main = useRef(null);
  const place = route.value.parts.join("/");
  const arrived = useRef(false);
  const failing = open.value.some(bad);
  useEffect(() => {
    document.title = `${failing ? "✕ " : raised.value.length ? "! " : ""}${title} · mesh`;
  }, [title, failing, raised.value.length]);
  useLayoutEffect(() => {
    if (arrived.current) {
      scrollTo(0, 0);
      (main.current?.querySelector("h1") ?? main.current)?.focus({ preventScroll: true });
    }
    arrived.current = true;
  }, [route.value.parts[0] + (route.value.parts[1] ?? "") + (route.value.parts[3] ?? "")]);
  if (!token.value) return html`<${Door} />`;
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="top"><div>
      <a class="brand" href="#/"><svg width="20" height="20" viewBox="0 0 20 20" aria-hidden="true"><path d="M10 4 4 15h12zM10 4v7M4 15l6-4 6 4" fill="none" stroke="var(--leased)" stroke-width="1.4" /><g fill="var(--xpassed)"><circle cx="10" cy="4" r="2.6" /><circle cx="4" cy="15" r="2.6" /><circle cx="16" cy="15" r="2.6" /></g><circle cx="10" cy="11" r="2.2" fill="var(--failed)" /></svg>mesh</a>
      <nav aria-label="Pages"><ul>${PAGES.map(([name, text]) => html`<li key=${name}><a href=${`#/${name}`} aria-current=${name === (route.value.parts[0] ?? "") || (name === "trends" && route.value.parts[0] === "tests") ? "page" : undefined}>${text}${name === "alerts" && raised.value.length ? html`<span class="tally">${raised.value.length}</span>` : ""}</a></li>`)}</ul></nav>
      <span class="end row" style=${{ gap: ".3rem" }}><${Live} /><${Theme} /><button class="plain" aria-label="Help and keys" title="Help and keys (?)" onClick=${() => (helping.value = true)}>?</button></span>
    </div></header>
    <${Banner} />
    <main id="main" ref=${main} tabindex="-1" data-page=${place}>${mesh.value ? shown : html`<h1 tabindex="-1" class="quiet">${title}</h1><${Empty}>${trouble.value ? `${trouble.value}; trying again` : "Asking the node…"}<//>`}</main>
    <div role="status" aria-live="polite" class="quiet">${said.value}</div>
    <${Confirm} /><${Help} />`;
}

function Live() {
  const { state, since } = connection.value;
  const long = now.value * 1000 - since > QUIET_MS;
  const text = state === "live" || (state === "reconnecting" && !long) ? "live" : state === "reconnecting" ? `reconnecting, ${spent(now.value - since / 1000)}` : state;
  return html`<span class="live" data-state=${state} role="status"><span class="dot" aria-hidden="true"></span><span class=${state === "live" ? "phone-no" : ""}>${text}</span></span>`;
}

function Banner() {
  const { state, since } = connection.value;
  const held = mesh.value;
  const away = state === "reconnecting" && now.value * 1000 - since > QUIET_MS;
  const lines = [];
  if (away) lines.push(html`<b>The node does not answer.</b><span>What you see is of ${clock(since / 1000)}, ${ago(since / 1000, now.value)}. The page goes on by itself when the node is back.</span>`);
  else if (held && held.agreed === false) lines.push(html`<b>No coordinator that a majority backs.</b><span>What you see is what this node knows by itself, last agreed at ${clock(held.as_of)}${held.as_of ? `, ${ago(held.as_of, now.value)}` : ""}. Runs wait until a majority is back.</span>`);
  for (const conflict of held?.conflicts ?? []) lines.push(html`<b>Two meshes.</b><span class="any">${conflict}</span>`);
  if (!lines.length) return null;
  return html`<div class="banner" role="alert">${lines.map((line, place) => html`<div key=${place}><${Shape} of="warn" />${line}</div>`)}</div>`;
}

function Theme() {
  const shape = { light: "M10 5.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 1 0 0-9M10 1v2M10 17v2M1 10h2M17 10h2M3.6 3.6 5 5M15 15l1.4 1.4M3.6 16.4 5 15M15 5l1.4-1.4", dark: "M15.5 12.5A6.5 6.5 0 0 1 7.5 4.5a6.5 6.5 0 1 0 8 8z", system: "M2.5 4h15v10h-15zM7 17h6M10 14v3" }[theme.value];
  return html`<button class="plain" onClick=${turn} aria-label=${`Colours: ${theme.value}`} title=${`Colours: ${theme.value}`}><svg width="18" height="18" viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="1.5" style=${{ verticalAlign: "-3px" }} aria-hidden="true"><path d=${shape} /></svg></button>`;
}

function Door() {
  const enter = (event) => {
    event.preventDefault();
    const text = new FormData(event.target).get("token").trim();
    if (text) useToken(text);
  };
  const refused = connection.value.state === "refused";
  return html`<main class="door"><section class="card" aria-label="Way in"><h1>This page needs the node's token</h1>
    ${refused && html`<p role="alert"><${Shape} of="failed" /> ${connection.value.text}</p>`}
    <p>Open the address that the node, or <code>mesh status</code>, prints on a terminal; it ends in <code>#token=…</code>. Or paste it here:</p>
    <form onSubmit=${enter}><label class="field">Address or token<input type="text" name="token" autocomplete="off" spellcheck=${false} /></label><p><button class="primary">Open</button></p></form></section></main>`;
}

const KEYS = [
  ...PAGES.map(([, text, key]) => [["g", key], text]),
  [["/"], "Search on this page"],
  [["j"], "Next failure"],
  [["k"], "Failure before"],
  [["t"], "Colours: system, light, dark"],
  [["?"], "This help"],
];

function Help() {
  const dialog = useRef(null);
  useLayoutEffect(() => {
    if (helping.value) dialog.current.showModal();
  }, [helping.value]);
  if (!helping.value) return null;
  const close = () => (helping.value = false);
  const choose = (event) => {
    keys.value = event.target.checked;
    localStorage.setItem("keys", keys.value ? "on" : "off");
  };
  return html`<dialog ref=${dialog} aria-labelledby="help-title" onCancel=${close}><h2 id="help-title">Keys</h2>
    <dl class="keys">${KEYS.map(([all, text]) => html`<dt key=${text}>${all.map((key, place) => html`<kbd key=${place}>${key}</kbd> `)}</dt><dd key=${text + "="}>${text}</dd>`)}</dl>
    <p><label><input type="checkbox" checked=${keys.value} onChange=${choose} /> Use these keys</label></p>
    <p class="soft small">Each state has a shape, a colour and a word. Times are this browser's.</p>
    <div class="row"><button class="primary" onClick=${close}>Close</button></div></dialog>`;
}

let before = "";

function pressed(event) {
  if (!keys.value && event.key !== "?") return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  const went = before === "g" && PAGES.find(([, , key]) => key === event.key);
  before = event.key;
  if (went) go(`#/${went[0]}`);
  else if (event.key === "?") helping.value = true;
  else if (event.key === "t") turn();
  else if (event.key === "/") document.querySelector("main input[type=search]")?.focus();
  else if (event.key === "j" || event.key === "k") failure(event.key === "j" ? 1 : -1);
  else return;
  event.preventDefault();
}

function failure(step) {
  const all = [...document.querySelectorAll(".failure > summary")];
  const at = all.indexOf(document.activeElement);
  all[Math.min(Math.max(at + step, 0), all.length - 1)]?.focus();
}

setInterval(() => (now.value = Date.now() / 1000), 1000);
takeToken();
addEventListener("keydown", pressed);
addEventListener("hashchange", () => {
  if (/^#token=/.test(location.hash)) location.reload();
});
render(html`<${App} />`, document.getElementById("app"));

let begun = false;

token.subscribe(() => {
  if (!token.value || begun) return;
  begun = true;
  start().finally(() => (begun = false));
});
