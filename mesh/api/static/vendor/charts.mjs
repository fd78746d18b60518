// What only pages with pictures need; loaded with them.
export { forceCollide, forceLink, forceManyBody, forceSimulation, forceX, forceY } from "d3-force";
export { default as uPlot } from "uplot";
