// A run over time, a row for each slot: what ran when, where a slot stood idle, and the chain that set the end.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/ui.js";
import { get } from "./api.js";
import { OUTCOMES, isOver, percent, plural, seconds } from "./format.js";
import { gantt } from "./gantt.js";
import { useLive } from "./live.js";
import { go } from "./route.js";
import { nameOf } from "./store.js";
import { Awaited, Card, Empty, Shape, Table, TestName, Th, Worker, testHref } from "./widgets.js";

const CRITICAL_SHOWN = 60;
const IDLE_SHOWN = 30;
const NAMES_MAX = 2000;
const TIP_MS = 120; // before the name under the pointer is asked for

export function Timeline({ run }) {
  const { data, error } = useLive(`api/runs/${run.run}/timeline`, { on: [run.run], every: 2000, poll: isOver(run) ? 0 : 3000 });
  const drawn = useMemo(() => data && prepare(data), [data]);
  if (!data) return html`<${Card} title="Timeline"><${Awaited} error=${error} /><//>`;
  if (!drawn.rows.length) return html`<${Card} title="Timeline"><${Empty}>No test has run yet.<//><//>`;
  return html`<${Card} title="Timeline" note=${`${plural(drawn.rows.length, "slot")}, ${seconds(drawn.whole)}, ${percent(drawn.used)} in use${data.cut ? "; only the first spans are shown" : ""}`}>
      <${Chart} run=${run.run} drawn=${drawn} />
      <ul class="legend" style=${{ marginTop: ".6rem" }} aria-label="What the bars mean">${OUTCOMES.filter((_, code) => drawn.codes.has(code)).map((outcome) => html`<li key=${outcome}><${Shape} of=${outcome} />${outcome}</li>`)}
        <li><svg width="16" height="10" aria-hidden="true"><path d="M1 9 9 1M6 10 14 2" stroke="var(--soft)" /></svg>idle</li>
        <li><svg width="16" height="10" aria-hidden="true"><rect x="1" y="1" width="14" height="6" fill="var(--passed)" /><rect x="1" y="7.5" width="14" height="2" fill="var(--ink)" /></svg>on the critical path</li></ul>
    <//>
    <div class="two"><${Critical} run=${run.run} drawn=${drawn} /><${Idle} data=${data} drawn=${drawn} /></div>`;
}

/** Rows in the order of workers and slots; spans by start. Times are seconds from the run's start. */
function prepare({ slots, idle, critical, start, end }) {
  const rows = slots.map((slot) => ({ ...slot, name: nameOf(slot.worker, slot.name), spans: [...slot.spans].sort((a, b) => a[1] - b[1]) }));
  rows.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.slot - b.slot));
  const chain = new Set(critical);
  const spanOf = new Map();
  const codes = new Set();
  let last = end ? end - start : 0;
  let busy = 0;
  for (const [place, row] of rows.entries()) {
    for (const span of row.spans) {
      last = Math.max(last, span[1] + span[2]);
      busy += span[2];
      codes.add(span[3]);
      if (chain.has(span[0])) spanOf.set(span[0], { span, row: place });
    }
    row.idle = idle.filter((gap) => gap.worker === row.worker && gap.slot === row.slot).map((gap) => [gap.start, gap.seconds]);
  }
  const chained = critical.map((index) => spanOf.get(index)).filter(Boolean).sort((a, b) => a.span[1] - b.span[1]);
  return { rows, chain, chained, codes, whole: last, used: last ? busy / (last * Math.max(rows.length, 1)) : 0 };
}

function Chart({ run, drawn }) {
  const scroller = useRef(null);
  const chart = useRef(null);
  const [tip, setTip] = useState(null);
  useEffect(() => {
    chart.current = gantt(scroller.current, { point: setTip, choose: (index) => go(testHref(run, index)) });
    return () => chart.current.close();
  }, [run]);
  useEffect(() => chart.current.show(drawn), [drawn]);
  const act = (name) => () => chart.current[name]();
  return html`<div class="row small" style=${{ marginBottom: ".5rem" }} role="group" aria-label="Zoom">
      <button onClick=${act("closer")} aria-label="Zoom in">+</button><button onClick=${act("wider")} aria-label="Zoom out">−</button><button onClick=${act("all")}>All</button>
      <span class="soft">Drag to move; arrow keys step through tests, <kbd>Enter</kbd> opens one, <kbd>+</kbd> and <kbd>−</kbd> zoom.</span></div>
    <div class="gantt"><div class="rows" ref=${scroller} tabindex="0" role="application" aria-roledescription="timeline" aria-label=${`Timeline of ${plural(drawn.rows.length, "slot")}; the tables below tell of the critical path and of idle slots`}></div></div>
    <${Tip} run=${run} tip=${tip} />`;
}

