# What the tests outside of cargo share: messages, ports, waiting. Sourced from the root of the repository.
# shellcheck shell=bash

say() { echo "-- $*"; }
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# What else has to hold while something is waited for: a test may have its own.
still_there() { true; }

until_true() { # until_true SECONDS WHAT COMMAND...
    local seconds=$1 what=$2
    shift 2
    for _ in $(seq $((seconds * 5))); do
        "$@" >/dev/null 2>&1 && return 0
        still_there
        sleep 0.2
    done
    fail "not within $seconds s: $what"
}
