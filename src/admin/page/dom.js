// Elements and texts. What an event, a client or ClickHouse wrote becomes text, never markup.

export const find = (selector) => document.querySelector(selector);

/** An element with its class, attributes and children; texts among the children stay texts. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A row of a table: numbers are set as numbers, elements are taken as they are. */
export function row(...cells) {
  const cell = (value) => {
    if (value instanceof HTMLTableCellElement) return value;
    return element("td", { class: typeof value === "number" ? "number" : null }, typeof value === "number" ? count(value) : value);
  };
  return element("tr", {}, ...cells.map(cell));
}

/** Replaces what is in `place`, and leaves it alone where nothing has changed, so that a selection stays. */
export function fill(place, ...children) {
  const next = element("div", {}, ...children);
  if (place.innerHTML !== next.innerHTML) place.replaceChildren(...next.childNodes);
}

/** A row that says that there is nothing. */
export const nothing = (columns, text) => element("tr", {}, element("td", { colspan: columns, class: "note" }, text));

export const count = (value) => Number(value).toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : 0 });

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toLocaleString("en", { maximumFractionDigits: value < 10 && unit > 0 ? 1 : 0 })} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  const short = (value) => Number(value.toPrecision(3));
  if (seconds < 0.001) return `${short(seconds * 1e6)} µs`;
  if (seconds < 1) return `${short(seconds * 1e3)} ms`;
  if (seconds < 120) return `${short(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A fetch of this address; an error's text is the reply's message. */
export async function ask(path, options) {
  const reply = await fetch(path, { cache: "no-store", ...options });
  if (reply.ok) return reply;
  const text = await reply.text();
  let message = text;
  try {
    message = JSON.parse(text).message ?? text;
  } catch {
    // The text is the message.
  }
  throw new Error(message || `status ${reply.status}`);
}
