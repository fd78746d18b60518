"use strict";
// The table of all tests: searched, filtered and sorted here, and shown a part at a time, so that 10,000 stay quick.
const ROWS_SHOWN = 100;
const data = JSON.parse(document.getElementById("data").textContent);
const [TEST, OUTCOME, SECONDS, WORKER, ATTEMPT, MARK] = [0, 1, 2, 3, 4, 5];
const one = (id) => document.getElementById(id);
const lower = data.tests.map((row) => row[TEST].toLowerCase());
const state = { outcomes: new Set(), words: [], sort: "outcome", descending: false, shown: ROWS_SHOWN };
const order = {
  outcome: (a, b) => data.tests[a][OUTCOME] - data.tests[b][OUTCOME],
  name: (a, b) => (lower[a] < lower[b] ? -1 : lower[a] > lower[b] ? 1 : 0),
  seconds: (a, b) => data.tests[a][SECONDS] - data.tests[b][SECONDS],
  worker: (a, b) => data.tests[a][WORKER] - data.tests[b][WORKER],
};

function tagged(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function seconds(value) {
  return value < 1 ? Math.round(value * 1000) + " ms" : value < 60 ? value.toFixed(2) + " s" : (value / 60).toFixed(1) + " min";
}

function chosen() {
  const found = [];
  for (let place = 0; place < data.tests.length; place++) {
    const row = data.tests[place];
    if (state.outcomes.size && !state.outcomes.has(row[OUTCOME]) && !(row[MARK] && state.outcomes.has(row[MARK]))) continue;
    if (state.words.every((word) => lower[place].includes(word))) found.push(place);
  }
  const compare = order[state.sort];
  found.sort((a, b) => (state.descending ? compare(b, a) : compare(a, b)) || a - b);
  return found;
}

function detail(place) {
  const told = data.details[place];
  const body = tagged("div", undefined, "body");
  const facts = [`${data.outcomes[data.tests[place][OUTCOME]]} on ${data.workers[data.tests[place][WORKER]]}, attempt ${data.tests[place][ATTEMPT]}`];
  if (data.tests[place][MARK]) facts.push(data.tests[place][MARK]);
  body.append(tagged("p", facts.join(" · "), "dim"));
  for (const [title, text] of told || []) {
    if (title) body.append(tagged("h3", title));
    const block = tagged("pre", text);
    block.tabIndex = 0;
    block.setAttribute("role", "group");
    block.setAttribute("aria-label", title || "What went wrong");
    body.append(block);
  }
  if (!told) body.append(tagged("p", "It left no output here.", "dim"));
  return body;
}

function line(place) {
  const row = data.tests[place];
  const made = document.createElement("tr");
  const badge = document.createElement("td");
  badge.append(tagged("span", data.outcomes[row[OUTCOME]], "badge " + data.outcomes[row[OUTCOME]]));
  const name = tagged("td", undefined, "name");
  const button = tagged("button", row[TEST]);
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) { made.nextSibling.remove(); return; }
    const below = document.createElement("tr");
    const cell = document.createElement("td");
    cell.colSpan = 4;
    cell.append(detail(place));
    below.append(cell);
    made.after(below);
  });
  name.append(button);
  if (row[MARK]) name.append(" ", tagged("span", row[MARK], "badge"));
  made.append(badge, name, tagged("td", seconds(row[SECONDS]), "number"), tagged("td", data.workers[row[WORKER]], "wide"));
  return made;
}

function show() {
  const found = chosen();
  one("rows").replaceChildren(...found.slice(0, state.shown).map(line));
  one("found").textContent = `${found.length.toLocaleString("en")} of ${data.tests.length.toLocaleString("en")} tests`;
  one("more").hidden = found.length <= state.shown;
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const here = head.dataset.sort === state.sort;
    head.setAttribute("aria-sort", here ? (state.descending ? "descending" : "ascending") : "none");
  }
}

function again() { state.shown = ROWS_SHOWN; show(); }

for (const button of document.querySelectorAll(".chips button")) {
  button.addEventListener("click", () => {
    const value = button.dataset.mark || Number(button.dataset.outcome);
    const on = !state.outcomes.has(value);
    if (on) state.outcomes.add(value); else state.outcomes.delete(value);
    button.setAttribute("aria-pressed", String(on));
    again();
  });
}
for (const button of document.querySelectorAll("th[data-sort] button")) {
  button.addEventListener("click", () => {
    const sort = button.parentElement.dataset.sort;
    state.descending = sort === state.sort ? !state.descending : sort === "seconds";
    state.sort = sort;
    again();
  });
}
one("search").addEventListener("input", (event) => {
  state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  again();
});
one("more").addEventListener("click", () => { state.shown += 5 * ROWS_SHOWN; show(); });
one("all").hidden = false;
show();
