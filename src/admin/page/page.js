// Asks `/stats` once a second while the page is seen, and shows what it says.

import { ask, element, fill, find } from "./dom.js";
import { charts, clickhouse, latencies, rejected, tables, tiles } from "./figures.js";
import { offer } from "./events.js";

const PAUSE_MS = 1000;
const STEPS = 900;

/** The steps of the last 15 minutes, each a list, the newest last. */
let series = {};
let started = null;

/** Adds the steps that the server has made since. */
function follow(stats) {
  const added = stats.series;
  if (stats.started_unix_ms !== started) {
    series = {};
    started = stats.started_unix_ms;
  }
  for (const [name, values] of Object.entries(added)) {
    series[name] = [...(series[name] ?? []), ...values].slice(-STEPS);
  }
}

/** What the state's badge and the list below it say. */
function show(text, kind, warnings) {
  const state = find("#state");
  if (state.textContent !== text) state.textContent = text;
  state.className = `state ${kind}`;
  document.title = kind === "good" ? "sluicegate" : `${text} – sluicegate`;
  const list = find("#warnings");
  list.hidden = warnings.length === 0;
  list.className = `warnings ${kind}`;
  fill(list, ...warnings.map((warning) => element("li", {}, warning)));
}

function state({ ready, reason, warnings, servers, spool }) {
  const away = servers.length > 0 && servers.every(({ answers }) => answers === false);
  const full = spool.disk_free_bytes !== null && spool.disk_free_bytes < spool.disk_free_min_bytes;
  const told = [
    ...(away ? ["ClickHouse is away: events are taken and wait in the spool."] : []),
    ...(full ? ["The spool's disk is full: less is free than --disk-free-min."] : []),
    ...warnings,
  ];
  if (!ready) {
    const text = reason?.code === "stopping" ? "Stopping" : "Takes no events";
    return show(text, "bad", [reason?.message, ...told].filter(Boolean));
  }
  if (away) return show("Takes events; ClickHouse is away", "warn", told);
  return told.length > 0 ? show("Takes events, with warnings", "warn", told) : show("Takes events", "good", []);
}

async function look() {
  const since = series.unix_ms?.at(-1) ?? 0;
  let stats;
  try {
    stats = await (await ask(`/stats?since=${since}`)).json();
  } catch (error) {
    return show("No answer from the server", "bad", [`The figures below are old: ${error.message}.`]);
  }
  follow(stats);
  find("#node").textContent = `${stats.version}, node ${stats.node}, up since ${new Date(stats.started_unix_ms).toLocaleString()}`;
  state(stats);
  tiles(stats, series);
  charts(series);
  latencies(stats);
  tables(stats);
  clickhouse(stats);
  rejected(stats);
  offer(stats);
  document.body.dataset.unixMs = stats.unix_ms;
}

async function configuration() {
  try {
    find("#settings").textContent = await (await ask("/config")).text();
  } catch (error) {
    find("#settings").textContent = error.message;
  }
}

async function run() {
  await configuration();
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

run();
