// Series over runs or over time, by uPlot: one way to draw them all. A table with the same numbers stands beside each for
// who can't see.

import { html, useEffect, useRef } from "./vendor/ui.js";
import { minute } from "./format.js";
import { dark, inks } from "./theme.js";

const HEIGHT = 170;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500];
const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440];

let sheet = null;

function style() {
  if (sheet) return;
  sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = new URL("./vendor/uPlot.min.css", import.meta.url).href;
  document.head.append(sheet);
}

const DASHES = { dashed: [7, 3], dotted: [2, 3] };

const colourOf = (one) => one.colour ?? "xpassed";

/** An x axis of places, each with a name: what uPlot wants to know of it. */
const placed = (names) => ({
  values: names.map((_, place) => place),
  label: "run",
  scale: { time: false, range: () => [-0.5, names.length - 0.5] },
  axis: { space: 70, incrs: STEPS, values: (_, places) => places.map((place) => names[place] ?? "") },
  show: (value) => names[value] ?? "–",
  spanGaps: true,
  points: { show: names.length < 60, size: 6 },
});

/** And one of times, in seconds since the epoch: a gap stays one, and what stands alone between two is a point. */
const timed = (times) => ({
  values: times,
  label: "time",
  scale: { time: true, range: (_, low, high) => (low === high ? [low - 60, high] : [low, high]) },
  axis: { space: 60, incrs: MINUTES.map((minutes) => 60 * minutes), values: (_, splits) => splits.map(minute) },
  show: (value) => (value == null ? "–" : minute(value)),
  spanGaps: false,
  points: { show: true, size: 4, filter: (plot, place) => alone(plot.data[place]) },
});

const alone = (values) => [...values.keys()].filter((at) => values[at] != null && values[at - 1] == null && values[at + 1] == null);

/**
 * `names`: what each place on the x axis is called; or `times`; `series`: [{label, values, colour, dash, line, points}], a
 * value for each, `dash` being "dashed" or "dotted"; `show(value)`: as text, `axis(value)`: shorter; `choose(index)`: a click.
 */
export function Series({ label, names, times, series, show = String, axis: named = show, max, choose }) {
  const place = useRef(null);
  const plot = useRef(null);
  useEffect(() => {
    style();
    const element = place.current;
    let here = true;
    let observer;
    import("./vendor/charts.js").then(({ uPlot }) => {
      if (!here) return;
      const colours = inks(["soft", "line", ...series.map(colourOf)]);
      const line = { stroke: colours.line, width: 1 };
      const axis = { stroke: colours.soft, grid: line, ticks: line, font: `11px ${getComputedStyle(document.body).fontFamily}` };
      const x = times ? timed(times) : placed(names);
      const options = {
        width: element.clientWidth,
        height: HEIGHT,
        cursor: { drag: { x: true, y: false }, points: { size: 7 } },
        legend: { live: true, markers: { dash: (_, place) => series[place - 1]?.dash ?? "solid" } },
        scales: { x: x.scale, y: { range: (_, low, high) => [0, max ?? Math.max((high ?? 1) * 1.08, 1e-9)] } },
        axes: [{ ...axis, size: 30, ...x.axis }, { ...axis, size: 62, values: (_, values) => values.map((value) => named(value)) }],
        series: [
          { label: x.label, value: (_, value) => x.show(value) },
          ...series.map((one) => ({
            label: one.label,
            stroke: colours[colourOf(one)],
            width: one.line === false ? 0 : 1.6,
            dash: DASHES[one.dash],
            spanGaps: x.spanGaps,
            points: { ...x.points, show: one.points ?? x.points.show, fill: colours[colourOf(one)] },
            value: (_, value) => (value == null ? "–" : show(value)),
          })),
        ],
      };
      plot.current = new uPlot(options, [x.values, ...series.map((one) => one.values)], element);
      if (choose) plot.current.over.addEventListener("click", () => plot.current.cursor.idx != null && choose(plot.current.cursor.idx));
      observer = new ResizeObserver(() => plot.current.setSize({ width: element.clientWidth, height: HEIGHT }));
      observer.observe(element);
    });
    return () => {
      here = false;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [times ?? names, ...series.map((one) => one.values), dark.value]);
  return html`<div class="chart" ref=${place} role="img" aria-label=${label}></div>`;
}
