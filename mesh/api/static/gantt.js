// Draws a timeline on a canvas: only the rows and the part of time that are in view, so that 20,000 spans stay smooth.

import { OUTCOMES, tick as named } from "./format.js";
import { dark, inks } from "./theme.js";

const AXIS = 22;
const LABEL = 118;
const ROW_MAX = 22;
const ROW_MIN = 9;
const VIEW_MAX = 520; // px
const COLOURS = [...OUTCOMES, "ink", "soft", "line", "card", "sunk"];

/** `on.point(tip | null)`: a span under the pointer or the cursor; `on.choose(index)`: it was clicked. */
export function gantt(scroller, on) {
  const canvas = document.createElement("canvas");
  const filler = document.createElement("div");
  scroller.replaceChildren(canvas, filler);
  const pen = canvas.getContext("2d");
  let drawn = { rows: [], whole: 1, chain: new Set() };
  let [from, to] = [0, 1]; // seconds in view
  let fitted = true;
  let cursor = null; // [row, place] that keys have reached
  let colours = {};
  let frame = 0;

  const label = () => (canvas.clientWidth < 480 ? 84 : LABEL);
  const height = () => Math.max(ROW_MIN, Math.min(ROW_MAX, Math.floor((VIEW_MAX - AXIS) / Math.max(drawn.rows.length, 1))));
  const x = (at) => label() + ((at - from) / (to - from)) * (canvas.clientWidth - label() - 6);
  const at = (px) => from + ((px - label()) / (canvas.clientWidth - label() - 6)) * (to - from);

  function size() {
    const width = scroller.clientWidth;
    const total = AXIS + height() * drawn.rows.length + 4;
    const view = Math.min(total, VIEW_MAX);
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(view * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${view}px`;
    scroller.style.maxHeight = `${VIEW_MAX}px`;
    filler.style.height = `${total - view}px`;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    colours = { ...inks(COLOURS), font: getComputedStyle(scroller).fontFamily };
    later();
  }

  function later() {
    frame ||= requestAnimationFrame(draw);
  }

  function draw() {
    frame = 0;
    const width = canvas.clientWidth;
    const view = canvas.clientHeight;
    const high = height();
    pen.clearRect(0, 0, width, view);
    axis(width, view);
    const first = Math.floor(scroller.scrollTop / high);
    const count = Math.ceil(view / high) + 1;
    for (let place = first; place < Math.min(first + count, drawn.rows.length); place++) {
      const top = AXIS + place * high - scroller.scrollTop;
      pen.save();
      pen.beginPath();
      pen.rect(0, AXIS, width, view - AXIS);
      pen.clip();
      row(drawn.rows[place], place, top, high);
      pen.restore();
    }
  }

  function axis(width, view) {
    const step = nice((to - from) / Math.max(2, Math.floor((width - label()) / 90)));
    pen.font = `11px ${colours.font}`;
    pen.textBaseline = "middle";
    pen.textAlign = "center";
    for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) {
      const px = Math.round(x(tick)) + 0.5;
      pen.strokeStyle = colours.line;
      pen.beginPath();
      pen.moveTo(px, AXIS - 4);
      pen.lineTo(px, view);
      pen.stroke();
      pen.fillStyle = colours.soft;
      if (px < width - 18) pen.fillText(named(tick), px, AXIS / 2 - 1);
    }
  }

  function row({ name, slot, spans, idle }, place, top, high) {
    const thick = Math.max(high - 5, 4);
    for (const [start, length] of idle) hatch(x(start), top, x(start + length) - x(start), thick);
    let end = -1;
    for (let index = firstAfter(spans, from); index < spans.length && spans[index][1] <= to; index++) {
      const span = spans[index];
      const left = Math.max(x(span[1]), label());
      const right = Math.max(Math.min(x(span[1] + span[2]), canvas.clientWidth - 2), left + 0.7);
      if (right <= end && !drawn.chain.has(span[0]) && span[3] === 0) continue; // covered already
      end = right;
      pen.fillStyle = colours[OUTCOMES[span[3]]];
      const wide = right - left;
      pen.fillRect(left, top, wide > 3 ? wide - 0.6 : wide, thick);
      if ((span[3] === 1 || span[3] === 2) && wide > 7 && thick > 7) cross(left + wide / 2, top + thick / 2);
      if (drawn.chain.has(span[0])) {
        pen.fillStyle = colours.ink;
        pen.fillRect(left, top + thick, Math.max(wide, 1.5), 2);
      }
      if (cursor?.[0] === place && cursor[1] === index) {
        pen.strokeStyle = colours.ink;
        pen.lineWidth = 3;
        pen.strokeRect(left - 1, top - 1, wide + 2, thick + 2);
      }
      pen.lineWidth = 1;
    }
    pen.fillStyle = colours.card;
    pen.fillRect(0, top - 1, label() - 2, high);
    if (high >= 11 || place % 2 === 0) {
      pen.fillStyle = colours.soft;
      pen.font = `${Math.min(11, high)}px ${colours.font}`;
      pen.textAlign = "right";
      const most = label() < 100 ? 8 : 14;
      pen.fillText(`${name.length > most ? name.slice(0, most - 1) + "…" : name} · ${slot}`, label() - 8, top + thick / 2, label() - 12);
    }
  }

  function hatch(left, top, wide, thick) {
    const right = Math.min(left + wide, canvas.clientWidth - 2);
    left = Math.max(left, label());
    if (right - left < 2) return;
    pen.save();
    pen.beginPath();
    pen.rect(left, top, right - left, thick);
    pen.clip();
    pen.fillStyle = colours.sunk;
    pen.fillRect(left, top, right - left, thick);
    pen.strokeStyle = colours.line;
    pen.beginPath();
    for (let px = left - thick; px < right; px += 7) {
      pen.moveTo(px, top + thick);
      pen.lineTo(px + thick, top);
    }
    pen.stroke();
    pen.restore();
  }

  function cross(px, py) {
    pen.strokeStyle = colours.card;
    pen.lineWidth = 1.6;
    pen.beginPath();
    pen.moveTo(px - 2.5, py - 2.5);
    pen.lineTo(px + 2.5, py + 2.5);
    pen.moveTo(px + 2.5, py - 2.5);
    pen.lineTo(px - 2.5, py + 2.5);
    pen.stroke();
  }

  function look(a, b) {
    const least = Math.max(drawn.whole / 100000, 0.001);
    const wide = Math.min(Math.max(b - a, least), drawn.whole);
    const start = Math.min(Math.max(a, 0), drawn.whole - wide);
    [from, to] = [start, start + wide];
    fitted = wide >= drawn.whole * 0.999;
    later();
  }

  const zoom = (factor, middle = (from + to) / 2) => look(middle - (middle - from) * factor, middle + (to - middle) * factor);

  function under(event) {
    const box = canvas.getBoundingClientRect();
    const place = Math.floor((event.clientY - box.top - AXIS + scroller.scrollTop) / height());
    const found = drawn.rows[place];
    if (!found || event.clientX - box.left < label() || event.clientY - box.top < AXIS) return null;
    const when = at(event.clientX - box.left);
    const slack = ((to - from) / canvas.clientWidth) * 2;
    const span = found.spans[firstAfter(found.spans, when - slack)];
    return !span || span[1] - slack > when ? null : { span, name: found.name, slot: found.slot, x: event.clientX, y: event.clientY };
  }

  let held = null;
  const listeners = {
    pointerdown: (event) => (held = { x: event.clientX, from, to, moved: false }),
    pointermove: (event) => {
      if (held && event.buttons) {
        const shift = at(0) - at(event.clientX - held.x);
        if (Math.abs(event.clientX - held.x) > 4) held.moved = true;
        if (held.moved) look(held.from + shift, held.to + shift);
      }
      on.point(held?.moved && event.buttons ? null : under(event));
    },
    pointerleave: () => on.point(null),
    pointerup: (event) => {
      const found = held && !held.moved && under(event);
      held = null;
      if (found) on.choose(found.span[0]);
    },
    wheel: (event) => {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      const delta = event.deltaY || event.deltaX;
      zoom(delta > 0 ? 1.25 : 0.8, at(event.clientX - canvas.getBoundingClientRect().left));
    },
  };
  for (const [name, listener] of Object.entries(listeners)) canvas.addEventListener(name, listener, { passive: false });

  function keys(event) {
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") zoom(0.6);
    else if (event.key === "-") zoom(1 / 0.6);
    else if (event.key === "0") look(0, drawn.whole);
    else if (event.key === "Enter" && cursor) on.choose(drawn.rows[cursor[0]].spans[cursor[1]][0]);
    else if (event.key in steps) step(...steps[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function step(rows, spans) {
    const before = cursor && drawn.rows[cursor[0]]?.spans[cursor[1]];
    const place = Math.min(Math.max((cursor?.[0] ?? 0) + rows, 0), drawn.rows.length - 1);
    const many = drawn.rows[place].spans;
    const index = rows && before ? Math.max(0, firstAfter(many, before[1])) : Math.min(Math.max((cursor?.[1] ?? -1) + spans, 0), many.length - 1);
    cursor = [place, Math.min(index, many.length - 1)];
    const span = many[cursor[1]];
    if (span[1] < from || span[1] + span[2] > to) look(span[1] - (to - from) / 3, span[1] + ((to - from) * 2) / 3);
    const high = height();
    const top = place * high;
    if (top < scroller.scrollTop || top + AXIS + high > scroller.scrollTop + canvas.clientHeight) scroller.scrollTop = top - high;
    const box = canvas.getBoundingClientRect();
    on.point({ span, name: drawn.rows[place].name, slot: drawn.rows[place].slot, keyed: true, x: box.left + x(span[1]), y: box.top + AXIS + top - scroller.scrollTop });
    later();
  }

  const left = () => {
    cursor = null;
    on.point(null);
    later();
  };
  scroller.addEventListener("keydown", keys);
  scroller.addEventListener("blur", left);
  scroller.addEventListener("scroll", later, { passive: true });
  const observer = new ResizeObserver(size);
  observer.observe(scroller);
  const undress = dark.subscribe(size);

  return {
    show(next) {
      const rows = drawn.rows.length;
      drawn = next;
      if (fitted) [from, to] = [0, Math.max(drawn.whole, 0.001)];
      if (rows !== drawn.rows.length) size();
      else later();
    },
    closer: () => zoom(0.6),
    wider: () => zoom(1 / 0.6),
    all: () => look(0, drawn.whole),
    close() {
      cancelAnimationFrame(frame);
      observer.disconnect();
      undress();
      scroller.removeEventListener("keydown", keys);
      scroller.removeEventListener("blur", left);
      scroller.removeEventListener("scroll", later);
    },
  };
}

/** The first span that has not ended at `when` (of a slot, which has one at a time). */
function firstAfter(spans, when) {
  let [low, high] = [0, spans.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[middle][1] + spans[middle][2] < when) low = middle + 1;
    else high = middle;
  }
  return low;
}

function nice(step) {
  const minutes = step >= 30 && [60, 120, 240].find((one) => step <= one);
  if (minutes) return minutes;
  const power = 10 ** Math.floor(Math.log10(Math.max(step, 1e-6)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= step * 0.999);
}
