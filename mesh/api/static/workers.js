// The workers of a run beside each other.

import { html } from "./vendor/ui.js";
import { percent, seconds, whole } from "./format.js";
import { useLive } from "./live.js";
import { Awaited, Card, Empty, Shape, Table, Th, Worker } from "./widgets.js";

export function Workers({ run }) {
  const { data, error } = useLive(`api/runs/${run.run}/timeline`, { on: [run.run], every: 2000 });
  if (!data) return html`<${Card} title="Workers"><${Awaited} error=${error} /><//>`;
  const rows = compare(data);
  if (!rows.length) return html`<${Card} title="Workers"><${Empty}>No worker has run a test of it yet.<//><//>`;
  const most = Math.max(...rows.map((row) => row.busy), 1e-9);
  return html`<${Card} title="Workers" note=${data.cut ? "of the first spans only: there are more than fit" : ""}>
    <${Table} caption="Workers of the run" head=${html`<${Th}>Worker<//><${Th} number>Slots<//><${Th} number>Tests<//><${Th} number>Failing<//><${Th} number>Median<//><${Th} number>Slowest<//><${Th}>Busy<//><${Th} number>In use<//><${Th} number>Idle<//>`}>
      ${rows.map((row) => html`<tr key=${row.worker}><th scope="row"><${Worker} peer=${row.worker} name=${row.name} /></th>
        <td class="number">${row.slots}</td><td class="number">${whole(row.tests)}</td>
        <td class="number">${row.bad ? html`<span class="state"><${Shape} of="failed" />${row.bad}</span>` : html`<span class="soft">0</span>`}</td>
        <td class="number">${seconds(row.median)}</td><td class="number">${seconds(row.longest)}</td>
        <td style=${{ minWidth: "7rem", width: "24%" }}><div class="bar thin" aria-hidden="true"><i class="b-use" style=${{ width: `${(100 * row.busy) / most}%` }}></i></div><span class="small soft">${seconds(row.busy)}</span></td>
        <td class="number">${percent(row.share)}</td><td class="number">${seconds(row.idle)}</td></tr>`)}
    <//><//>`;
}

const BAD = new Set([1, 2]);

/** A row for each worker, busiest first. Times in seconds. */
function compare({ slots, end, start }) {
  const rows = new Map();
  const last = Math.max(...slots.flatMap((slot) => slot.spans.map((span) => span[1] + span[2])), 0);
  const whole = end ? Math.max(end - start, last) : last;
  for (const slot of slots) {
    const row = rows.get(slot.worker) ?? { worker: slot.worker, name: slot.name, slots: 0, times: [], bad: 0 };
    rows.set(slot.worker, row);
    row.slots += 1;
    for (const [, , took, outcome] of slot.spans) {
      row.times.push(took);
      if (BAD.has(outcome)) row.bad += 1;
    }
  }
  return [...rows.values()].map((row) => {
    const times = row.times.sort((a, b) => a - b);
    const busy = times.reduce((sum, one) => sum + one, 0);
    return {
      ...row,
      tests: times.length,
      busy,
      median: times[times.length >> 1],
      longest: times[times.length - 1],
      share: whole ? Math.min(1, busy / (whole * row.slots)) : null,
      idle: Math.max(0, whole * row.slots - busy),
    };
  }).sort((a, b) => b.busy - a.busy || (a.worker < b.worker ? -1 : 1)); // prettier-ignore
}
