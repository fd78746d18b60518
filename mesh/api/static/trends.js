// A project over its runs: does it get better or worse, faster or slower?

import { html, useMemo } from "./vendor/ui.js";
import { query } from "./api.js";
import { moment, percent, plural, seconds, tick, whole } from "./format.js";
import { useLive } from "./live.js";
import { go, narrow, route } from "./route.js";
import { Series } from "./charts.js";
import { Card, Empty, State, Table, TestName, Th } from "./widgets.js";

const RUNS = 200;

const history = (project, test) => `#/tests${query({ project, test })}`;

export function Trends() {
  const projects = useLive("api/projects", { on: ["run-finished"], every: 5000, poll: 10000 });
  const list = [...(projects.data?.projects ?? [])].sort((a, b) => b.last_at - a.last_at);
  const project = route.value.query.project ?? list[0]?.project;
  const { data, error } = useLive(project == null ? null : `api/trends${query({ project, limit: RUNS })}`, { on: ["run-finished"], every: 5000, poll: 10000 });
  return html`<div class="row"><h1 tabindex="-1">Trends</h1>
      ${list.length > 0 && html`<label class="field end">Project<select value=${project} onChange=${(event) => narrow({ project: event.target.value })}>
        ${list.map((one) => html`<option key=${one.project} value=${one.project}>${one.project} (${plural(one.runs, "run")})</option>`)}</select></label>`}</div>
    ${data ? html`<${Project} data=${data} />` : html`<section class="card"><${Empty}>${said(projects, error, project)}<//></section>`}`;
}

export const said = (found, error, some) => {
  const failure = found.error ?? error;
  if (failure) return failure.message;
  return found.data && !some ? "No run has ended yet. Each that does adds a point here." : "…";
};

function Project({ data }) {
  const { project, runs } = data;
  const charts = useMemo(() => chartsOf(runs), [data]);
  if (!runs.length) return html`<section class="card"><${Empty}>No run of ${project} has ended yet.<//></section>`;
  return html`
    <div class="charts">${charts.map((chart) => html`<${Card} key=${chart.title} title=${chart.title} note=${chart.note} level=${3}>
      ${chart.series.every((one) => one.values.every((value) => value == null)) ? html`<${Empty}>${chart.none}<//>` : html`<${Series} label=${`${chart.title} over ${plural(runs.length, "run")}; the table below has the numbers`} names=${chart.names} series=${chart.series} show=${chart.show} axis=${chart.axis} max=${chart.max} choose=${(index) => go(`#/runs/${runs[index].run}`)} />`}
    <//>`)}</div>
    <div class="three">
      <${Tests} title="Slower than before" rows=${data.slower} none="No test has become slower." project=${project} right=${(row) => html`${seconds(row.before)} → <b>${seconds(row.now)}</b> <span class="soft">× ${row.ratio.toFixed(1)}</span>`} />
      <${Tests} title="Flakiest" rows=${data.flakiest} none="No test has changed its mind." project=${project} right=${(row) => html`<b>${percent(row.rate)}</b> <span class="soft">${plural(row.flips, "flip")} in ${whole(row.runs)}</span>`} />
      <${Tests} title="Slowest" rows=${data.slowest} none="Nothing yet." project=${project} right=${(row) => html`<b>${seconds(row.median)}</b>`} />
    </div>
    <${Card} title="Runs" note="newest first"><${Table} caption=${`Runs of ${project}`} head=${html`<${Th}>Run<//><${Th}>When<//><${Th}>State<//><${Th} number>Tests<//><${Th} number>Pass rate<//><${Th} number>Took<//><${Th} number>Waited<//><${Th} number>In use<//><${Th} number>Reused<//><${Th} number>Coverage<//>`}>
      ${[...runs].reverse().map((run) => html`<tr key=${run.run}><th scope="row"><a href=${`#/runs/${run.run}`}>${run.run}</a></th><td class="nowrap">${moment(run.at)}</td><td><${State} of=${run.state} /></td><td class="number">${whole(run.tests)}</td><td class="number">${percent(run.pass_rate)}</td><td class="number">${seconds(run.wall_seconds)}</td><td class="number">${seconds(run.queue_seconds)}</td><td class="number">${percent(run.utilisation)}</td><td class="number">${whole(run.reused)}</td><td class="number">${percent(run.coverage)}</td></tr>`)}<//><//>`;
}

function Tests({ title, rows, none, right, project }) {
  return html`<${Card} title=${title}>${rows?.length ? html`<ul class="plain">${rows.slice(0, 10).map((row) => html`<li key=${row.test} class="row" style=${{ flexWrap: "nowrap" }}>
    <a class="cut" style=${{ flex: 1 }} title=${row.test} href=${history(project, row.test)}><${TestName} test=${row.test} /></a><span class="nowrap small">${right(row)}</span></li>`)}</ul>` : html`<${Empty}>${none}<//>`}<//>`;
}

function chartsOf(runs) {
  const names = runs.map((run) => `${run.run}`);
  const of = (name) => runs.map((run) => run[name] ?? null);
  const newest = runs[runs.length - 1] ?? {};
  return [
    { title: "Pass rate", note: percent(newest.pass_rate), series: [{ label: "passed", values: of("pass_rate"), colour: "passed" }], show: percent, max: 1 },
    { title: "Duration", note: seconds(newest.wall_seconds), series: [{ label: "from submission to end", values: of("wall_seconds") }], show: seconds, axis: tick },
    { title: "Wait in the queue", note: seconds(newest.queue_seconds), series: [{ label: "until its first test ran", values: of("queue_seconds"), colour: "failed" }], show: seconds, axis: tick },
    { title: "Utilisation", note: percent(newest.utilisation), series: [{ label: "of the slots' time", values: of("utilisation"), colour: "xfailed" }], show: percent, max: 1 },
    { title: "Cache hits", note: percent(newest.cached_share), series: [{ label: "verdicts reused", values: of("cached_share"), colour: "error" }], show: percent, max: 1 },
    { title: "Coverage", note: percent(newest.coverage), series: [{ label: "lines", values: of("coverage"), colour: "passed" }], show: percent, max: 1, none: "No run measured coverage: --cov does." },
  ].map((chart) => ({ names, none: "Not known of these runs.", ...chart })); // prettier-ignore
}
