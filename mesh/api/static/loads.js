// How busy a node was, and in which state, over the last hours: as the node that serves this page heard it.

import { html, useMemo } from "./vendor/ui.js";
import { query } from "./api.js";
import { DASH, minute, moment, percent, plural, seconds } from "./format.js";
import { useLive } from "./live.js";
import { narrow, route } from "./route.js";
import { now, nameOf } from "./store.js";
import { Series } from "./charts.js";
import { Awaited, Card, Empty, State, Table, Th } from "./widgets.js";

const HOURS = ["1", "6", "24"];
const PERIODS_SHOWN = 50;

const USE = [
  { name: "cpu", label: "CPU", colour: "xpassed" },
  { name: "memory", label: "memory", colour: "passed", dash: "dashed" },
  { name: "slots", label: "slots", colour: "failed", dash: "dotted" },
];
const GPUS = [
  { name: "gpu", label: "GPUs, mean use", colour: "xpassed" },
  { name: "gpu_memory", label: "their memory", colour: "passed", dash: "dashed" },
];

export function Loads({ node }) {
  const { hours = "6" } = route.value.query;
  const { data, error } = useLive(`api/nodes/${node.peer}/history${query({ hours })}`, { on: [node.peer], every: 5000, poll: 30000 });
  const told = useMemo(() => (data ? chartsOf(data) : null), [data]);
  const end = html`<label class="row">Hours<select value=${hours} onChange=${(event) => narrow({ hours: event.target.value })}>${HOURS.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>`;
  if (!told) return html`<${Card} title="Load" end=${end}><${Awaited} error=${error} /><//>`;
  const { times, charts, rows } = told;
  const note = data.start == null ? "" : `since ${moment(data.start)}, as ${nameOf(data.seen_by)} heard it`;
  return html`<${Card} title="Load" note=${note} end=${end}>
      ${charts.length ? charts.map(({ label, series }) => html`<${Series} key=${label} label=${`${label} of ${node.name} over time; the table below has the numbers`} times=${times} series=${series} show=${percent} max=${1} />`) : html`<${Empty}>Nothing was heard of it yet.<//>`}
      ${rows.length > 0 && html`<details class="more"><summary>Hour by hour</summary><${Hours} rows=${rows} /></details>`}
    <//>
    ${data.states.length > 0 && html`<${States} name=${node.name} states=${data.states} />`}`;
}

/** The figures that are known, by chart, and a row of the table for each hour, the newest first. */
function chartsOf(data) {
  const figures = [...USE, ...GPUS].filter(({ name }) => data[name]);
  const count = figures.length ? data[figures[0].name].length : 0;
  const times = Array.from({ length: count }, (_, step) => data.start + step * data.step_seconds);
  const lines = (of) => of.filter((one) => figures.includes(one)).map((one) => ({ ...one, values: data[one.name] }));
  const charts = [["CPU, memory and slots", USE], ["GPUs", GPUS]].map(([label, of]) => ({ label, series: lines(of) })).filter(({ series }) => series.length); // prettier-ignore
  const rows = [];
  for (const [step, at] of times.entries()) {
    const hour = Math.floor(at / 3600);
    if (rows[0]?.hour !== hour) rows.unshift({ hour, figures: figures.map(({ label, name }) => ({ label, name, values: [] })) });
    for (const one of rows[0].figures) if (data[one.name][step] != null) one.values.push(data[one.name][step]);
  }
  return { times, charts, rows };
}

function Hours({ rows }) {
  return html`<${Table} tall caption="Mean and most of each hour" head=${html`<${Th}>Hour from<//>${rows[0].figures.map(({ label }) => html`<${Th} key=${label} number>${label}<//>`)}`}>
    ${rows.map(({ hour, figures }) => html`<tr key=${hour}><th scope="row">${minute(hour * 3600)}</th>${figures.map(({ label, values }) => html`<td key=${label} class="number">${values.length ? `${percent(mean(values))}, most ${percent(Math.max(...values))}` : DASH}</td>`)}</tr>`)}<//>`;
}

const mean = (values) => values.reduce((sum, one) => sum + one, 0) / values.length;

const lasted = (value) => (value < 3600 ? `${Math.max(1, Math.round(value / 60))} min` : seconds(value));

function States({ name, states }) {
  const [first, last] = [states[0].since, Math.max(now.value, states.at(-1).since + 60)];
  const periods = states.map((one) => ({ ...one, state: one.state ?? "unknown", long: (one.until ?? last) - one.since }));
  const away = periods.filter((one) => one.state === "dead").reduce((sum, one) => sum + one.long, 0);
  const newest = [...periods].reverse();
  return html`<${Card} title="States" note=${away ? `away for ${lasted(away)} of ${lasted(last - first)}` : `never away in ${lasted(last - first)}`}>
    <div class="bar periods" role="img" aria-label=${`States of ${name}; the table below tells them`}>${periods.map((one) => html`<i key=${one.since} class=${`b-${one.state}`} style=${{ flexGrow: one.long }} title=${`${one.state} from ${moment(one.since)}`}></i>`)}</div>
    <${Table} tall caption=${periods.length > PERIODS_SHOWN ? `The newest ${PERIODS_SHOWN} of ${plural(periods.length, "period")}` : "To the minute, the newest first"} head=${html`<${Th}>State<//><${Th}>From<//><${Th} number>For<//>`}>
      ${newest.slice(0, PERIODS_SHOWN).map((one) => html`<tr key=${one.since}><th scope="row"><${State} of=${one.state} text=${one.state === "unknown" ? "not known" : one.state} /></th><td>${moment(one.since)}</td><td class="number">${lasted(one.long)}${one.until ? "" : ", so far"}</td></tr>`)}<//>
  <//>`;
}
