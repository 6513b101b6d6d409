// Lines over the last 15 minutes, as SVG.

import { count, element, fill, find } from "./dom.js";

const WIDTH = 900;
const HEIGHT = 140;
const SPACE = "http://www.w3.org/2000/svg";

function shape(name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The next of 1, 2, 5, 10, 20, … above `value`. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((bound) => bound >= value) ?? 1;
}

/** The mean of every few steps, so that a line has no more points than the chart has columns. */
function thinned(values, points) {
  const each = Math.max(1, Math.ceil(values.length / points));
  const means = [];
  for (let start = values.length % each; start < values.length; start += each) {
    const part = values.slice(start, start + each);
    means.push(part.reduce((sum, value) => sum + value, 0) / part.length);
  }
  return { means, each };
}

/**
 * Draws `lines`, a list of [name, values, title], the newest value last, one value a second, on a chart that
 * is `steps` seconds wide.
 */
export function draw(id, lines, steps) {
  const chart = find(`#${id}`);
  const thin = lines.map(([name, values]) => [name, thinned(values, 300)]);
  const top = ceiling(Math.max(1, ...thin.flatMap(([, line]) => line.means)));
  const shapes = [0, 0.5, 1].map((part) => shape("line", { x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part }));
  for (const [name, { means, each }] of thin) {
    const points = means.map((value, index) => {
      const x = WIDTH - ((means.length - 1 - index) * each * WIDTH) / steps;
      return `${x.toFixed(1)},${(HEIGHT - (value * HEIGHT) / top).toFixed(1)}`;
    });
    if (points.length > 0) shapes.push(shape("path", { class: name, d: `M${points.join("L")}` }));
  }
  chart.setAttribute("viewBox", `-2 -4 ${WIDTH + 4} ${HEIGHT + 8}`);
  chart.setAttribute("preserveAspectRatio", "none");
  chart.replaceChildren(...shapes);
  const legend = lines.map(([name, values, title]) =>
    element("span", { class: name }, `${title} ${count(values.at(-1) ?? 0)}`));
  fill(find(`#${id}-legend`), ...legend, element("span", {}, `top of the chart: ${count(top)}`));
  const now = lines.map(([, values, title]) => `${title} ${count(values.at(-1) ?? 0)}`).join(", ");
  chart.setAttribute("aria-label", `Last 15 minutes; now ${now}`);
}
