// The nodes: what each is and can do, and how busy it is.

import { html } from "./vendor/ui.js";
import { bytes, percent, plural, whole } from "./format.js";
import { useLive } from "./live.js";
import { narrow, route } from "./route.js";
import { loads, mesh, nameOf, nodes } from "./store.js";
import { Topology } from "./topology.js";
import { Awaited, Card, Empty, Sparkline, State, Table, Th } from "./widgets.js";

export const role = (node) => (node.peer === mesh.value.coordinator ? "coordinator" : node.raft || node.role);

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
