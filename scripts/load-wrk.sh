#!/usr/bin/env bash
# load-wrk.sh URL CONNECTIONS DURATION BODY: sends the body with wrk for a while, and fails when a
# request does.
set -euo pipefail

url=$1 connections=$2 duration=$3 body=$4
here=$(cd "$(dirname "$0")" && pwd)
"$here/need.sh" wrk "wrk is needed for this: install it with your system's packages." wrk

threads=2
[ "$connections" -ge "$threads" ] || threads=1
export BODY=$body EVENTS
EVENTS=$(grep -c . "$body")
echo "wrk: $connections connections for $duration, $EVENTS events a request, to $url"
report=$(wrk --threads "$threads" --connections "$connections" --duration "$duration" --latency --script "$here/load.lua" "$url")
echo "$report" | grep -E '^(requests|events|latency|failed):'
echo "$report" | grep -q '^failed:   0 replies other than 200, 0 broken connections$' || {
    echo "Some requests failed." >&2
    exit 1
}
