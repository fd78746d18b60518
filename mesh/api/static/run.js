// One run: how it goes, what failed and what it said, and more in tabs.

import { html } from "./vendor/ui.js";
import { post, query } from "./api.js";
import { areGuessed, bad, isOver, moment, plural, seconds, spent, whole } from "./format.js";
import { useLive } from "./live.js";
import { route } from "./route.js";
import { nameOf, now, runs } from "./store.js";
import { Failures } from "./failures.js";
import { Tests } from "./tests.js";
import { Timeline } from "./timeline.js";
import { Why } from "./why.js";
import { Workers } from "./workers.js";
import { Awaited, Card, ContentLink, Counts, Deed, Empty, RunBar, Shape, State, TestName, TestRows, Worker, eta, testHref } from "./widgets.js";

const TABS = [
  ["", "Failures"],
  ["tests", "Tests"],
  ["timeline", "Timeline"],
  ["workers", "Workers"],
  ["why", "Why"],
  ["content", "Artifacts"],
];

export function Run({ id, tab = "" }) {
  const told = useLive(`api/runs/${id}`, { on: [id], every: 2000, poll: 5000 });
  // The feed knows the numbers first; the document knows the rest.
  const heard = runs.value.get(id);
  const run = heard ? { ...told.data, ...heard, eta_seconds: told.data?.eta_seconds, queue: told.data?.queue ?? null } : told.data;
  if (!run) return html`<h1 tabindex="-1">Run ${id}</h1><${Awaited} error=${told.error} />`;
  const over = isOver(run);
  return html`<${Head} run=${run} spec=${told.data?.spec} over=${over} />
    <nav aria-label=${`Run ${id}`}><ul class="seg">${TABS.map(([name, text]) => html`<li key=${name}>
      <a href=${`#/runs/${id}${name ? "/" + name : ""}`} aria-current=${name === tab ? "page" : undefined}>${name !== "why" ? text : over ? "How it ended" : "Why it waits"}${name === "" && bad(run) ? html` <span class="tally">${whole(bad(run))}</span>` : ""}</a></li>`)}</ul></nav>
    ${tab === "" && html`<div class="two wide-left"><${Failures} run=${run} /><div class="stack">${!over && html`<${Running} run=${run} />`}<${Slowest} run=${run} /></div></div>`}
    ${tab === "tests" && html`<${Tests} run=${run} />`}
    ${tab === "timeline" && html`<${Timeline} run=${run} />`}
    ${tab === "workers" && html`<${Workers} run=${run} />`}
    ${tab === "why" && html`<${Why} target=${id} title=${over ? "How it ended" : "Why it waits"} />`}
    ${tab === "content" && html`<${Content} run=${run} />`}`;
}

