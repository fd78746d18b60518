// Series over runs, by uPlot: one way to draw them all. A table with the same numbers stands beside each for who can't see.

import { html, useEffect, useRef } from "./vendor/ui.js";

const HEIGHT = 170;

let sheet = null;

function style() {
  if (sheet) return;
  sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = new URL("./vendor/uPlot.min.css", import.meta.url).href;
  document.head.append(sheet);
}

const colour = (name) => {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};

/**
 * `x`: unix seconds; `series`: [{label, values, colour, dash, points}]; `show(value)`: as text; `choose(index)`: a click.
 */
export function Series({ label, x, series, show = String, max, min = 0, choose }) {
  const place = useRef(null);
  const plot = useRef(null);
  useEffect(() => {
    style();
    let here = true;
    let observer;
    import("./vendor/charts.js").then(({ uPlot }) => {
      if (!here || !place.current) return;
      const soft = colour("soft");
      const line = { stroke: colour("line"), width: 1 };
      const axis = { stroke: soft, grid: line, ticks: line, font: `11px ${getComputedStyle(document.body).fontFamily}` };
      const options = {
        width: place.current.clientWidth,
        height: HEIGHT,
        cursor: { drag: { x: true, y: false }, points: { size: 7 } },
        legend: { live: true },
        scales: { x: { time: true }, y: { range: (_, low, high) => [Math.min(min, low ?? 0), max ?? Math.max((high ?? 1) * 1.08, 1e-9)] } },
        axes: [{ ...axis, size: 30 }, { ...axis, size: 62, values: (_, values) => values.map((value) => show(value)) }],
        series: [
          { label: "at", value: (_, value) => (value == null ? "–" : new Date(value * 1000).toLocaleString("en-GB", { dateStyle: "short", timeStyle: "short" })) },
          ...series.map((one) => ({
            label: one.label,
            stroke: colour(one.colour ?? "xpassed"),
            width: one.line === false ? 0 : 1.6,
            dash: one.dash,
            spanGaps: true,
            points: { show: one.points ?? x.length < 60, size: 5 },
            value: (_, value) => (value == null ? "–" : show(value)),
          })),
        ],
      };
      plot.current = new uPlot(options, [x, ...series.map((one) => one.values)], place.current);
      if (choose) plot.current.over.addEventListener("click", () => plot.current.cursor.idx != null && choose(plot.current.cursor.idx));
      observer = new ResizeObserver(() => plot.current.setSize({ width: place.current.clientWidth, height: HEIGHT }));
      observer.observe(place.current);
    });
    return () => {
      here = false;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [x, ...series.map((one) => one.values), document.documentElement.dataset.theme]);
  return html`<div class="chart" ref=${place} role="img" aria-label=${label}></div>`;
}
