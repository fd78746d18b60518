// What went wrong in a run, with its output at hand.

import { html, useState } from "./vendor/ui.js";
import { query } from "./api.js";
import { bad, isOver, plural, seconds } from "./format.js";
import { useLive } from "./live.js";
import { Record } from "./record.js";
import { nameOf } from "./store.js";
import { Awaited, Card, Empty, Shape, TestName, Turn, testHref } from "./widgets.js";

const PAGE = 50;

export function Failures({ run }) {
  const [shown, setShown] = useState(PAGE);
  const path = bad(run) ? `api/runs/${run.run}/tests${query({ outcome: "bad", limit: shown })}` : null;
  const { data, error } = useLive(path, { on: [`${run.run} bad`, "run-finished"], every: 1000 });
  if (!path) return html`<${Card} title="Failures"><${Empty}>${isOver(run) ? (run.state === "passed" ? "Everything passed." : run.reason || "No test failed.") : "Nothing has failed so far. What does is here at once, with its output."}<//><//>`;
  if (!data) return html`<${Card} title="Failures"><${Awaited} error=${error} /><//>`;
  return html`<${Card} title="Failures" note=${plural(data.matching, "test")}>
    ${data.tests.map((test) => html`<${Failure} key=${test.index} run=${run.run} test=${test} only=${data.matching === 1} />`)}
    ${data.matching > shown && html`<p><button onClick=${() => setShown(Math.min(shown + PAGE, 1000))}>Show more</button></p>`}
  <//>`;
}

function Failure({ run, test, only }) {
  const [open, setOpen] = useState(only);
  return html`<details class="failure" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary><${Turn} /><span><${Shape} of=${test.outcome} /> <${TestName} test=${test.test} /></span>
      <span class="soft small nowrap"><span class="phone-no">${seconds(test.duration)} on ${nameOf(test.worker, test.name)}</span></span></summary>
    ${open && html`<div><${Loaded} run=${run} index=${test.index} attempt=${test.attempt} /><p><a href=${testHref(run, test.index)}>All about this test</a></p></div>`}
  </details>`;
}

function Loaded({ run, index, attempt }) {
  const { data, error } = useLive(`api/runs/${run}/tests/${index}${query({ attempt })}`);
  if (!data) return html`<${Awaited} error=${error} />`;
  return html`<${Record} record=${data.record} brief=${true} />`;
}
