// One node: what it is and can do, how busy it was, what happened to it, what it ran, and what may be asked of it.

import { html } from "./vendor/ui.js";
import { post } from "./api.js";
import { DASH, bytes, milliseconds, moment, plural, seconds, whole } from "./format.js";
import { Devices } from "./hardware.js";
import { useLive } from "./live.js";
import { alerts, mesh, nameOf, nodes } from "./store.js";
import { AlertRow } from "./alerts.js";
import { Loads } from "./loads.js";
import { role } from "./nodes.js";
import { Awaited, Card, Deed, Empty, Shape, State, Table, Th } from "./widgets.js";

const ALERTS_SHOWN = 10;

const DEEDS = [
  ["drain", "Drain", "", "It finishes what it runs and gets nothing more, until it is restarted.", "Drain it"],
  ["restart", "Restart", "", "It drains, ends, and starts again.", "Restart it"],
  ["update", "Update", "", "It drains, fetches its program's newest version, and starts again.", "Update it"],
  ["stop", "Stop", "danger", "It drains and ends. Somebody has to start it again by hand.", "Stop it"],
];

export function Node({ peer }) {
  const node = nodes.value.find((one) => one.peer === peer || one.name === peer);
  if (!node) return html`<h1 tabindex="-1">Node</h1><section class="card"><${Empty}>The mesh knows of no node ${peer}.<//></section>`;
  const about = (alerts.value ?? []).filter((alert) => alert.node === node.peer);
  const told = html`<${Card} title="Alerts about it" note=${about.length > ALERTS_SHOWN ? `the first ${ALERTS_SHOWN} of ${whole(about.length)}` : ""}>
    ${about.length ? about.slice(0, ALERTS_SHOWN).map((alert) => html`<${AlertRow} key=${alert.id} alert=${alert} />`) : html`<${Empty}>None that is remembered.<//>`}<//>`;
  const troubled = about.some((alert) => !alert.cleared_at);
  return html`<section class="card" aria-label="Node">
      <div class="row"><h1 tabindex="-1">${node.name}</h1><${State} of=${node.state} /><span class="chip">${role(node)}</span>${node.peer === mesh.value.self && html`<span class="soft">this page comes from it</span>`}</div>
      <p class="small any"><code>${node.peer}</code></p>
      <div class="row" role="group" aria-label="Commands" style=${{ marginTop: ".6rem" }}>${DEEDS.map(([verb, text, className, what, yes]) => html`<${Deed} key=${verb} className=${className} question=${{ title: `${text} ${node.name}?`, text: what, yes, no: "Leave it" }} does=${() => post("api/command", { node: node.peer, verb })} done="asked">${text}<//>`)}</div>
    </section>
    ${troubled && told}
    <${Loads} node=${node} />
    <div class="two"><${Card} title="Use now"><${Devices} node=${node} /><//>
      <${Ran} peer=${node.peer} /></div>
    ${!troubled && told}
    <div class="two"><${Card} title="Capabilities"><dl class="facts">${Object.entries(node.capabilities).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd key=${name + "="}>${shown(name, value)}</dd>`)}</dl><//>
      <div class="stack"><${Card} title="Addresses"><ul class="plain">${node.addresses.map((one) => html`<li key=${one}><code class="any">${one}</code></li>`)}</ul><//>
        <${Links} peer=${node.peer} /></div></div>`;
}

function Ran({ peer }) {
  const { data, error } = useLive(`api/nodes/${peer}/runs`, { on: ["run-finished"], every: 5000, poll: 30000 });
  if (!data) return html`<${Card} title="What it ran lately"><${Awaited} error=${error} /><//>`;
  return html`<${Card} title="What it ran lately" note="of runs that are over">
    ${data.runs.length ? html`<${Table} tall caption="What it ran" head=${html`<${Th}>Run<//><${Th}>When<//><${Th} number>Tests<//><${Th} number>Wrong<//><${Th} number className="phone-no">Tried again<//><${Th} number>Time<//>`}>
      ${data.runs.map((one) => html`<tr key=${one.run + one.at}><th scope="row"><span class="state"><${Shape} of=${one.state} /><span class="quiet">${one.state}</span><a href=${`#/runs/${one.run}`}>${one.run} ${one.name}</a></span></th><td class="nowrap">${moment(one.at)}</td><td class="number">${whole(one.tests)}</td>
        <td class="number">${one.bad ? html`<span class="state"><${Shape} of="failed" />${whole(one.bad)}</span>` : whole(one.bad)}</td><td class="number phone-no">${whole(one.retried)}</td><td class="number">${one.seconds == null ? DASH : seconds(one.seconds)}</td></tr>`)}<//>` : html`<${Empty}>No run that is over had a test here.<//>`}<//>`;
}

function shown(name, value) {
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) return value.join(", ") || "none";
  if (Array.isArray(value)) return html`<ul class="plain">${value.map((one, place) => html`<li key=${place}>${one.name ?? JSON.stringify(one)}${one.version ? ` ${one.version}` : ""}${one.memory ? `, ${bytes(one.memory)}` : ""}${one.cuda ? `, CUDA ${one.cuda}` : ""}</li>`)}</ul>`;
  if (value !== null && typeof value === "object") return JSON.stringify(value);
  return typeof value === "number" && /^(memory|disk)/.test(name) ? bytes(value) : typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

function Links({ peer }) {
  const { data } = useLive("api/topology", { poll: 5000, every: 2000 });
  const links = (data?.links ?? []).filter((link) => link.a === peer || link.b === peer);
  return html`<${Card} title="Connections" note=${plural(links.length, "node")}>
    ${links.length ? html`<${Table} caption="Connections" head=${html`<${Th}>To<//><${Th} number>Round trip<//>`}>
      ${links.map((link) => { const other = link.a === peer ? link.b : link.a; return html`<tr key=${other}><th scope="row"><a href=${`#/nodes/${other}`}>${nameOf(other)}</a></th><td class="number">${milliseconds(link.rtt)}</td></tr>`; })}<//>` : html`<${Empty}>It reports none.<//>`}<//>`;
}
