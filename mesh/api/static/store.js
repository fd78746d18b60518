// What the page knows of the mesh: signals, filled once from the API and kept true by the feed of events.
//
// Events that come together are applied together, and a view is drawn at most once for all of them.

import { batch, computed, signal } from "./vendor/ui.js";
import { ApiError, get } from "./api.js";
import { follow } from "./stream.js";
import { DASH, bad, isOver, short } from "./format.js";

const LOADS_MAX = 240; // samples of a node's load
const LOAD_MS = 2000;
const LATEST_MAX = 40;

/** The `mesh` event, and "mesh", "self" of the status; null until it is known. */
export const mesh = signal(null);
/** Map of run -> RUN, oldest first. */
export const runs = signal(new Map());
/** Active first; null: not known (yet). */
export const alerts = signal(null);
/** Map of peer -> [[unix seconds, share of the CPU, share of the slots], …], since the page was opened. */
export const loads = signal(new Map());
/** What happened since the page was opened, newest first: {at, event, data}. */
export const latest = signal([]);
/** Said aloud by screen readers. */
export const said = signal("");
/** Why the page could not be filled. */
export const trouble = signal("");
/** Seconds since the epoch, once a second. */
export const now = signal(Date.now() / 1000);
/** Of runs (key: the run; with " bad": of its failures), nodes' states (key: the peer) and kinds of events (key: the event): how often something was heard. */
const pulses = new Map();
/** Up to this index of the log, events are in what was loaded. */
let known = 0;

export const newest = computed(() => [...runs.value.values()].sort((a, b) => Number(b.run) - Number(a.run)));
export const open = computed(() => newest.value.filter((run) => !isOver(run)));
export const raised = computed(() => (alerts.value ?? []).filter((alert) => !alert.cleared_at));
export const nodes = computed(() => mesh.value?.nodes ?? []);
export const names = computed(() => new Map(nodes.value.map((node) => [node.peer, node.name])));
export const nameOf = (peer, otherwise = "") => names.value.get(peer) || otherwise || short(peer) || DASH;

export function pulse(key) {
  if (!pulses.has(key)) pulses.set(key, signal(0));
  return pulses.get(key);
}

/** Fill and follow, until the token is refused. Both begin at once: what comes meanwhile is held. */
export async function start() {
  let held = [];
  let filled = false;
  let filling = 0;
  let head = 0; // the log when the feed began: what happened before is in no event

  async function fill() {
    const number = ++filling;
    filled = false;
    if (!(await loaded(() => number === filling))) return;
    if (mesh.value.commit_index < head) await loaded(() => number === filling);
    if (number !== filling) return;
    filled = true;
    apply(held);
    held = [];
  }

  fill();
  let heard = false;
  await follow((events) => {
    for (const { event, data } of events) {
      if (event !== "hello") continue;
      if (heard && !data.reset) continue;
      heard = true;
      head = data.head;
      if (data.reset) held = [];
      if (data.reset || (filled && mesh.value.commit_index < head)) fill();
    }
    if (filled) apply(events);
    else held.push(...events);
  });
}

/** Ask again and again, until the page is filled (true), or it is no longer `wanted`. */
async function loaded(wanted) {
  for (let wait = 300; wanted(); wait = Math.min(wait * 2, 5000)) {
    try {
      await load();
      trouble.value = "";
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      trouble.value = error.message;
      if (error.status === 401) return false;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
  return false;
}

async function load() {
  const [status, told] = await Promise.all([get("api/status"), get("api/alerts").catch(() => null)]);
  batch(() => {
    mesh.value = { as_of: Date.now() / 1000, ...status };
    known = status.commit_index;
    runs.value = new Map(status.runs.map((run) => [run.run, run]));
    alerts.value = told?.alerts ?? null;
    for (const one of pulses.values()) one.value++;
  });
}

function apply(events) {
  const told = new Map(runs.value);
  let changed = false;
  batch(() => {
    for (const { id, event, data } of events) {
      if (id && Number(id) <= known) continue;
      if (event === "mesh") takeMesh(data);
      else if (event === "alert") takeAlert(data.alert);
      else if (data.run != null && event !== "hello") {
        const before = told.get(data.run) ?? blank(data.run);
        const after = changedRun(before, event, data);
        told.set(data.run, after);
        changed = true;
        pulse(data.run).value++;
        if (bad(after) !== bad(before)) pulse(`${data.run} bad`).value++;
      }
      pulse(event).value++;
      if (["run-submitted", "run-finished", "worker-joined"].includes(event)) remember(event, data);
    }
    if (changed) runs.value = told;
  });
}

const blank = (run) => ({
  run, state: "queued", name: "", project: "", submitter: "", priority: 50, pending: 0, leased: 0, done: 0, tests: 0,
  counts: {}, submitted_at: null, wall_seconds: null, exit_code: null, report: null, manifest: null, reason: "", queue: null,
}); // prettier-ignore

/** The run after an event of the log. */
function changedRun(run, event, data) {
  const { at, run: _, ...fields } = data;
  switch (event) {
    case "run-submitted":
      return { ...run, ...fields, submitted_at: at };
    case "run-collected":
      return { ...run, tests: data.tests, pending: data.tests - run.done, state: "running" };
    case "run-progress": {
      const { bad: _bad, ...numbers } = fields;
      return { ...run, ...numbers, state: isOver(run) || run.state === "reporting" ? run.state : "running" };
    }
    case "run-leased":
      return { ...moved(run, data.hedge ? 0 : data.tests), state: run.state === "queued" ? "collecting" : run.state };
    case "lease-ended":
      return moved(run, -data.tests);
    case "run-finished":
      return { ...run, ...fields, pending: 0, leased: 0 };
    default:
      return run;
  }
}

/** So many tests more are with workers; the next progress has the numbers themselves. */
function moved(run, tests) {
  const count = Math.max(-run.leased, Math.min(tests, run.pending));
  return { ...run, pending: run.pending - count, leased: run.leased + count };
}

function takeMesh(data) {
  const before = new Map(nodes.value.map((node) => [node.peer, node.state]));
  mesh.value = { ...mesh.value, ...data };
  const at = Date.now() / 1000;
  const kept = new Map();
  for (const node of data.nodes) {
    const row = loads.value.get(node.peer) ?? [];
    const due = !row.length || (at - row[row.length - 1][0]) * 1000 >= LOAD_MS;
    const sample = [at, (node.load?.["cpu.percent"] ?? 0) / 100, node.slots ? node.busy / node.slots : 0];
    kept.set(node.peer, due ? [...row.slice(1 - LOADS_MAX), sample] : row);
    const was = before.get(node.peer);
    if (!was || was === node.state) continue;
    remember(`node-${node.state}`, { at, node: node.peer, name: node.name });
    pulse(node.peer).value++;
  }
  loads.value = kept;
}

export function takeAlert(alert) {
  const others = (alerts.value ?? []).filter((one) => one.id !== alert.id);
  if (!alert.cleared_at && others.length === alerts.value?.length) said.value = `Alert: ${alert.summary}`;
  alerts.value = [alert, ...others].sort((a, b) => (a.cleared_at ? 1 : 0) - (b.cleared_at ? 1 : 0) || b.since - a.since);
}

function remember(event, data) {
  latest.value = [{ event, data, at: data.at }, ...latest.value].slice(0, LATEST_MAX);
  if (event === "run-finished") said.value = `Run ${data.run} ${data.state}`;
  if (event.startsWith("node-")) said.value = `Node ${data.name} is ${event.slice(5)}`;
}