function Head({ run, spec, over }) {
  const took = over ? seconds(run.wall_seconds) : run.submitted_at ? spent(now.value - run.submitted_at) : "";
  const asked = [spec?.arguments?.length && `pytest ${spec.arguments.join(" ")}`, spec?.command, spec?.requires && `requires ${spec.requires}`].filter(Boolean);
  return html`<section class="card" aria-label="Where it stands">
    <div class="row"><h1 tabindex="-1">Run ${run.run} <span class="soft">${run.name}</span></h1><${State} of=${run.state} />
      ${run.priority !== 50 && html`<span class="chip">priority ${run.priority}</span>`}
      <span class="end">${!over && html`<${Deed} className="danger" question=${{ title: `Cancel run ${run.run}?`, text: `${plural(run.tests - run.done, "test")} would have no verdict. What has one keeps it.`, yes: "Cancel the run", no: "Let it run" }} does=${() => post(`api/runs/${run.run}/cancel`)} done="asked to end">Cancel<//>`}</span></div>
    <div style=${{ margin: ".7rem 0 .5rem" }}><${RunBar} run=${run} /></div>
    <div class="row"><span><b>${whole(run.done)}</b> of ${plural(run.tests, "test")}</span>
      <span class="soft">${over ? "took" : "for"} ${took}${!over && eta(run) ? ` · ${eta(run)}` : ""}${run.queue?.of > 1 ? ` · number ${run.queue.place} of ${run.queue.of} in the queue` : ""}</span>
      <span class="end"><${Counts} run=${run} /></span></div>
    <p class="small soft any">${run.project && html`project <a href=${`#/trends${query({ project: run.project })}`}>${run.project}</a> · `}submitted ${moment(run.submitted_at)} by ${nameOf(run.submitter)}${asked.length ? ` · ${asked.join(" · ")}` : ""}</p>
    ${run.reason && html`<p class="row" style=${{ flexWrap: "nowrap", alignItems: "baseline" }}><${Shape} of="warn" /><span class="any">${run.reason}</span></p>`}
  </section>`;
}

const RUNNING = 8;

/** A click from what they print. */
function Running({ run }) {
  const path = `api/runs/${run.run}/tests${query({ outcome: "running", limit: RUNNING })}`;
  const { data, error } = useLive(run.tests ? path : null, { on: [run.run], every: 2000, poll: 5000 });
  const tests = data?.tests ?? [];
  const more = html`<a href=${`#/runs/${run.run}/tests?outcome=running`}>All that run</a>`;
  return html`<${Card} title="Running now" note=${data ? plural(data.matching, "test") : ""} end=${data?.matching > RUNNING && more}>
    ${tests.length ? html`<${TestRows} tests=${tests} run=${run.run} right=${(test) => html`<${Worker} peer=${test.worker} name=${test.name} />`} />` : error ? html`<${Awaited} error=${error} />` : html`<${Empty}>No test runs at this moment.<//>`}
  <//>`;
}

const SLOWEST = 12;

function Slowest({ run }) {
  const path = run.done ? `api/runs/${run.run}/tests${query({ sort: "duration", order: "desc", limit: SLOWEST })}` : null;
  const { data } = useLive(path, { on: [run.run], every: 2000 });
  const tests = data?.tests ?? [];
  const guessed = areGuessed(tests);
  const most = Math.max(...tests.map((test) => test.duration ?? 0), 1e-9);
  return html`<${Card} title="Slowest tests" end=${html`<a href=${`#/runs/${run.run}/tests?sort=duration&order=desc`}>All by time</a>`}>
    ${tests.length ? html`<ul class="plain">${tests.map((test) => html`<li key=${test.index}>
      <div class="row" style=${{ flexWrap: "nowrap" }}><${Shape} of=${test.outcome ?? test.state} /><a class="cut" style=${{ flex: 1 }} href=${testHref(run.run, test.index)} title=${test.test}><${TestName} test=${test.test} /></a><b class="number">${seconds(test.duration)}</b></div>
      <div class="bar thin" aria-hidden="true" style=${{ marginTop: ".2rem" }}><i class=${!guessed && test.duration > 2 * test.expected ? "b-high" : "b-use"} style=${{ width: `${(100 * (test.duration ?? 0)) / most}%` }}></i></div>
      ${!guessed && test.expected != null && html`<div class="small soft">expected ${seconds(test.expected)}${test.duration > 2 * test.expected ? `, ${(test.duration / test.expected).toFixed(1)} times as long` : ""}</div>`}</li>`)}</ul>` : html`<${Empty}>No test has ended yet.<//>`}
  <//>`;
}

function Content({ run }) {
  if (!run.report) return html`<${Card} title="Artifacts"><${Empty}>${isOver(run) ? "This run left no report." : "The report is made when the run ends. What a test that has ended left behind is on its own page."}<//><//>`;
  const files = [
    ["", "The whole report", "everything, as a directory"],
    ["report.json", "report.json", "every test with its verdict, host and record"],
    ["junit.xml", "junit.xml", "for CI"],
    ["artifacts", "artifacts", "what tests left in mesh_artifacts, a directory each"],
    ["records", "records", "output, tracebacks and phases of every test"],
  ];
  return html`<${Card} title="Artifacts" note="kept as content, served by this node's gateway">
    <ul class="plain">${files.map(([path, text, note]) => html`<li key=${path}><${ContentLink} cid=${run.report} path=${path}>${text}<//> <span class="soft small">${note}</span></li>`)}</ul>
    <dl class="facts" style=${{ marginTop: ".8rem" }}>
      <dt>Report</dt><dd><code class="any">${run.report}</code></dd>
      ${run.manifest && html`<dt>List of tests</dt><dd><code class="any">${run.manifest}</code></dd>`}
      ${run.bundle && html`<dt>Bundle</dt><dd><${ContentLink} cid=${run.bundle}><code class="any">${run.bundle}</code><//></dd>`}
    </dl>
    <p class="soft small">On a terminal: <code>mesh results ${run.run} -o report</code> writes it out, <code>mesh verify ${run.run}</code> checks every hash and signature.</p>
  <//>`;
}
