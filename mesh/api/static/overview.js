// The first page: who is here, who leads, what runs, what fails, what is slow.

import { html } from "./vendor/ui.js";
import { query } from "./api.js";
import { about, ago, areGuessed, bad, clock, iso, isOver, plural, seconds, short, spent, whole } from "./format.js";
import { Hardware } from "./hardware.js";
import { useLive } from "./live.js";
import { latest, mesh, nameOf, newest, nodes, now, open, raised } from "./store.js";
import { Topology } from "./topology.js";
import { Awaited, Card, Empty, RunBar, Shape, State, Table, TestRows, Th, Worker, eta } from "./widgets.js";

const RUNS_SHOWN = 8;
const LIST_MAX = 6;
const ALERTS_SHOWN = 3;

export function Overview() {
  const queue = useLive("api/queue", { on: ["run-submitted", "run-progress", "run-finished", "run-leased"], every: 2000, poll: 10000 });
  const shown = focus();
  const slowest = useLive(shown?.done ? slowestPath(shown.run) : null, { on: [shown?.run ?? ""], every: 3000 });
  return html`<h1 class="quiet" tabindex="-1">Overview</h1>
    <${Tiles} queue=${queue.data} slowest=${slowest.data?.tests?.[0]} />
    <${Raised} />
    <div class="two wide-left">
      <div class="stack"><${Runs} queue=${queue.data} /><${Failing} run=${shown} /><${Slowest} run=${shown} found=${slowest} /><${Hardware} /></div>
      <div class="stack"><${Topology} /><${Waiting} queue=${queue} /><${Latest} /></div>
    </div>`;
}

/** The run that the lists of tests are about: of those that go on, the one with failures or the newest; else the newest. */
function focus() {
  return open.value.find(bad) ?? open.value.find((run) => run.done) ?? newest.value.find((run) => run.done) ?? newest.value[0] ?? null;
}

const etaOf = (queue, run) => queue?.runs.find((one) => one.run === run.run)?.eta_seconds ?? run.eta_seconds;

function Tiles({ queue, slowest }) {
  const all = nodes.value;
  const here = all.filter((node) => node.state === "alive").length;
  const away = ["dead", "suspect", "draining"].map((state) => [state, all.filter((node) => node.state === state).length]).filter(([, count]) => count);
  const leader = all.find((node) => node.peer === mesh.value.coordinator);
  const running = open.value;
  const [done, total] = running.reduce(([a, b], run) => [a + run.done, b + run.tests], [0, 0]);
  const longest = running.map((run) => etaOf(queue, run)).filter((left) => left != null);
  const failing = (running.length ? running : newest.value.slice(0, 1)).filter(bad);
  const broken = failing.reduce((sum, run) => sum + bad(run), 0);
  const last = running.length ? null : newest.value[0];
  const lost = !broken && last?.state === "error" ? last : null; // it ended without a verdict for each test
  const oldest = running.filter((run) => run.tests).sort((a, b) => a.submitted_at - b.submitted_at)[0];
  return html`<section class="tiles" aria-label="The mesh at a glance">
    <a class="tile" href="#/nodes"><div class="label">Who is here</div>
      <div class="value"><${Shape} of=${here === all.length ? "good" : "warn"} size=${16} />${here === all.length ? plural(here, "node") : `${here} of ${plural(all.length, "node")}`}</div>
      <div class="note">${away.length ? away.map(([state, count]) => `${count} ${state}`).join(", ") : `${all.reduce((sum, node) => sum + node.busy, 0)} of ${plural(all.reduce((sum, node) => sum + node.slots, 0), "slot")} busy`}</div></a>
    <a class="tile" href="#/nodes"><div class="label">Who leads</div>
      <div class="value"><${Shape} of=${mesh.value.agreed ? "good" : "critical"} size=${16} /><span class="cut">${leader ? leader.name : mesh.value.coordinator ? short(mesh.value.coordinator) : "nobody"}</span></div>
      <div class="note">term ${whole(mesh.value.term)} · ${plural(mesh.value.voters.length, "voter")} · log at ${whole(mesh.value.commit_index)}</div></a>
    <a class="tile" href="#/runs"><div class="label">What runs</div>
      <div class="value"><${Shape} of=${running.length ? "running" : "pending"} size=${16} />${running.length ? plural(running.length, "run") : "nothing"}</div>
      <div class="note">${running.length ? `${whole(done)} of ${plural(total, "test")}${longest.length ? ` · ${about(Math.max(...longest))} left` : ""}` : newest.value.length ? `last: run ${newest.value[0].run}, ${newest.value[0].state}` : "no runs yet"}</div></a>
    <a class="tile" href=${failing[0] ?? lost ? `#/runs/${(failing[0] ?? lost).run}` : "#/runs"}><div class="label">What fails</div>
      <div class="value"><${Shape} of=${broken ? "failed" : lost ? "error" : "good"} size=${16} />${broken ? plural(broken, "test") : lost ? `run ${lost.run}` : "nothing"}</div>
      <div class="note cut">${lost ? lost.reason : broken ? `in run ${failing.map((run) => run.run).slice(0, 3).join(", ")}` : running.length ? "so far" : "in the newest run"}${raised.value.length ? ` · ${plural(raised.value.length, "alert")}` : ""}</div></a>
    <a class="tile" href=${oldest ? `#/runs/${oldest.run}/timeline` : "#/trends"}><div class="label">What is slow</div>
      <${SlowTile} slowest=${slowest} /></a>
  </section>`;
}

function SlowTile({ slowest }) {
  if (!slowest?.duration) return html`<div class="value"><${Shape} of="pending" size=${16} />nothing yet</div><div class="note">no test has ended</div>`;
  return html`<div class="value">${seconds(slowest.duration)}</div><div class="note cut" title=${slowest.test}>${slowest.test.split("::").pop()}</div>`;
}

/** Alerts that nobody has acknowledged. */
function Raised() {
  const unseen = raised.value.filter((alert) => !alert.acknowledged_by);
  if (!unseen.length) return null;
  return html`<${Card} title="Alerts" end=${html`<a href="#/alerts">All, and what to do</a>`}><ul class="plain">
    ${unseen.slice(0, ALERTS_SHOWN).map((alert) => html`<li key=${alert.id} class="row" style=${{ flexWrap: "nowrap" }}><${Shape} of=${alert.severity} /><span class="quiet">${alert.severity}</span>
      <a class="cut" href="#/alerts" title=${alert.summary}>${alert.summary}</a><time class="soft small end nowrap" datetime=${iso(alert.since)}>${ago(alert.since, now.value)}</time></li>`)}</ul>
    ${unseen.length > ALERTS_SHOWN && html`<p class="small soft">and ${unseen.length - ALERTS_SHOWN} more</p>`}<//>`;
}

