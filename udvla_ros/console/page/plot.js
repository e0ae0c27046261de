// The surprise over the last minute, with the level that counts as an alarm.
import uPlot from "/page/vendor/uplot.js";

const SPAN = 60; // s
let plot = null;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function show(root, scores) {
  const rows = scores.filter((one) => one.level !== undefined);
  const last = rows.length ? rows.at(-1).stamp : 0;
  const near = rows.filter((one) => one.stamp > last - SPAN);
  const data = [near.map((one) => one.stamp - last), near.map((one) => one.level), near.map((one) => one.threshold)];
  if (!plot) plot = make(root, data); else plot.setData(data);
}

export function redraw(root, scores) {
  plot?.destroy();
  plot = null;
  show(root, scores);
}

function make(root, data) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "13px system-ui" };
  const made = new uPlot({
    width: root.clientWidth, height: root.clientHeight, cursor: { show: false }, legend: { show: false },
    scales: { x: { time: false, range: () => [-SPAN, 0] }, y: { range: (u, low, high) => [0, Math.max(2, 1.15 * (high ?? 2))] } },
    axes: [{ ...axis, size: 26, space: 80, values: (u, ticks) => ticks.map((t) => `${t} s`) }, { ...axis, size: 36 }],
    series: [
      {},
      { stroke: colour("--accent"), width: 2.5, fill: colour("--go-soft"), points: { show: true, size: 5, fill: colour("--accent") } },
      { stroke: colour("--halt"), width: 2, dash: [8, 5], points: { show: false } },
    ],
  }, data, root);
  new ResizeObserver(() => made.setSize({ width: root.clientWidth, height: root.clientHeight })).observe(root);
  return made;
}
