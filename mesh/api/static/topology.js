// The nodes and their connections as a picture: shape and text say what colour says, too. A table tells the same.

import { html, useEffect, useMemo, useState } from "./vendor/ui.js";
import { milliseconds, plural } from "./format.js";
import { useLive } from "./live.js";
import { mesh, nameOf, nodes } from "./store.js";
import { Awaited, Card, Empty, Table, Th } from "./widgets.js";

const [WIDTH, HEIGHT] = matchMedia("(max-width: 560px)").matches ? [340, 300] : [560, 360]; // names are as large on a phone
const TICKS = 180;
const NAMED_MAX = 40; // more names than that cover each other
const NEAR = 0.005;
const FAR = 0.05; // seconds

const quality = (rtt) => (rtt == null || rtt < NEAR ? "near" : rtt < FAR ? "far" : "remote");
const QUALITIES = { near: "under 5 ms", far: "under 50 ms", remote: "50 ms and more" };

export function Topology() {
  const { data, error } = useLive("api/topology", { on: ["worker-joined"], every: 2000, poll: 5000 });
  const live = nodes.value;
  const links = data?.links ?? [];
  const places = useLayout(live, links);
  if (error && !data) return html`<${Card} title="Topology"><${Awaited} error=${error} /><//>`;
  const drawn = links.filter((link) => places?.has(link.a) && places.has(link.b));
  return html`<${Card} title="Topology" note=${`${plural(live.length, "node")}, ${plural(links.length, "link")}`}>
    ${places ? html`<${Picture} nodes=${live} links=${drawn} places=${places} />` : html`<${Empty}>…<//>`}
    <ul class="legend" aria-label="What the lines mean">${Object.entries(QUALITIES).map(([name, text]) => html`<li key=${name}>
      <svg class="graph" style=${{ width: "28px" }} viewBox="0 0 28 6" aria-hidden="true"><path class=${`link ${name}`} d="M0 3h28" /></svg>${text}</li>`)}
      <li><svg width="13" height="13" viewBox="-7 -7 14 14" aria-hidden="true"><circle r="5.5" fill="none" stroke="var(--ink)" stroke-width="1.5" /><circle r="2.8" fill="var(--xpassed)" /></svg>coordinator</li>
      <li><svg width="13" height="13" viewBox="-7 -7 14 14" aria-hidden="true"><path d="M0-6 6 0 0 6-6 0z" fill="var(--xpassed)" /></svg>does not vote</li></ul>
    <details class="more"><summary>The same as a table</summary>
      <${Table} caption="Links between nodes" head=${html`<${Th}>From<//><${Th}>To<//><${Th} number>Round trip<//>`}>
        ${links.slice(0, 500).map((link) => html`<tr key=${link.a + link.b}><td>${nameOf(link.a)}</td><td>${nameOf(link.b)}</td><td class="number">${milliseconds(link.rtt)}</td></tr>`)}
      <//></details>
  <//>`;
}

function useLayout(live, links) {
  const [places, setPlaces] = useState(null);
  const shape = useMemo(() => [live.map((node) => node.peer).join(), links.length].join("|"), [live, links]);
  useEffect(() => {
    let here = true;
    import("./vendor/charts.js").then((charts) => here && setPlaces((before) => layout(charts, live, links, before)));
    return () => { here = false; };
  }, [shape]);
  return places;
}

/** Map of peer -> [x, y]. Who was there before stays about where it was. */
function layout({ forceSimulation, forceLink, forceManyBody, forceCollide, forceX, forceY }, live, links, before) {
  const turn = (2 * Math.PI) / Math.max(live.length, 1);
  const points = live.map(({ peer }, index) => {
    const [x, y] = before?.get(peer) ?? [WIDTH / 2 + 120 * Math.cos(index * turn - 1.57), HEIGHT / 2 + 120 * Math.sin(index * turn - 1.57)];
    return { peer, x, y };
  });
  const by = new Map(points.map((point) => [point.peer, point]));
  const edges = links.filter((link) => by.has(link.a) && by.has(link.b)).map((link) => ({ source: by.get(link.a), target: by.get(link.b), rtt: link.rtt ?? 0 }));
  const room = Math.sqrt((WIDTH * HEIGHT) / Math.max(live.length, 1));
  const far = (edge) => room * (edge.rtt > FAR ? 1.5 : edge.rtt > NEAR ? 1.2 : 0.9);
  const simulation = forceSimulation(points)
    .force("link", forceLink(edges).distance(far).strength(0.4 / Math.sqrt(Math.max(live.length, 1))))
    .force("charge", forceManyBody().strength(-3.2 * room))
    .force("collide", forceCollide(Math.min(room * 0.35, 42)))
    .force("x", forceX(WIDTH / 2).strength(0.09))
    .force("y", forceY(HEIGHT / 2).strength(0.13))
    .stop();
  simulation.tick(live.length > 100 ? TICKS / 2 : TICKS);
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  return new Map(points.map(({ peer, x, y }) => [peer, [within(x, 40, WIDTH - 40), within(y, 22, HEIGHT - 44)]])); // names are below
}

