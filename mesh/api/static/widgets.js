// Small pieces that every page is made of. What comes from suites and nodes is put in as text, never as markup.

import { html, signal, useEffect, useLayoutEffect, useRef, useState } from "./vendor/ui.js";
import { link } from "./api.js";
import { BAR_ORDER, DASH, about, percent, plural, split, whole } from "./format.js";
import { nameOf } from "./store.js";

// Each state has a shape of its own, so that colour is never all there is.
const SHAPES = {
  tick: "M2.5 6.5 5 9l4.5-6",
  cross: "M3 3l6 6M9 3l-6 6",
  bang: "M6 2.2v4.6M6 9.2v.6",
  skip: "M2.5 6h7M7 3.2 9.8 6 7 8.8",
  approx: "M2.5 5c1.2-1.4 2.3-1.4 3.5 0s2.3 1.4 3.5 0M2.5 8c1.2-1.4 2.3-1.4 3.5 0s2.3 1.4 3.5 0",
  plus: "M6 2.5v7M2.5 6h7",
  play: "M4 2.8 9 6 4 9.2z",
  wait: "M6 2.5A3.5 3.5 0 1 0 6 9.5 3.5 3.5 0 1 0 6 2.5M6 4v2.2l1.5 1",
  stop: "M3.2 3.2h5.6v5.6H3.2z",
  drain: "M6 2v6M3.2 5.6 6 8.4l2.8-2.8M2.5 10.3h7",
  unsure: "M4 4.3a2 2 0 1 1 2.6 2c-.5.2-.6.5-.6 1M6 9.6v.3",
  turn: "M4 2.5 8 6 4 9.5",
};
const SHAPE_OF = {
  passed: "tick", failed: "cross", error: "bang", skipped: "skip", xfailed: "approx", xpassed: "plus",
  running: "play", collecting: "play", reporting: "play", leased: "play", queued: "wait", pending: "wait", cancelled: "stop",
  alive: "tick", dead: "cross", suspect: "unsure", draining: "drain", info: "bang", warning: "bang", critical: "cross", good: "tick", warn: "bang",
}; // prettier-ignore
const COLOUR_OF = { collecting: "running", reporting: "running", queued: "pending" };
const FILLED = new Set(["play", "stop"]);

export function Shape({ of, size = 13 }) {
  const shape = SHAPE_OF[of] ?? of;
  return html`<svg class=${`c-${COLOUR_OF[of] ?? of}`} width=${size} height=${size} viewBox="0 0 12 12" aria-hidden="true">
    <path d=${SHAPES[shape] ?? SHAPES.unsure} fill=${FILLED.has(shape) ? "currentColor" : "none"} stroke="currentColor"
      stroke-width="1.9" stroke-linecap="round" stroke-linejoin="round" /></svg>`;
}

export const State = ({ of, text = of }) => html`<span class="state"><${Shape} of=${of} />${text}</span>`;

export const Turn = () => html`<svg class="turn" width="11" height="11" viewBox="0 0 12 12" aria-hidden="true">
  <path d=${SHAPES.turn} fill="none" stroke="currentColor" stroke-width="1.9" stroke-linecap="round" /></svg>`;

export function Card({ title, note, end, children, id, level = 2 }) {
  return html`<section class="card" aria-label=${title} id=${id}>
    <header>${level === 2 ? html`<h2>${title}</h2>` : html`<h3>${title}</h3>`}
      ${note && html`<span class="soft small">${note}</span>`}${end && html`<span class="end">${end}</span>`}</header>
    ${children}
  </section>`;
}

export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/** In place of what is asked for, until it is here; or why it does not come. */
export const Awaited = ({ error }) => html`<${Empty}>${error ? error.message : "…"}<//>`;

/** A table that may be wider than the screen: it scrolls by itself, by keys too. */
export function Table({ caption, head, children, tall }) {
  return html`<div class=${tall ? "scroll tall" : "scroll"} tabindex="0" role="region" aria-label=${caption}><table>
    <caption class="quiet">${caption}</caption>
    <thead><tr>${head}</tr></thead><tbody>${children}</tbody></table></div>`;
}

export const Th = ({ children, number, className = "", sort }) => html`<th scope="col" class=${`${number ? "number" : ""} ${className}`} aria-sort=${sort}>${children}</th>`;

/** How the tests of a run stand, as a bar; its text is for those who don't see it. */
export function RunBar({ run, thin }) {
  const total = Math.max(run.tests || run.pending + run.leased + run.done, 1);
  const parts = BAR_ORDER.map((outcome) => [outcome, run.counts?.[outcome] ?? 0]);
  parts.push(["leased", run.leased]);
  const text = parts.filter(([, count]) => count).map(([name, count]) => `${whole(count)} ${name === "leased" ? "with workers" : name}`);
  return html`<div class=${thin ? "bar thin" : "bar"} role="img" aria-label=${`${whole(run.done)} of ${plural(run.tests, "test")} done${text.length ? ": " + text.join(", ") : ""}`}>
    ${parts.map(([name, count]) => count > 0 && html`<i key=${name} class=${`b-${name}`} style=${{ width: `${Math.max((100 * count) / total, 0.4)}%` }}></i>`)}
  </div>`;
}

