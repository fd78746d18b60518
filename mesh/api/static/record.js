// What was recorded of one attempt at a test: why it failed, and what it printed.

import { html } from "./vendor/ui.js";
import { plural, printed, seconds, whole } from "./format.js";
import { Empty, Shape } from "./widgets.js";

const SHOWN_MAX = 60000; // characters of one text that are put on the page at first

export function Record({ record, brief }) {
  if (!record) return html`<${Empty}>Its record can't be had: no node that is here has it.<//>`;
  const texts = [
    ["Traceback", record.longrepr],
    ["Standard output", record.stdout],
    ["Standard error", record.stderr],
    ["Log", record.log],
  ].filter(([, text]) => text);
  return html`
    ${record.message && !record.longrepr?.includes(record.message) && html`<p class="any"><b>${record.message}</b></p>`}
    ${record.signal > 0 && html`<p>Its process was ended by signal ${record.signal}.</p>`}
    ${texts.map(([title, text]) => html`<${Output} key=${title} title=${title} text=${text} open=${title === "Traceback" || texts.length === 1 || !brief} />`)}
    ${!texts.length && !record.message && html`<${Empty}>It printed nothing.<//>`}
    ${record.dropped > 0 && html`<p class="soft small">${whole(record.dropped)} bytes of output were left out.</p>`}
    ${record.warnings?.length > 0 && html`<details class="more"><summary>${plural(record.warnings.length, "warning")}</summary><pre class="output" tabindex="0">${record.warnings.join("\n")}</pre></details>`}`;
}

function Output({ title, text, open }) {
  const cut = text.length > SHOWN_MAX;
  return html`<details class="more" open=${open}><summary>${title}</summary>
    <pre class="output" tabindex="0" aria-label=${title}>${lines(printed(cut ? text.slice(-SHOWN_MAX) : text).trimEnd())}</pre>
    ${cut && html`<p class="soft small">The last ${whole(SHOWN_MAX)} of ${whole(text.length)} characters.</p>`}</details>`;
}

/** pytest's own marks at the start of a line: what was raised, and where. */
function lines(text) {
  const parts = [];
  let plain = "";
  for (const line of text.split("\n")) {
    const kind = /^E(\s|$)/.test(line) ? "e" : /^(_{4,}|-{4,}|={4,}|[\w./-]+:\d+: )/.test(line) ? "w" : "";
    if (!kind) {
      plain += line + "\n";
      continue;
    }
    if (plain) parts.push(plain);
    plain = "";
    parts.push(html`<span class=${kind}>${line + "\n"}</span>`);
  }
  if (plain) parts.push(plain);
  return parts;
}

export function Phases({ record }) {
  if (!record?.phases?.length) return null;
  return html`<ul class="legend">${record.phases.map((phase, place) => html`<li key=${place}><${Shape} of=${phase.outcome} />${phase.name} <b>${seconds(phase.duration)}</b></li>`)}</ul>`;
}
