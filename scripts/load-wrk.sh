#!/usr/bin/env bash
# load-wrk.sh URL CONNECTIONS DURATION BODY: sends the body with wrk for a while, and fails when a
# request does. BODY is a file, or `random`: 64 bodies of random events, made here, by turns.
set -euo pipefail

url=$1 connections=$2 duration=$3 body=$4
here=$(cd "$(dirname "$0")" && pwd)
"$here/need.sh" wrk "wrk is needed for this: install it with your system's packages." wrk

random_bodies=64 events_a_body=30
if [ "$body" = random ]; then
    body=$(mktemp)
    trap 'rm -f "$body"' EXIT
    "$here/random-events.sh" "$((random_bodies * events_a_body))" >"$body"
    events=$events_a_body
else
    events=$(grep -c . "$body")
fi

threads=2
[ "$connections" -ge "$threads" ] || threads=1
export BODY=$body EVENTS=$events
echo "wrk: $connections connections for $duration, $events events a request, to $url"
report=$(wrk --threads "$threads" --connections "$connections" --duration "$duration" --latency --script "$here/load.lua" "$url")
echo "$report" | grep -E '^(requests|events|latency|failed):'
echo "$report" | grep -q '^failed:   0 replies other than 200, 0 broken connections$' || {
    echo "Some requests failed." >&2
    exit 1
}