export function Counts({ run }) {
  const parts = BAR_ORDER.filter((outcome) => run.counts?.[outcome]);
  return html`<ul class="legend">
    ${parts.map((outcome) => html`<li key=${outcome}><${Shape} of=${outcome} /><b>${whole(run.counts[outcome])}</b> ${outcome}</li>`)}
    ${run.leased > 0 && html`<li><${Shape} of="leased" /><b>${whole(run.leased)}</b> with workers</li>`}
    ${run.pending > 0 && html`<li><${Shape} of="pending" /><b>${whole(run.pending)}</b> waiting</li>`}
  </ul>`;
}

/** `title`: what it is, where the label alone does not say it. */
export function Use({ label, title = label, share, text }) {
  const known = share != null && Number.isFinite(share);
  const width = Math.min(Math.max(share || 0, 0), 1);
  return html`<div class="device"><span class="soft cut" title=${title}>${label}</span>
    <span class="bar thin" role="img" aria-label=${`${title}: ${known ? percent(share) : "not known"}`}>
      <i class=${width > 0.9 ? "b-high" : "b-use"} style=${{ width: `${100 * width}%` }}></i></span>
    <span class="number">${text ?? percent(share)}</span></div>`;
}

export function TestName({ test }) {
  const [path, name] = split(test);
  return html`<span class="name"><span class="path">${path}</span><wbr />${name}</span>`;
}

export const testHref = (run, index) => `#/runs/${run}/tests/${index}`;

export function Worker({ peer, name }) {
  if (!peer) return DASH;
  return html`<a href=${`#/nodes/${peer}`} title=${peer}>${nameOf(peer, name)}</a>`;
}

export const eta = (run, of) => {
  if (!run.tests) return "";
  const left = of ?? run.eta_seconds;
  return left == null ? "" : `${about(left)} left`;
};

/** A link to content: the address is asked of the node, since the browser sends no token with a link. */
export function ContentLink({ cid, path = "", children, title = cid, download }) {
  const [href, setHref] = useState(null);
  useEffect(() => {
    let here = true;
    link(cid).then((base) => here && setHref(base + (path ? "/" + path.split("/").map(encodeURIComponent).join("/") : "/")), () => {});
    return () => { here = false; };
  }, [cid, path]);
  return html`<a href=${href} target="_blank" rel="noreferrer" title=${title} download=${download}>${children}</a>`;
}

export function Sparkline({ points, width = 120, height = 26, label }) {
  if (points.length < 2) return html`<span class="soft small">collecting…</span>`;
  const [first, last] = [points[0][0], points[points.length - 1][0]];
  const x = (at) => ((at - first) / Math.max(last - first, 1)) * (width - 2) + 1;
  const line = (column) => points.map((point) => `${x(point[0]).toFixed(1)},${(height - 2 - Math.min(point[column], 1) * (height - 4)).toFixed(1)}`).join(" ");
  return html`<svg class="spark" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${label}>
    <polyline points=${line(2)} fill="none" stroke="var(--leased)" stroke-width="1.3" stroke-dasharray="3 2" />
    <polyline points=${line(1)} fill="none" stroke="var(--xpassed)" stroke-width="1.5" /></svg>`;
}

const asking = signal(null);

/** Ask before something that can't be undone; true if the answer is yes. */
export function confirm(question) {
  return new Promise((resolve) => (asking.value = { ...question, resolve }));
}

export function Confirm() {
  const dialog = useRef(null);
  const question = asking.value;
  useLayoutEffect(() => {
    if (question) dialog.current.showModal();
  }, [question]);
  if (!question) return null;
  const answer = (yes) => {
    asking.value = null;
    question.resolve(yes);
  };
  return html`<dialog ref=${dialog} aria-labelledby="ask-title" aria-describedby="ask-text" onCancel=${(event) => { event.preventDefault(); answer(false); }}>
    <h2 id="ask-title">${question.title}</h2>
    <p id="ask-text">${question.text}</p>
    <div class="row"><button onClick=${() => answer(false)} autofocus>${question.no ?? "Keep it"}</button>
      <button class="danger" onClick=${() => answer(true)}>${question.yes}</button></div>
  </dialog>`;
}

/** A button whose deed may fail: it says so beside it. */
export function Deed({ children, question, does, done, className = "" }) {
  const [state, setState] = useState({});
  const click = async () => {
    if (question && !(await confirm(question))) return;
    setState({ busy: true });
    try {
      await does();
      setState({ text: done });
    } catch (error) {
      setState({ error: error.message });
    }
  };
  return html`<span class="deed"><button class=${className} disabled=${state.busy} onClick=${click}>${children}</button>
    <span role="status" class=${state.error ? "c-bad small" : "soft small"}>${state.error ?? state.text ?? ""}</span></span>`;
}

/** Tests of a run, a line each; `right(test)`: what stands at its end. */
export function TestRows({ tests, run, right }) {
  return html`<ul class="plain">${tests.map((test) => html`<li key=${test.index} class="row" style=${{ flexWrap: "nowrap" }}>
    <${Shape} of=${test.outcome ?? test.state} /><a class="cut" style=${{ flex: 1 }} href=${testHref(run, test.index)} title=${test.test}><${TestName} test=${test.test} /></a>
    <span class="nowrap small">${right(test)}</span></li>`)}</ul>`;
}
