// The nodes: what each is and can do, how busy it is, and what may be asked of it.

import { html } from "./vendor/ui.js";
import { post } from "./api.js";
import { bytes, milliseconds, percent, plural, whole } from "./format.js";
import { Devices } from "./hardware.js";
import { useLive } from "./live.js";
import { narrow, route } from "./route.js";
import { alerts, loads, mesh, nameOf, nodes } from "./store.js";
import { Topology } from "./topology.js";
import { AlertRow } from "./alerts.js";
import { Awaited, Card, Deed, Empty, Sparkline, State, Table, Th } from "./widgets.js";

const role = (node) => (node.peer === mesh.value.coordinator ? "coordinator" : node.raft || node.role);

export function Nodes() {
  const { search = "", state = "" } = route.value.query;
  const wanted = search.toLowerCase();
  const found = nodes.value.filter((node) => (!state || node.state === state) && `${node.name} ${node.peer} ${JSON.stringify(node.capabilities)}`.toLowerCase().includes(wanted));
  return html`<h1 tabindex="-1">Nodes</h1>
    <${Card} title="All nodes" note=${plural(found.length, "node")}>
      <form class="row" role="search" onSubmit=${(event) => event.preventDefault()}>
        <label class="field">Name, peer or capability<input type="search" value=${search} onInput=${(event) => narrow({ search: event.target.value })} /></label>
        <label class="field">State<select value=${state} onChange=${(event) => narrow({ state: event.target.value })}>
          ${["", "alive", "suspect", "draining", "dead"].map((one) => html`<option key=${one} value=${one}>${one || "any"}</option>`)}</select></label>
      </form>
      ${found.length ? html`<${Table} caption="Nodes" head=${html`<${Th}>Name<//><${Th}>State<//><${Th}>Role<//><${Th} number>Busy<//><${Th} number>CPU<//><${Th}>History<//><${Th}>Capabilities<//>`}>
        ${found.map((node) => html`<${Row} key=${node.peer} node=${node} />`)}<//>` : html`<${Empty}>No node is like that.<//>`}
    <//>
    <div class="two"><${Topology} /><${Group} /></div>`;
}

function Row({ node }) {
  const cpu = node.load?.["cpu.percent"];
  return html`<tr><th scope="row"><a href=${`#/nodes/${node.peer}`} title=${node.peer}>${node.name}</a>${node.peer === mesh.value.self ? html` <span class="soft small">(this page)</span>` : ""}</th>
    <td><${State} of=${node.state} /></td><td>${role(node)}</td><td class="number">${node.busy} of ${node.slots}</td><td class="number">${node.state === "dead" || cpu == null ? "–" : percent(cpu / 100)}</td>
    <td><${Sparkline} points=${loads.value.get(node.peer) ?? []} width=${110} label=${`CPU of ${node.name} since this page was opened`} /></td>
    <td class="soft small wide">${abilities(node.capabilities)}</td></tr>`;
}

function abilities(has) {
  const labels = Object.entries(has).filter(([name]) => name.startsWith("label.")).map(([name, value]) => `${name.slice(6)}=${value}`);
  return [
    has["cpu.cores"] && plural(has["cpu.cores"], "core"),
    has.memory && bytes(has.memory),
    has.os,
    has.arch,
    has.python && `Python ${has.python}`,
    Array.isArray(has.gpu) && has.gpu.length && plural(has.gpu.length, "GPU"),
    ...labels,
  ].filter(Boolean).join(" · "); // prettier-ignore
}

function Group() {
  const { data, error } = useLive("api/raft", { poll: 5000, every: 3000 });
  if (!data) return html`<${Card} title="The group that keeps the log"><${Awaited} error=${error} /><//>`;
  const health = data.health;
  return html`<${Card} title="The group that keeps the log" note=${data.by_leader ? "as its leader sees it" : `as ${nameOf(data.seen_by)} sees it`}>
    <p><${State} of=${health.state === "ok" ? "good" : health.quorum ? "warn" : "critical"} text=${health.state} /></p>
    ${health.reasons.map((reason, place) => html`<p key=${place} class="any">${reason}</p>`)}
    ${data.members.length > 0 && html`<${Table} caption="Members" head=${html`<${Th}>Member<//><${Th}>Role<//><${Th} number>Behind<//><${Th} number>Silent<//>`}>
      ${data.members.map((member) => html`<tr key=${member.peer}><th scope="row">${nameOf(member.peer, member.name)}</th><td>${member.leader ? "leader" : member.role}</td><td class="number">${whole(member.behind)}</td><td class="number">${member.silent_seconds == null ? "–" : `${member.silent_seconds.toFixed(1)} s`}</td></tr>`)}<//>`}
    ${data.term != null && html`<p class="soft small">term ${whole(data.term)} · committed ${whole(data.commit)} · applied ${whole(data.applied)} · log from ${whole(data.first_index)} · format ${data.format.in_force}</p>`}
  <//>`;
}

const DEEDS = [
  ["drain", "Drain", "", "It finishes what it runs and gets nothing more, until it is restarted.", "Drain it"],
  ["restart", "Restart", "", "It drains, ends, and starts again.", "Restart it"],
  ["update", "Update", "", "It drains, fetches its program's newest version, and starts again.", "Update it"],
  ["stop", "Stop", "danger", "It drains and ends. Somebody has to start it again by hand.", "Stop it"],
];

export function Node({ peer }) {
  const node = nodes.value.find((one) => one.peer === peer || one.name === peer);
  if (!node) return html`<h1 tabindex="-1">Node</h1><section class="card"><${Empty}>The mesh knows of no node ${peer}.<//></section>`;
  const about = (alerts.value ?? []).filter((alert) => alert.node === node.peer && !alert.cleared_at);
  const points = loads.value.get(node.peer) ?? [];
  return html`<section class="card" aria-label="Node">
      <div class="row"><h1 tabindex="-1">${node.name}</h1><${State} of=${node.state} /><span class="chip">${role(node)}</span>${node.peer === mesh.value.self && html`<span class="soft">this page comes from it</span>`}</div>
      <p class="small any"><code>${node.peer}</code></p>
      <div class="row" role="group" aria-label="Commands" style=${{ marginTop: ".6rem" }}>${DEEDS.map(([verb, text, className, what, yes]) => html`<${Deed} key=${verb} className=${className} question=${{ title: `${text} ${node.name}?`, text: what, yes, no: "Leave it" }} does=${() => post("api/command", { node: node.peer, verb })} done="asked">${text}<//>`)}</div>
    </section>
    ${about.map((alert) => html`<section class="card" key=${alert.id} aria-label="Alert"><${AlertRow} alert=${alert} /></section>`)}
    <div class="two"><${Card} title="Load"><${Devices} node=${node} />
        <div style=${{ marginTop: ".8rem" }}><${Sparkline} points=${points} width=${420} height=${70} label=${`CPU and slots of ${node.name} since this page was opened`} /></div>
        <p class="soft small">Since this page was opened: CPU as a line, slots in use dashed.</p><//>
      <${Card} title="Capabilities"><dl class="facts">${Object.entries(node.capabilities).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd key=${name + "="}>${shown(name, value)}</dd>`)}</dl><//></div>
    <div class="two"><${Card} title="Addresses"><ul class="plain">${node.addresses.map((one) => html`<li key=${one}><code class="any">${one}</code></li>`)}</ul><//>
      <${Links} peer=${node.peer} /></div>`;
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
