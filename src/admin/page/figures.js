// What `/stats` says, as tiles and tables.

import { bytes, count, duration, element, fill, find, nothing, row } from "./dom.js";
import { draw } from "./chart.js";

/** Seconds that the rates in the tiles are a mean of. */
const RATE_SECONDS = 5;
/** Seconds that the server keeps. */
const SERIES_SECONDS = 900;

const sum = (values) => Object.values(values ?? {}).reduce((total, value) => total + value, 0);
const rate = (values) => {
  const last = values.slice(-RATE_SECONDS);
  return last.length === 0 ? 0 : last.reduce((total, value) => total + value, 0) / last.length;
};
const quantile = (histogram, wanted) =>
  histogram?.quantiles?.find(({ quantile: part }) => part === wanted)?.seconds ?? null;
const above = (values) => Object.entries(values ?? {}).filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1]);

function tile(title, value, note, bar) {
  return element("div", {}, element("dt", {}, title), element("dd", {}, value, note ? element("small", {}, note) : null, bar));
}

function bar(title, value, most) {
  const attributes = { min: 0, max: most || 1, value, high: most * 0.8, optimum: 0, "aria-label": title };
  return element("meter", attributes, `${bytes(value)} of ${bytes(most)}`);
}

export function tiles(stats, series) {
  const { figures, spool, inserters } = stats;
  const waiting = figures.events_spooled;
  fill(find("#tiles"),
    tile("Accepted", `${count(rate(series.events_accepted))}/s`, `${count(figures.events_accepted_total)} in all`),
    tile("Inserted", `${count(rate(series.events_inserted))}/s`, `${count(sum(figures.events_inserted_total))} in all`),
    tile("Requests", `${count(rate(series.requests))}/s`, `${count(sum(figures.requests_total))} in all`),
    tile("Rejected lines", `${count(rate(series.events_rejected))}/s`, `${count(sum(figures.events_rejected_total))} in all`),
    tile("Refused for load", `${count(rate(series.shed))}/s`, `${count(sum(figures.shed_total))} in all`),
    tile("Reply, p99", duration(quantile(figures.request_seconds, 0.99)), `p50 ${duration(quantile(figures.request_seconds, 0.5))}`),
    tile("Events that wait", count(waiting), `oldest ${duration(spool.oldest_seconds)}`),
    tile("Spool", bytes(spool.bytes), `of ${bytes(spool.bytes_max)}`, bar("Spool", spool.bytes, spool.bytes_max)),
    tile("Disk, free", spool.disk_free_bytes === null ? "–" : bytes(spool.disk_free_bytes), `at least ${bytes(spool.disk_free_min_bytes)} stay free`),
    tile("Bytes in flight", bytes(figures.in_flight_bytes), `${count(figures.connections)} connections`),
    tile("Inserters at work", count(inserters.busy), `of ${count(inserters.count)}; spare ones stand in for silent ones`),
    tile("Idempotency keys", count(figures.idempotency_keys), `kept for ${duration(figures.idempotency_horizon_seconds)}`),
  );
}

export function charts(series) {
  draw("rates", [
    ["accepted", series.events_accepted, "accepted"],
    ["inserted", series.events_inserted, "inserted"],
    ["rejected", series.events_rejected, "rejected"],
  ], SERIES_SECONDS);
  draw("waiting", [["spooled", series.events_spooled, "waiting"]], SERIES_SECONDS);
}

export function latencies({ figures }) {
  const delivery = Object.entries(figures.delivery_seconds ?? {}).map(([table, histogram]) =>
    [`From the reply to the row in ClickHouse: ${table}`, histogram]);
  const lines = [
    ["From the request to its reply", figures.request_seconds],
    ["Commit: write and sync of the log", figures.commit_seconds],
    ["INSERT", figures.insert_seconds],
    ...delivery,
  ];
  const cells = (histogram) => [0.5, 0.9, 0.99, 0.999].map((part) => duration(quantile(histogram, part)));
  fill(find("#latencies tbody"),
    ...lines.filter(([, histogram]) => histogram).map(([title, histogram]) => row(title, histogram.count, ...cells(histogram))));
}

function guarantee({ available, reason, guarantee: given }) {
  if (!available) return element("td", { class: "bad" }, "takes no events", element("small", {}, reason ?? ""));
  const text = reason ? element("small", {}, reason) : null;
  if (!given) return element("td", { class: "warn" }, "not known yet", text);
  const level = given.level.replaceAll("_", " ");
  const fix = given.fix ? element("small", {}, element("code", {}, given.fix)) : null;
  return element("td", { class: given.level === "exactly_once" ? "good" : "warn", title: given.text }, level, fix, text);
}

export function tables(stats) {
  const known = new Map(stats.tables.map((table) => [table.label, table]));
  fill(find("#ledger tbody"), ...Object.entries(stats.ledger).map(([label, accounts]) => {
    const table = known.get(label);
    const held = table?.held ?? 0;
    return row(label, table ? element("td", {}, element("code", {}, table.path)) : "",
      table ? guarantee(table) : element("td", { class: "note" }, "rejected lines"),
      accounts.recovered, accounts.committed, accounts.inserted, accounts.spooled, accounts.set_aside,
      element("td", { class: held > 0 ? "number bad" : "number" }, table ? count(held) : ""));
  }));
  const balance = find("#balance");
  balance.textContent = stats.ledger_balances ? "It balances." : "It does not balance: this is a bug, please report it.";
  balance.className = stats.ledger_balances ? "good" : "bad";
  find("#held").hidden = stats.held.length === 0;
  fill(find("#held tbody"), ...stats.held.map((block) => row(
    block.block, block.table, block.rows, bytes(block.bytes), element("td", {}, element("small", {}, block.reason)),
    element("td", {}, element("code", {}, block.command)))));
}

export function clickhouse(stats) {
  find("#inserters").textContent = `${count(stats.inserters.busy)} inserters are at work; ${count(stats.inserters.count)} are configured, and spare ones stand in for those whose INSERT is silent.`;
  const state = ({ answers, error }) => {
    if (answers === null) return element("td", { class: "warn" }, error ? "no answer yet" : "not asked yet");
    return answers ? element("td", { class: "good" }, "answers") : element("td", { class: "bad" }, "away");
  };
  fill(find("#servers tbody"), ...stats.servers.map((server) =>
    row(server.url, state(server), server.version ?? "", element("td", {}, element("small", {}, server.error ?? "")))));
  const inserts = Object.entries(stats.figures.inserts_total ?? {});
  const outcomes = Object.keys(inserts[0]?.[1] ?? {});
  const head = (text) => element("th", { scope: "col" }, text);
  fill(find("#inserts thead"), element("tr", {}, head("Table"), ...outcomes.map(head)));
  fill(find("#inserts tbody"), ...inserts.map(([label, counts]) => row(label, ...outcomes.map((outcome) => counts[outcome] ?? 0))));
}

export function rejected({ figures }) {
  const list = (id, entries, text) =>
    fill(find(`#${id} tbody`), ...(entries.length > 0 ? entries.map(([name, value]) => row(name, value)) : [nothing(2, text)]));
  list("codes", above(figures.events_rejected_total), "none");
  const unknown = Object.entries(figures.unknown_fields_total ?? {}).flatMap(([table, fields]) =>
    above(fields).map(([field, value]) => [`${table}: ${field}`, value]));
  list("unknown", unknown.slice(0, 100), "none");
  list("shed", above(figures.shed_total), "none");
  list("replies", above(figures.requests_total), "no reply yet");
}
