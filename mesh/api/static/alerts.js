// Alerts: what was seen, since when, and what to do. Active ones first.

import { html, useState } from "./vendor/ui.js";
import { post, query } from "./api.js";
import { ago, iso, moment, plural } from "./format.js";
import { useLive } from "./live.js";
import { alerts, now, raised, runs, takeAlert } from "./store.js";
import { Card, Deed, Empty, Shape, Table, Th, Worker } from "./widgets.js";

const PAST_SHOWN = 50;

const nameKept = () => localStorage.getItem("name") ?? "";

export function Alerts() {
  const [who, setWho] = useState(nameKept());
  const past = (alerts.value ?? []).filter((alert) => alert.cleared_at);
  const keep = (event) => {
    setWho(event.target.value);
    localStorage.setItem("name", event.target.value);
  };
  if (alerts.value === null) return html`<h1 tabindex="-1">Alerts</h1><section class="card"><${Empty}>This node tells of no alerts: it is of an older version.<//></section>`;
  return html`<div class="row"><h1 tabindex="-1">Alerts</h1><label class="field end">Your name, for acknowledging<input type="text" maxlength="60" value=${who} onInput=${keep} /></label></div>
    <${Card} title="Active" note=${raised.value.length ? plural(raised.value.length, "alert") : ""}>
      ${raised.value.length ? raised.value.map((alert) => html`<${AlertRow} key=${alert.id} alert=${alert} who=${who} />`) : html`<${Empty}>All is quiet.<//>`}
    <//>
    <${Quarantine} />
    <${Card} title="Past" note="newest first">
      ${past.length ? past.slice(0, PAST_SHOWN).map((alert) => html`<${AlertRow} key=${alert.id} alert=${alert} />`) : html`<${Empty}>None that is remembered.<//>`}
    <//>`;
}

function Quarantine() {
  const { data } = useLive("api/alerts", { on: ["alert"], every: 1000, poll: 30000 });
  const held = data?.quarantine ?? [];
  if (!held.length) return null;
  return html`<${Card} title="In quarantine" note="they get no new tests">
    <${Table} caption="Workers in quarantine" head=${html`<${Th}>Worker<//><${Th}>Since<//><${Th}>Until<//>`}>
      ${held.map((one) => html`<tr key=${one.worker}><th scope="row"><${Worker} peer=${one.worker} name=${one.name} /></th><td>${moment(one.since)}</td><td>${moment(one.until)}</td></tr>`)}<//>
  <//>`;
}

export function AlertRow({ alert, who = nameKept() }) {
  const active = !alert.cleared_at;
  return html`<article class="alert" aria-label=${`${alert.severity}: ${alert.summary}`}>
    <span><${Shape} of=${active ? alert.severity : "good"} size=${16} /><span class="quiet">${alert.severity}</span></span>
    <div><p class="any" style=${{ margin: 0 }}><b>${alert.summary}</b></p>
      <p class="soft small" style=${{ margin: 0 }}>${alert.severity} · since <time datetime=${iso(alert.since)}>${moment(alert.since)}</time> (${ago(alert.since, now.value)})${active ? "" : ` · over since ${moment(alert.cleared_at)}`}${alert.acknowledged_by ? ` · acknowledged by ${alert.acknowledged_by}, ${moment(alert.acknowledged_at)}` : ""}</p>
      ${alert.detail && html`<p class="any">${alert.detail}</p>`}
      ${active && alert.help && html`<p class="help any">${alert.help}</p>`}
      <p class="small row">${alert.run != null && html`<a href=${`#/runs/${alert.run}`}>Run ${alert.run}</a>`}${alert.test && html`<a class="any" href=${`#/tests${query({ project: alert.project ?? runs.value.get(alert.run)?.project, test: alert.test })}`}>${alert.test}</a>`}${alert.node && html`<${Worker} peer=${alert.node} />`}</p></div>
    <div>${active && !alert.acknowledged_by && html`<${Deed} does=${async () => takeAlert(await post(`api/alerts/${alert.id}/acknowledge`, { by: who || "somebody" }))} done="acknowledged">Acknowledge<//>`}</div>
  </article>`;
}