const known = new Map();

/** A test's name, "" as long as it is not known: it is then asked for, once `wait` ms have passed. */
function useName(run, index, wait = 0) {
  const key = `${run} ${index}`;
  const [told, setTold] = useState({});
  useEffect(() => {
    if (index == null || known.has(key)) return undefined;
    const timer = setTimeout(() => get(`api/runs/${run}/tests/${index}`).then(({ test }) => {
      if (known.size >= NAMES_MAX) known.delete(known.keys().next().value);
      known.set(key, test);
      setTold({ key, test });
    }, () => {}), wait);
    return () => clearTimeout(timer);
  }, [key]);
  return (told.key === key ? told.test : known.get(key)) ?? "";
}

function Tip({ run, tip }) {
  const test = useName(run, tip?.span[0], TIP_MS);
  const said = tip && `${test || `test ${tip.span[0] + 1}`}: ${OUTCOMES[tip.span[3]]}, ${seconds(tip.span[2])} from ${seconds(tip.span[1])} on, ${tip.name} slot ${tip.slot}`;
  return html`<div role="status" class="quiet">${tip?.keyed ? said : ""}</div>
    ${tip && html`<div class="tip" aria-hidden="true" style=${{ left: `${Math.min(tip.x + 12, innerWidth - 290)}px`, top: `${tip.y + 16}px` }}>${said}</div>`}`;
}

function Critical({ run, drawn }) {
  if (!drawn.chained.length) return html`<${Card} title="Critical path"><${Empty}>It is known once tests have ended.<//><//>`;
  const shown = drawn.chained.slice(-CRITICAL_SHOWN);
  const sum = drawn.chained.reduce((total, { span }) => total + span[2], 0);
  return html`<${Card} title="Critical path" note=${`${plural(drawn.chained.length, "test")}, ${seconds(sum)} of ${seconds(drawn.whole)}: shorter only if these are`}>
    <${Table} tall caption="Tests on the critical path, in order" head=${html`<${Th}>Test<//><${Th}>Slot<//><${Th} number>From<//><${Th} number>Time<//>`}>
      ${shown.map(({ span, row }) => html`<tr key=${span[0]}><th scope="row" class="test"><a href=${testHref(run, span[0])}><${Named} run=${run} index=${span[0]} /></a></th>
        <td class="nowrap">${drawn.rows[row].name} · ${drawn.rows[row].slot}</td><td class="number">${seconds(span[1])}</td><td class="number">${seconds(span[2])}</td></tr>`)}<//>
  <//>`;
}

function Named({ run, index }) {
  const test = useName(run, index);
  return test ? html`<${TestName} test=${test} />` : `test ${index + 1}`;
}

function Idle({ data, drawn }) {
  if (!data.idle.length) return html`<${Card} title="Idle slots"><${Empty}>No slot stood idle for 1 % of the run or more.<//><//>`;
  const gaps = [...data.idle].sort((a, b) => b.seconds - a.seconds);
  const sum = gaps.reduce((total, gap) => total + gap.seconds, 0);
  return html`<${Card} title="Idle slots" note=${`${seconds(sum)} in ${plural(gaps.length, "gap")}, ${percent(sum / Math.max(drawn.whole * drawn.rows.length, 1e-9))} of the slots' time`}>
    <${Table} tall caption="Longest gaps" head=${html`<${Th}>Worker<//><${Th} number>Slot<//><${Th} number>From<//><${Th} number>Idle for<//>`}>
      ${gaps.slice(0, IDLE_SHOWN).map((gap, place) => html`<tr key=${place}><th scope="row"><${Worker} peer=${gap.worker} /></th><td class="number">${gap.slot}</td><td class="number">${seconds(gap.start)}</td><td class="number">${seconds(gap.seconds)}</td></tr>`)}<//>
  <//>`;
}