const slowestPath = (run) => `api/runs/${run}/tests${query({ sort: "duration", order: "desc", limit: LIST_MAX })}`;

function Runs({ queue }) {
  const shown = newest.value.filter((run) => !isOver(run)).concat(newest.value.filter(isOver)).slice(0, Math.max(RUNS_SHOWN, open.value.length));
  return html`<${Card} title="Runs" note=${newest.value.length > shown.length ? `${shown.length} of ${newest.value.length}` : ""} end=${html`<a href="#/runs">All runs</a>`}>
    ${shown.length ? html`<${RunsTable} runs=${shown} queue=${queue} />` : html`<${Empty}>No runs yet: <code>mesh run</code>, or <code>pytest --mesh</code>, submits one, and it shows up here at once.<//>`}
  <//>`;
}

export function RunsTable({ runs, queue }) {
  return html`<${Table} caption="Runs, newest first" head=${html`<${Th}>Run<//><${Th}>State<//><${Th}>Progress<//><${Th} number>Failing<//><${Th} number className="phone-no">Time<//>`}>
    ${runs.map((run) => html`<${RunRow} key=${run.run} run=${run} left=${etaOf(queue, run)} place=${run.queue} />`)}
  <//>`;
}

function RunRow({ run, left, place }) {
  const over = isOver(run);
  return html`<tr>
    <th scope="row"><a href=${`#/runs/${run.run}`}>${run.run}</a> <span class="any">${run.name}</span>
      ${run.priority !== 50 && html` <span class="chip">priority ${run.priority}</span>`}</th>
    <td><${State} of=${run.state} /></td>
    <td class="progress"><${RunBar} run=${run} />
      <div class=${over && run.reason ? "small soft two-lines" : "small soft"} title=${over ? run.reason : ""}>${over ? run.reason || plural(run.tests, "test") : run.tests ? html`${whole(run.done)} of ${whole(run.tests)}${left != null ? ` · ${eta(run, left)}` : ""}${place?.of > 1 ? ` · ${place.place} of ${place.of} in the queue` : ""}` : "being collected"}</div></td>
    <td class="number">${bad(run) ? html`<${State} of=${run.counts.failed ? "failed" : "error"} text=${whole(bad(run))} />` : html`<span class="soft">0</span>`}</td>
    <td class="number phone-no">${over ? seconds(run.wall_seconds) : run.submitted_at ? spent(now.value - run.submitted_at) : ""}</td>
  </tr>`;
}

function Failing({ run }) {
  const path = run && bad(run) ? `api/runs/${run.run}/tests${query({ outcome: "bad", limit: LIST_MAX })}` : null;
  const found = useLive(path, { on: [run ? `${run.run} bad` : "", "run-finished"], every: 1000 });
  const title = run ? `Failing in run ${run.run}` : "Failing";
  if (!path) return html`<${Card} title=${title}><${Empty}>${run ? (isOver(run) ? run.reason || "Nothing failed." : "Nothing has failed so far.") : "Failures of the newest run appear here."}<//><//>`;
  return html`<${Card} title=${title} note=${plural(bad(run), "test")} end=${html`<a href=${`#/runs/${run.run}`}>All, with output</a>`}>
    <${Rows} found=${found} run=${run.run} right=${(test) => html`<${Worker} peer=${test.worker} name=${test.name} />`} /><//>`;
}

