// One test over time: did it pass, how long did it take, and does it depend on the host?

import { html, useMemo } from "./vendor/ui.js";
import { query } from "./api.js";
import { OUTCOMES, moment, percent, plural, seconds, tick, whole } from "./format.js";
import { useLive } from "./live.js";
import { go, route } from "./route.js";
import { Series } from "./charts.js";
import { said } from "./trends.js";
import { Card, Empty, Shape, State, Table, TestName, Th, Worker, testHref } from "./widgets.js";

const LIMIT = 200;

export function History() {
  const { project, test } = route.value.query;
  const found = useLive(test ? `api/tests${query({ project, test, limit: LIMIT })}` : null, { on: ["run-finished"], every: 3000, poll: 10000 });
  const { data } = found;
  if (!test) return html`<h1 tabindex="-1">A test over time</h1><section class="card"><${Empty}>Choose a test on the page of a run, or under <a href="#/trends">Trends</a>.<//></section>`;
  return html`<div><p class="small soft" style=${{ margin: 0 }}><a href=${`#/trends${query({ project })}`}>${project}</a> · a test over time</p><h1 tabindex="-1"><${TestName} test=${test} /></h1></div>
    ${data ? (data.results.length ? html`<${Told} data=${data} />` : html`<section class="card"><${Empty}>No run that has ended had this test.<//></section>`) : html`<section class="card"><${Empty}>${said(found, null, test)}<//></section>`}`;
}

function Told({ data }) {
  const oldest = useMemo(() => [...data.results].reverse(), [data]);
  const charts = useMemo(() => chartOf(oldest), [oldest]);
  const { flaky, duration, results, hosts, bad } = data;
  return html`<section class="tiles" aria-label="At a glance">
      <div class="tile"><div class="label">Newest</div><div class="value"><${State} of=${results[0].outcome} /></div><div class="note">${moment(results[0].at)}</div></div>
      <div class="tile"><div class="label">Went wrong</div><div class="value">${bad} of ${plural(results.length, "run")}</div><div class="note">${percent(bad / results.length)}</div></div>
      <div class="tile"><div class="label">Flakiness</div><div class="value">${percent(flaky.rate)}</div><div class="note">${plural(flaky.flips, "flip")} between passing and not</div></div>
      <div class="tile"><div class="label">Takes, when it passes</div><div class="value">${seconds(duration.median)}</div><div class="note">${duration.median == null ? "it has not passed" : `± ${seconds(duration.mad)}; 95 % under ${seconds(duration.p95)}`}</div></div>
      <div class="tile"><div class="label">Hosts</div><div class="value">${whole(hosts.length)}</div><div class="note">${hosts.filter((host) => host.bad).length ? `went wrong on ${hosts.filter((host) => host.bad).length}` : "on none did it go wrong"}</div></div>
    </section>
    <${Card} title="Outcomes" note="oldest first"><div class="steps">${oldest.map((one) => html`<a key=${one.run + one.at} href=${`#/runs/${one.run}`} aria-label=${`run ${one.run}: ${one.outcome}`} title=${`run ${one.run}, ${moment(one.at)}: ${one.outcome} in ${seconds(one.duration)}`}><${Shape} of=${one.outcome} size=${17} /></a>`)}</div><//>
    <div class="two wide-left"><${Card} title="Durations"><${Series} label="Durations; the table below has the numbers" names=${charts.names} series=${charts.series} show=${seconds} axis=${tick} choose=${(index) => go(`#/runs/${oldest[index].run}`)} /><//>
      <${Card} title="Hosts"><${Table} caption="By host" head=${html`<${Th}>Host<//><${Th} number>Runs<//><${Th} number>Wrong<//><${Th} number>Median<//>`}>
        ${hosts.map((host) => html`<tr key=${host.peer}><th scope="row"><${Worker} peer=${host.peer} name=${host.name} /></th><td class="number">${host.runs}</td><td class="number">${host.bad ? html`<span class="state"><${Shape} of="failed" />${host.bad}</span>` : "0"}</td><td class="number">${seconds(host.median)}</td></tr>`)}<//><//></div>
    <${Card} title="Results" note="newest first"><${Table} caption="Results" head=${html`<${Th}>Run<//><${Th}>When<//><${Th}>Outcome<//><${Th} number>Time<//><${Th}>Host<//><${Th} number className="phone-no">Attempts<//><${Th}>What it said<//>`}>
      ${results.map((one) => html`<tr key=${one.run + one.at}><th scope="row"><a href=${`#/runs/${one.run}`}>${one.run}</a></th><td class="nowrap">${moment(one.at)}</td><td><${State} of=${one.outcome} /></td><td class="number">${seconds(one.duration)}</td><td class="nowrap"><${Worker} peer=${one.worker} name=${one.name} /></td><td class="number phone-no">${one.attempts}</td><td>${one.index == null ? "" : html`<a href=${testHref(one.run, one.index)} aria-label=${`Output in run ${one.run}`}>output</a>`}</td></tr>`)}<//><//>`;
}

/** A series for each outcome that occurred, so that a mark's colour tells it; the list above has its shape. */
function chartOf(results) {
  const names = results.map((one) => `${one.run}`);
  const series = [{ label: "time", values: results.map((one) => one.duration || null), colour: "leased", points: false }];
  for (const outcome of OUTCOMES) {
    const values = results.map((one) => (one.outcome === outcome ? one.duration : null));
    if (values.some((value) => value != null)) series.push({ label: outcome, values, colour: outcome, line: false, points: true });
  }
  return { names, series };
}
