#!/usr/bin/env bash
# Fetches the embedded ClickHouse into the user's cache, once, and checks what it got.
# Package, version and integrity are pinned in clickhouse.version, which the binary reads too.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/clickhouse.version"
: "${package:?}" "${version:?}" "${integrity:?}"

cache="${XDG_CACHE_HOME:-$HOME/.cache}/sluicegate"
folder="$cache/clickhouse-$version"

if [ -e "$folder/libchdb.so" ]; then
    echo "The embedded ClickHouse is there: $folder"
    exit 0
fi
if [ "$(uname -sm)" != "Linux x86_64" ] || ! command -v npm >/dev/null; then
    if command -v clickhouse >/dev/null; then
        echo "The clickhouse on PATH serves as the embedded one: $(command -v clickhouse)"
        exit 0
    fi
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        echo "There is no embedded ClickHouse for $(uname -sm): put a clickhouse binary on PATH." >&2
    else
        echo "npm is needed to fetch the embedded ClickHouse (or put a clickhouse binary on PATH)." >&2
    fi
    exit 1
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "Fetching $package $version (about 180 MB) …"
(cd "$work" && npm pack --silent --ignore-scripts "$package@$version" >packed) || {
    echo "npm could not fetch $package $version; is there a network?" >&2
    exit 1
}
archive="$work/$(tail -n 1 "$work/packed")"
# npm comes with node, which can hash; openssl may not be there.
found=$(node -e 'const h = require("crypto").createHash("sha512");
    h.update(require("fs").readFileSync(process.argv[1]));
    console.log("sha512-" + h.digest("base64"))' "$archive")
if [ "$found" != "$integrity" ]; then
    echo "What npm fetched is not what was pinned: $found" >&2
    exit 1
fi
echo "Unpacking to $folder …"
tar -xzf "$archive" -C "$work" package/libchdb.so
rm "$archive"
mkdir -p "$folder"
# In one step: a second run beside this one sees the whole library or none.
mv -f "$work/package/libchdb.so" "$folder/libchdb.so"
echo "Done."
