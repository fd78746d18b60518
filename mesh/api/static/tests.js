// The tests of a run: found, sorted and paged by the node, so that a run of a million is no more than one of ten.

import { html } from "./vendor/ui.js";
import { query } from "./api.js";
import { OUTCOMES, plural, seconds, whole } from "./format.js";
import { useLive } from "./live.js";
import { narrow, route } from "./route.js";
import { Awaited, Card, Empty, State, Table, TestName, Th, Worker, testHref } from "./widgets.js";

const LIMIT = 100;

export function Tests({ run }) {
  const { outcome = "", search = "", sort = "index", order = "asc", offset = "0" } = route.value.query;
  const asked = { outcome, search, sort, order, offset, limit: LIMIT };
  const { data, error } = useLive(`api/runs/${run.run}/tests${query(asked)}`, { on: [run.run], every: 2000 });
  const first = Number(offset);
  const by = (name) => {
    const next = sort === name && order === "desc" ? "asc" : sort === name ? "desc" : name === "index" ? "asc" : "desc";
    narrow({ sort: name, order: next, offset: null });
  };
  const Sorted = ({ name, children, number, className }) => html`<${Th} number=${number} className=${className} sort=${sort === name ? (order === "asc" ? "ascending" : "descending") : undefined}>
    <button onClick=${() => by(name)}>${children}${sort === name ? (order === "asc" ? " ↑" : " ↓") : ""}</button><//>`;
  return html`<${Card} title="Tests" note=${data ? `${whole(data.matching)} of ${plural(data.total, "test")}` : ""}>
    <form class="row" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label class="field">Part of its ID<input type="search" id="search" value=${search} onInput=${(event) => narrow({ search: event.target.value, offset: null })} /></label>
      <label class="field">Outcome<select value=${outcome} onChange=${(event) => narrow({ outcome: event.target.value, offset: null })}>
        ${["", "bad", ...OUTCOMES, "running", "pending"].map((one) => html`<option key=${one} value=${one}>${{ "": "any", bad: "failed or error" }[one] ?? one}</option>`)}</select></label>
    </form>
    ${!data ? html`<${Awaited} error=${error} />` : !data.tests.length ? html`<${Empty}>No test is like that.<//>` : html`
      <${Table} caption=${`Tests ${first + 1} to ${first + data.tests.length} of ${data.matching}`} head=${html`<${Sorted} name="outcome">Outcome<//><${Sorted} name="index">Test<//><${Sorted} name="duration" number>Time<//><${Sorted} name="expected" number className="phone-no">Expected<//><${Th} className="phone-no">Worker<//><${Th} number className="phone-no">Attempt<//>`}>
        ${data.tests.map((test) => html`<tr key=${test.index}>
          <td><${State} of=${test.outcome ?? test.state} /></td>
          <th scope="row" class="test"><a href=${testHref(run.run, test.index)}><${TestName} test=${test.test} /></a></th>
          <td class="number">${seconds(test.duration)}</td><td class="number soft phone-no">${seconds(test.expected)}</td>
          <td class="nowrap phone-no"><${Worker} peer=${test.worker} name=${test.name} /></td><td class="number phone-no">${test.attempt || ""}</td></tr>`)}
      <//>`}
    ${data && data.matching > LIMIT && html`<nav class="row" aria-label="Pages of tests" style=${{ marginTop: ".7rem" }}>
      <button disabled=${first === 0} onClick=${() => narrow({ offset: Math.max(0, first - LIMIT) || null })}>Before</button>
      <span class="soft">${whole(first + 1)} to ${whole(first + data.tests.length)} of ${whole(data.matching)}</span>
      <button disabled=${first + LIMIT >= data.matching} onClick=${() => narrow({ offset: first + LIMIT })}>Next</button></nav>`}
  <//>`;
}
