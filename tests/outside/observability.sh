#!/usr/bin/env bash
# The Grafana dashboard and the alert rules: promtool takes them, each alert fires when it should, and every metric
# that they name is in the /metrics of a running server.
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=tests/outside/common.sh
. tests/outside/common.sh

say "the rules, and when they fire"
promtool check rules scripts/prometheus-alerts.yml
promtool test rules tests/outside/alerts.yml

say "a server that has had each kind of traffic"
binary=${SLUICEGATE:-target/release/sluicegate}
mkdir -p target/outside
work=$(mktemp -d "$PWD/target/outside/observability.XXXXXX")
clickhouse='' server=''
finish() {
    status=$?
    [ "$status" = 0 ] || cat "$work/log" >&2 2>/dev/null || true
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$clickhouse" ] || kill "$clickhouse" 2>/dev/null || true
    wait
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

events_port=$(free_port) admin_port=$(free_port) clickhouse_port=$(free_port)
"$binary" clickhouse --path "$work/clickhouse" --http-port "$clickhouse_port" >"$work/clickhouse.log" 2>&1 &
clickhouse=$!
until_true 60 "ClickHouse answers" curl -sf "http://127.0.0.1:$clickhouse_port/ping"
echo "web-0123456789abcdef name=web" >"$work/keys"
"$binary" serve --listen "127.0.0.1:$events_port" --admin-listen "127.0.0.1:$admin_port" --spool-dir "$work/spool" \
    --clickhouse-url "http://127.0.0.1:$clickhouse_port" --write-key-file "$work/keys" >"$work/log" 2>&1 &
server=$!
until_true 60 "it is ready" curl -sf "http://127.0.0.1:$admin_port/readyz"
# A field without a column, a time without a unit, and a line that is rejected.
printf '%s\n' '{"event":"a","colour":"red","client_time":1767225600}' '{"event":' |
    curl -sf -H 'X-Write-Key: web-0123456789abcdef' --data-binary @- "http://127.0.0.1:$events_port/api/events" >/dev/null
metrics() { curl -sf "http://127.0.0.1:$admin_port/metrics"; }
inserted() { metrics | grep -q '^sluicegate_events_inserted_total{table="events"} 1$'; }
until_true 30 "the event is inserted" inserted
metrics >"$work/metrics"
grep -q '^sluicegate_disk_free_bytes' "$work/metrics" || until_true 10 "the disk is measured" sh -c \
    "curl -sf http://127.0.0.1:$admin_port/metrics | grep -q '^sluicegate_disk_free_bytes'"
metrics | python3 tests/outside/observability.py
