// Series over runs, by uPlot: one way to draw them all. A table with the same numbers stands beside each for who can't see.

import { html, useEffect, useRef } from "./vendor/ui.js";
import { dark, inks } from "./theme.js";

const HEIGHT = 170;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500];

let sheet = null;

function style() {
  if (sheet) return;
  sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = new URL("./vendor/uPlot.min.css", import.meta.url).href;
  document.head.append(sheet);
}

const colourOf = (one) => one.colour ?? "xpassed";

/**
 * `names`: what each place on the x axis is called; `series`: [{label, values, colour, line, points}], a value for each;
 * `show(value)`: as text, `axis(value)`: shorter; `choose(index)`: a click.
 */
export function Series({ label, names, series, show = String, axis: named = show, max, choose }) {
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
      const options = {
        width: element.clientWidth,
        height: HEIGHT,
        cursor: { drag: { x: true, y: false }, points: { size: 7 } },
        legend: { live: true },
        scales: { x: { time: false, range: () => [-0.5, names.length - 0.5] }, y: { range: (_, low, high) => [0, max ?? Math.max((high ?? 1) * 1.08, 1e-9)] } },
        axes: [{ ...axis, size: 30, space: 70, incrs: STEPS, values: (_, places) => places.map((place) => names[place] ?? "") }, { ...axis, size: 62, values: (_, values) => values.map((value) => named(value)) }],
        series: [
          { label: "run", value: (_, value) => names[value] ?? "–" },
          ...series.map((one) => ({
            label: one.label,
            stroke: colours[colourOf(one)],
            width: one.line === false ? 0 : 1.6,
            spanGaps: true,
            points: { show: one.points ?? names.length < 60, size: 6, fill: colours[colourOf(one)] },
            value: (_, value) => (value == null ? "–" : show(value)),
          })),
        ],
      };
      plot.current = new uPlot(options, [names.map((_, place) => place), ...series.map((one) => one.values)], element);
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
  }, [names, ...series.map((one) => one.values), dark.value]);
  return html`<div class="chart" ref=${place} role="img" aria-label=${label}></div>`;
}
