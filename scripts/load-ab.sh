#!/usr/bin/env bash
# load-ab.sh URL CONNECTIONS REQUESTS BODY: sends the body with ab, on kept connections and on a
# new connection for each request, and fails when a request does. BODY is a file, or `random`: a
# body of 30 random events, made here (ab sends no more than one).
set -euo pipefail

url=$1 connections=$2 requests=$3 body=$4
here=$(cd "$(dirname "$0")" && pwd)
"$here/need.sh" ab "ab is needed for this: it is in your system's package apache2-utils or httpd-tools." apache2-utils

if [ "$body" = random ]; then
    body=$(mktemp)
    trap 'rm -f "$body"' EXIT
    "$here/random-events.sh" 30 >"$body"
fi
events=$(grep -c . "$body")
run() {
    echo "ab $*: $requests requests over $connections connections, $events events each, to $url"
    local report
    report=$(ab -q "$@" -n "$requests" -c "$connections" -T application/x-ndjson -p "$body" "$url" 2>&1) || {
        echo "$report" >&2
        exit 1
    }
    echo "$report" | awk -v events="$events" '
        /^Requests per second:/ { printf "requests: %.0f a second\nevents:   %.0f a second\n", $4, $4 * events }
        /^Complete requests:|^Failed requests:|^Non-2xx responses:/ { print }'
    if ! echo "$report" | grep -qE "^Complete requests: +$requests$" || ! echo "$report" | grep -qE '^Failed requests: +0$' \
        || echo "$report" | grep -q '^Non-2xx responses:'; then
        echo "Some requests failed." >&2
        exit 1
    fi
}

# Each connection is a file; the usual limit is lower than a large test needs.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
run -k
run