function Picture({ nodes: live, links, places }) {
  const path = (kind) => links.filter((link) => quality(link.rtt) === kind).map((link) => `M${places.get(link.a).map(Math.round).join()}L${places.get(link.b).map(Math.round).join()}`).join("");
  const named = live.length <= NAMED_MAX;
  const size = named ? 11 : live.length <= 100 ? 8 : 6;
  const dead = live.filter((node) => node.state === "dead").length;
  const label = `Topology: ${plural(live.length, "node")}${dead ? `, ${dead} dead` : ""}, ${plural(links.length, "link")}; coordinator ${nameOf(mesh.value.coordinator, "nobody")}`;
  return html`<svg class="graph" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="group" aria-label=${label}>
    <g aria-hidden="true" opacity=${links.length > 400 ? 0.35 : 0.9}>${Object.keys(QUALITIES).map((kind) => html`<path key=${kind} class=${`link ${kind}`} d=${path(kind)} />`)}</g>
    ${live.map((node) => places.has(node.peer) && html`<${Dot} key=${node.peer} node=${node} place=${places.get(node.peer)} size=${size} named=${named || node.peer === mesh.value.coordinator || node.state !== "alive"} />`)}
  </svg>`;
}

const COLOUR = { alive: "var(--xpassed)", draining: "var(--warn)", suspect: "var(--warn)", dead: "var(--leased)" };

function Dot({ node, place: [x, y], size, named }) {
  const leads = node.peer === mesh.value.coordinator;
  const gone = node.state === "dead";
  const shown = node.name.length > 18 ? node.name.slice(0, 17) + "…" : node.name;
  const role = leads ? "coordinator" : node.raft === "voter" ? "voter" : node.role;
  const text = [node.state !== "alive" && node.state, size > 8 && role, node.slots && size > 8 ? `${node.busy}/${node.slots}` : ""].filter(Boolean).join(" · ");
  const body = node.raft === "voter" || leads ? html`<circle class="body" r=${size} />` : html`<path class="body" d=${`M0${-size * 1.15} ${size * 1.15} 0 0 ${size * 1.15} ${-size * 1.15} 0z`} />`;
  return html`<a href=${`#/nodes/${node.peer}`} transform=${`translate(${x.toFixed(1)},${y.toFixed(1)})`}>
    <title>${`${node.name}: ${node.state}, ${role}, ${node.busy} of ${node.slots} slots busy`}</title>
    <circle class="halo" r=${size + 6} />
    <g fill=${gone ? "var(--card)" : COLOUR[node.state]} stroke=${gone ? "var(--failed)" : "var(--card)"} stroke-width=${gone ? 1.8 : 1.5} stroke-dasharray=${gone ? "3 2" : node.state === "suspect" ? "3 2" : ""}>${body}</g>
    ${leads && html`<circle r=${size + 3.5} fill="none" stroke="var(--ink)" stroke-width="1.6" />`}
    ${gone && html`<path d=${`M${-size * 0.45} ${-size * 0.45} ${size * 0.45} ${size * 0.45}M${size * 0.45} ${-size * 0.45} ${-size * 0.45} ${size * 0.45}`} stroke="var(--failed)" stroke-width="2" />`}
    ${named && html`<text text-anchor="middle" y=${size + 15}>${shown}</text><text class="role" text-anchor="middle" y=${size + 27}>${text}</text>`}
  </a>`;
}
