// The newest events, the live tail, and the quarantine.

import { ask, element, fill, find, nothing } from "./dom.js";

const TAIL_MAX = 200;

const fields = (form) => Object.fromEntries(new FormData(form));
const api = (label, rest = "") => `/api/${encodeURIComponent(label)}${rest}`;

/** Offers the tables and codes of `stats` where one can choose. */
export function offer(stats) {
  const labels = stats.tables.map(({ label }) => label);
  for (const select of document.querySelectorAll("select[name=table]")) choose(select, labels);
  const codes = find("#quarantine-form").elements.code;
  choose(codes, ["", ...Object.keys(stats.figures.events_rejected_total ?? {}), "refused_by_clickhouse"]);
  if (!find("#quarantine-export").href) exportLink();
}

function choose(select, values) {
  if ([...select.options].map(({ value }) => value).join("\n") === values.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...values.map((value) => element("option", { value }, value || "any")));
  if (values.includes(chosen)) select.value = chosen;
}

/** Shows lines of NDJSON as a table. Returns the columns. */
function rows(id, text) {
  const lines = text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  const columns = [...new Set(lines.flatMap((line) => Object.keys(line)))];
  const said = (value) => (typeof value === "string" ? value : JSON.stringify(value ?? null));
  fill(find(`#${id} thead`), element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column))));
  const cells = (line) => columns.map((column) => element("td", { title: said(line[column]) }, said(line[column])));
  fill(find(`#${id} tbody`), ...(lines.length > 0 ? lines.map((line) => element("tr", {}, ...cells(line))) : [nothing(columns.length || 1, "none")]));
  return columns;
}

/** Does what a form asks for, and says beside it what went wrong. */
function on(form, note, action) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    note.textContent = "Asking";
    try {
      note.textContent = (await action(fields(form))) ?? "";
    } catch (error) {
      note.textContent = error.message;
    }
  });
}

const newest = find("#events-form");
on(newest, find("#events-state"), async ({ table, column, value, limit }) => {
  const query = new URLSearchParams({ limit: limit || "20" });
  if (column) query.set(column, value);
  const columns = rows("newest", await (await ask(api(table, `?${query}`))).text());
  if (columns.length > 0) {
    const select = newest.elements.column;
    const known = [...new Set([...[...select.options].map((option) => option.value).filter(Boolean), ...columns])];
    choose(select, ["", ...known]);
  }
});
newest.elements.table.addEventListener("change", () => choose(newest.elements.column, [""]));

const quarantine = find("#quarantine-form");

function quarantineQuery(limit) {
  const { code, text } = fields(quarantine);
  const query = new URLSearchParams({ limit });
  if (code) query.set("code", code);
  if (text) query.set("text", text);
  return query;
}

function exportLink() {
  const { table } = fields(quarantine);
  if (table) find("#quarantine-export").href = api(table, `/quarantine?${quarantineQuery(10000)}`);
}

quarantine.addEventListener("input", exportLink);
on(quarantine, find("#quarantine-state"), async ({ table }) => {
  rows("quarantine", await (await ask(api(table, `/quarantine?${quarantineQuery(50)}`))).text());
});

async function replay(dry) {
  const note = find("#quarantine-state");
  const { table } = fields(quarantine);
  const query = quarantineQuery(10000);
  if (dry) query.set("dry_run", "1");
  else if (!confirm(`Store the lines of the quarantine of ${table} that are good now?`)) return;
  note.textContent = "Asking";
  try {
    const { replayed, rejected } = await (await ask(api(table, `/quarantine?${query}`), { method: "POST" })).json();
    note.textContent = `${replayed} lines ${dry ? "would be" : "are"} stored, ${rejected} are refused again.`;
  } catch (error) {
    note.textContent = error.message;
  }
}

find("#replay-try").addEventListener("click", () => replay(true));
find("#replay").addEventListener("click", () => replay(false));

const live = find("#live-form");
let source = null;
let skipped = 0;

function stopTail(text) {
  source?.close();
  source = null;
  live.querySelector("button").textContent = "Start";
  find("#live-state").textContent = text;
}

function addToTail(data) {
  const { line, ip, server_time: time, code, message } = JSON.parse(data);
  const text = typeof line === "string" ? line : JSON.stringify(line);
  const { text: wanted } = fields(live);
  if (wanted && !text.includes(wanted)) return;
  const list = find("#live");
  const about = [time, ip, code, message].filter(Boolean).join(" ");
  list.prepend(element("li", {}, text, " ", element("small", {}, about)));
  while (list.childElementCount > TAIL_MAX) list.lastElementChild.remove();
}

live.addEventListener("submit", (event) => {
  event.preventDefault();
  if (source) return stopTail("Stopped.");
  const { table, rejected } = fields(live);
  find("#live").replaceChildren();
  skipped = 0;
  source = new EventSource(api(table, `/live${rejected ? "?rejected=1" : ""}`));
  live.querySelector("button").textContent = "Stop";
  find("#live-state").textContent = "Waiting for events. At most 100 a second are shown.";
  source.onmessage = ({ data }) => addToTail(data);
  source.addEventListener("skipped", ({ data }) => {
    skipped += JSON.parse(data).skipped;
    find("#live-state").textContent = `${skipped} more were left out: at most 100 a second are shown.`;
  });
  source.onerror = () => {
    if (source?.readyState === EventSource.CLOSED) stopTail("The server has ended the tail.");
  };
});