function Slowest({ run, found }) {
  if (!run || !run.done) return html`<${Card} title="Slowest"><${Empty}>The slowest tests of the newest run appear here.<//><//>`;
  const guessed = areGuessed(found.data?.tests ?? []);
  return html`<${Card} title=${`Slowest in run ${run.run}`} end=${html`<a href=${`#/runs/${run.run}/tests?sort=duration&order=desc`}>All by time</a>`}>
    <${Rows} found=${found} run=${run.run} right=${(test) => html`<b>${seconds(test.duration)}</b>${test.expected && !guessed ? html` <span class="soft small">expected ${seconds(test.expected)}</span>` : ""}`} /><//>`;
}

function Rows({ found, run, right }) {
  if (!found.data) return html`<${Awaited} error=${found.error} />`;
  return html`<${TestRows} tests=${found.data.tests} run=${run} right=${right} />`;
}

function Waiting({ queue }) {
  const { data, error } = queue;
  if (error && !data) return html`<${Card} title="Queue"><${Awaited} error=${error} /><//>`;
  const pending = data?.by_priority?.reduce((sum, one) => sum + one.pending, 0) ?? 0;
  if (!pending) return html`<${Card} title="Queue"><${Empty}>Nothing waits.<//><//>`;
  const most = Math.max(...data.by_priority.map((one) => one.pending + one.leased), 1);
  return html`<${Card} title="Queue" note=${`${plural(pending, "test")} wait`}><div class="two">
    <div><h3>By priority</h3><${Table} caption="Tests by priority" head=${html`<${Th} number>Priority<//><${Th}><span class="quiet">Share</span><//><${Th} number>Waiting<//><${Th} number>Running<//>`}>
      ${data.by_priority.map((one) => html`<tr key=${one.priority}><th scope="row" class="number">${one.priority}</th>
        <td style=${{ width: "45%" }}><div class="bar thin" aria-hidden="true"><i class="b-leased" style=${{ width: `${(100 * one.leased) / most}%` }}></i><i class="b-use" style=${{ width: `${(100 * one.pending) / most}%` }}></i></div></td>
        <td class="number">${whole(one.pending)}</td><td class="number">${whole(one.leased)}</td></tr>`)}<//></div>
    <div><h3>Why they wait</h3><ul class="plain">${data.by_reason.slice(0, 8).map((one) => html`<li key=${one.text} class="row" style=${{ flexWrap: "nowrap" }}>
      <b class="number" style=${{ minWidth: "3.5rem" }}>${whole(one.tests)}</b><span class="any">${one.text}</span></li>`)}</ul></div>
  </div><//>`;
}

const TOLD = {
  "run-submitted": ({ run, name, submitter }) => ["running", html`<a href=${`#/runs/${run}`}>Run ${run}</a> ${name} submitted by ${nameOf(submitter)}`],
  "run-finished": ({ run, state }) => [state, html`<a href=${`#/runs/${run}`}>Run ${run}</a> ${state}`],
  "worker-joined": ({ worker }) => ["good", html`<${Worker} peer=${worker} /> works for the mesh`],
};
const nodeTold = (state) => ({ node }) => [state, html`<${Worker} peer=${node} /> is ${state}`];
for (const state of ["alive", "suspect", "dead", "draining"]) TOLD[`node-${state}`] = nodeTold(state);

function Latest() {
  return html`<${Card} title="Just now">
    ${latest.value.length ? html`<ul class="plain">${latest.value.slice(0, 8).map(({ event, data, at }, index) => {
      const [shape, text] = TOLD[event](data);
      return html`<li key=${index} class="row"><${Shape} of=${shape} /><span>${text}</span><time class="soft small end" datetime=${new Date(at * 1000).toISOString()} title=${clock(at)}>${ago(at, now.value)}</time></li>`;
    })}</ul>` : html`<${Empty}>What happens while this page is open is told here.<//>`}
  <//>`;
}
