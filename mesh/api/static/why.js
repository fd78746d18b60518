// Why a run or a test waits, and what would help.

import { html } from "./vendor/ui.js";
import { plural, whole } from "./format.js";
import { useLive } from "./live.js";
import { Awaited, Card, Table, Th, Worker } from "./widgets.js";

export function Why({ target, title = "Why it waits" }) {
  const { data, error } = useLive(`api/why/${encodeURIComponent(target)}`, { on: [target], every: 2000, poll: 5000 });
  if (!data) return html`<${Card} title=${title}><${Awaited} error=${error} /><//>`;
  const [first, ...rest] = data.explanation;
  return html`<${Card} title=${title}>
    <p class="any"><b>${first}</b></p>
    ${!data.waiting.length && rest.map((line, place) => html`<p key=${place} class="any">${line}</p>`)}
    ${data.waiting.map((one, place) => html`<${Waiting} key=${place} one=${one} />`)}
  <//>`;
}

function Waiting({ one }) {
  return html`<section style=${{ marginTop: ".9rem" }}>
    <h3>${one.tests ? `${plural(one.tests, "test")} wait${one.tests === 1 ? "s" : ""}` : "It waits to be collected"}${one.requirement ? html` for <code>${one.requirement}</code>` : ""}</h3>
    ${one.shortage && html`<p>${one.shortage}</p>`}
    ${one.helps.length > 0 && html`<p>What would help:</p><ul>${one.helps.map((help, place) => html`<li key=${place} class="any">${help.text}</li>`)}</ul>`}
    ${one.workers.length > 0 && html`<${Table} caption="Workers, and why not" head=${html`<${Th}>Worker<//><${Th}>Why not<//>`}>
      ${one.workers.map((worker) => html`<tr key=${worker.peer}><th scope="row"><${Worker} peer=${worker.peer} name=${worker.name} /></th><td>${worker.reason}</td></tr>`)}<//>`}
    ${one.more_workers > 0 && html`<p class="soft">and ${whole(one.more_workers)} more workers</p>`}
  </section>`;
}
