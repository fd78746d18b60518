// All runs that the mesh knows.

import { html } from "./vendor/ui.js";
import { isOver, plural } from "./format.js";
import { useLive } from "./live.js";
import { narrow, route } from "./route.js";
import { newest } from "./store.js";
import { RunsTable } from "./overview.js";
import { Card, Empty } from "./widgets.js";

const PAGE = 50;

export function Runs() {
  const queue = useLive("api/queue", { on: ["run-submitted", "run-finished"], every: 3000, poll: 5000 });
  const { search = "", state = "", shown = PAGE } = route.value.query;
  const wanted = search.toLowerCase();
  const found = newest.value.filter(
    (run) => (!state || run.state === state || (state === "open" && !isOver(run))) && `${run.run} ${run.name} ${run.project}`.toLowerCase().includes(wanted),
  );
  return html`<h1 tabindex="-1">Runs</h1>
    <${Card} title="All runs" note=${plural(found.length, "run")}>
      <form class="row" role="search" onSubmit=${(event) => event.preventDefault()}>
        <label class="field">Number, name or project<input type="search" value=${search} onInput=${(event) => narrow({ search: event.target.value, shown: null })} /></label>
        <label class="field">State<select value=${state} onChange=${(event) => narrow({ state: event.target.value, shown: null })}>
          ${["", "open", "passed", "failed", "error", "cancelled"].map((one) => html`<option key=${one} value=${one}>${one || "any"}</option>`)}</select></label>
      </form>
      ${found.length ? html`<${RunsTable} runs=${found.slice(0, Number(shown))} queue=${queue.data} />` : html`<${Empty}>${newest.value.length ? "No run is like that." : "No runs yet."}<//>`}
      ${found.length > shown && html`<p><button onClick=${() => narrow({ shown: Number(shown) + PAGE })}>Show more</button></p>`}
    <//>`;
}
