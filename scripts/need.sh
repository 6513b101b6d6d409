#!/usr/bin/env bash
# need.sh PROGRAM SENTENCE [DEBIAN-PACKAGE]: is the program there? Installs the package as root on
# Debian, else says the sentence.
set -euo pipefail

program=$1 sentence=$2 package=${3:-}

command -v "$program" >/dev/null && exit 0
if [ -n "$package" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing $package …"
    export DEBIAN_FRONTEND=noninteractive
    (apt-get update -qq && apt-get install -y -qq "$package") >/dev/null || true
    command -v "$program" >/dev/null && exit 0
fi
echo "$sentence" >&2
exit 1
