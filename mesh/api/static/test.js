// One test of one run: its output first, its tries, what it left behind.

import { html, useEffect, useRef } from "./vendor/ui.js";
import { query } from "./api.js";
import { bytes, isOver, moment, seconds } from "./format.js";
import { useLive } from "./live.js";
import { runs, said } from "./store.js";
import { Live } from "./output.js";
import { Phases, Record } from "./record.js";
import { Why } from "./why.js";
import { Awaited, Card, ContentLink, State, TestName, Worker } from "./widgets.js";

export function Test({ run, index }) {
  const known = runs.value.get(run);
  const open = known != null && !isOver(known);
  // That a test begins is no event.
  const { data, error } = useLive(`api/runs/${run}/tests/${index}`, { on: [run], every: 2000, poll: open ? 5000 : 0 });
  useEnding(data);
  if (!data) return html`<p><a href=${`#/runs/${run}`}>Run ${run}</a></p><h1 tabindex="-1">Test ${index}</h1><${Awaited} error=${error} />`;
  const record = data.record;
  const project = known?.project;
  const done = data.outcome != null;
  const tries = (data.tries ?? []).filter((one) => one.attempt !== data.attempt);
  return html`<section class="card" aria-label="Outcome">
      <p class="small soft" style=${{ margin: 0 }}><a href=${`#/runs/${run}`}>Run ${run}</a> · test ${Number(index) + 1}</p>
      <h1 tabindex="-1"><${TestName} test=${data.test} /></h1>
      <div class="row" style=${{ marginTop: ".5rem" }}><b><${State} of=${data.outcome ?? data.state} /></b>
        ${data.duration != null && html`<span>in ${seconds(data.duration)}${data.expected ? html` <span class="soft">(expected ${seconds(data.expected)})</span>` : ""}</span>`}
        ${data.worker && html`<span>on <${Worker} peer=${data.worker} name=${data.name} />${record ? `, slot ${record.slot}` : ""}</span>`}
        ${data.attempt > 1 && html`<span class="chip">attempt ${data.attempt}</span>`}${record?.reruns > 0 && html`<span class="chip">${record.reruns} reruns</span>`}
        ${record?.started && html`<span class="soft">started ${moment(record.started)}</span>`}
        <span class="end"><a href=${`#/tests${query({ project, test: data.test })}`}>Its history</a></span></div>
      <div style=${{ marginTop: ".5rem" }}><${Phases} record=${record} /></div>
    </section>
    ${done && html`<${Card} title="What it said"><${Record} record=${record} /><//>`}
    ${!done && open && html`<${Live} key=${Math.max(data.attempt, 1)} run=${run} test=${data.test} begun=${data.state !== "pending"} />`}
    ${!done && data.state !== "running" && html`<${Why} target=${data.test} />`}
    ${data.artifacts?.length > 0 && html`<${Card} title="Artifacts"><ul class="plain">${data.artifacts.map((one) => html`<li key=${one.name} class="row">
      <${ContentLink} cid=${record?.artifacts ?? one.cid} path=${record?.artifacts ? one.name : ""}>${one.name}<//><span class="soft small">${bytes(one.size)}</span><code class="small soft any end">${one.cid}</code></li>`)}</ul><//>`}
    ${tries.length > 0 && html`<${Card} title="Earlier tries" note="that went wrong">${tries.map((one, place) => html`<details key=${place} class="more"><summary>attempt ${one.attempt}: ${one.outcome} on <${Worker} peer=${one.worker} /></summary><${Record} record=${one.record} /></details>`)}<//>`}`;
}

/** Say that the test has ended, if it had not when the page was opened. */
function useEnding(data) {
  const lasted = useRef(false);
  useEffect(() => {
    if (lasted.current && data?.outcome != null) said.value = `The test has ${data.outcome}`;
    lasted.current = data != null && data.outcome == null;
  }, [data]);
}
