// How busy each node and each of its devices is.

import { html, useState } from "./vendor/ui.js";
import { bytes, percent } from "./format.js";
import { loads, nodes } from "./store.js";
import { Card, Empty, Shape, Sparkline, Use } from "./widgets.js";

const SHOWN_MAX = 12;

export function Hardware() {
  const [all, setAll] = useState(false);
  const live = nodes.value.filter((node) => node.state !== "dead");
  const busiest = [...live].sort((a, b) => b.busy - a.busy || (b.load?.["cpu.percent"] ?? 0) - (a.load?.["cpu.percent"] ?? 0) || (a.peer < b.peer ? -1 : 1));
  const shown = live.length <= SHOWN_MAX ? live : all ? live : busiest.slice(0, SHOWN_MAX);
  const end = live.length > SHOWN_MAX && html`<button class="plain" onClick=${() => setAll(!all)}>${all ? "Only the busiest" : `All ${live.length}`}</button>`;
  return html`<${Card} title="Hardware" note=${live.length > SHOWN_MAX && !all ? `the ${SHOWN_MAX} busiest nodes` : "use now, by node and device"} end=${end}>
    ${shown.length ? html`<div class="hosts">${shown.map((node) => html`<${Host} key=${node.peer} node=${node} />`)}</div>` : html`<${Empty}>No node is alive.<//>`}
  <//>`;
}

function Host({ node }) {
  const points = loads.value.get(node.peer) ?? [];
  return html`<article class="host" aria-label=${node.name}>
    <header><${Shape} of=${node.state} /><a class="cut" href=${`#/nodes/${node.peer}`}>${node.name}</a>
      <span class="end"><${Sparkline} points=${points} width=${70} height=${18} label=${`CPU of ${node.name} since this page was opened`} /></span></header>
    <${Devices} node=${node} />
  </article>`;
}

export function Devices({ node }) {
  const { load = {}, capabilities: has } = node;
  const gpus = Array.isArray(has.gpu) ? has.gpu : [];
  const cpu = load["cpu.percent"];
  const free = load["memory.available"];
  const disk = load["disk.free"];
  return html`
    <${Use} label="Slots" share=${node.slots ? node.busy / node.slots : null} text=${`${node.busy} of ${node.slots}`} />
    <${Use} label="CPU" share=${cpu == null ? null : cpu / 100} text=${cpu == null ? undefined : `${percent(cpu / 100)} of ${has["cpu.threads"] ?? has["cpu.cores"] ?? "?"}`} />
    <${Use} label="Memory" share=${free == null || !has.memory ? null : 1 - free / has.memory} text=${free == null ? undefined : `${bytes(free)} free`} />
    <${Use} label="Disk" share=${disk == null || !has["disk.total"] ? null : 1 - disk / has["disk.total"]} text=${disk == null ? undefined : `${bytes(disk)} free`} />
    ${gpus.map((gpu, place) => html`<${Gpu} key=${place} gpu=${gpu} name=${`GPU ${gpu.index ?? place}`} use=${(load.gpu ?? []).find((one) => one.index === gpu.index) ?? {}} />`)}`;
}

function Gpu({ gpu, name, use }) {
  const { percent: busy, "memory.free": left } = use;
  const what = [name, gpu.name].filter(Boolean).join(", ");
  return html`
    <${Use} label=${name} title=${what} share=${busy == null ? null : busy / 100} />
    <${Use} label="memory" title=${`${what}: memory`} share=${left == null || !gpu.memory ? null : 1 - left / gpu.memory} text=${left == null ? undefined : `${bytes(left)} free`} />`;
}
