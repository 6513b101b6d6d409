#!/usr/bin/env bash
# The container image: what is in it, what it says of itself, and that it serves, as an ordinary user, with its spool
# on a volume, and is healthy. It is built and run by buildah in a chroot, which needs no daemon and no kernel feature.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ "$(id -u)" = 0 ] || { echo "The test of the image runs a container: it needs root." >&2; exit 1; }

# shellcheck source=tests/outside/common.sh
. tests/outside/common.sh

mkdir -p target/outside
work=$(mktemp -d "$PWD/target/outside/image.XXXXXX")
buildah=(buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs)
clickhouse='' server=''
finish() {
    status=$?
    [ "$status" = 0 ] || cat "$work/log" >&2 2>/dev/null || true
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$clickhouse" ] || kill "$clickhouse" 2>/dev/null || true
    wait
    "${buildah[@]}" rm --all >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

say "the image"
archive=$(scripts/image "$work/image")
container=$("${buildah[@]}" from --quiet "docker-archive:$archive")
root=$("${buildah[@]}" mount "$container")
(cd "$root" && find . -type f | sed 's/^\.//' | sort) >"$work/files"
{
    echo /etc/ssl/certs/ca-certificates.crt
    echo /usr/bin/sluicegate
    ldd target/release/sluicegate | grep -o '/[^ ]*' | sort -u
} | sort >"$work/expected"
diff "$work/expected" "$work/files" || fail "it has other files than binary, libraries and authorities"
[ "$(stat -c '%u %g %a' "$root/var/lib/sluicegate")" = "65532 65532 700" ] || fail "a fresh volume would not be its user's"
[ "$(find "$root" -xdev -user 65532 | wc -l)" = 1 ] || fail "its user owns more than the folder of the spool"
"${buildah[@]}" inspect --type container "$container" >"$work/inspected"
python3 - "$work/inspected" <<'TEXT'
import json, sys
config = json.load(open(sys.argv[1]))["Docker"]["config"]
assert config["User"] == "65532:65532", config
assert config["Volumes"] == {"/var/lib/sluicegate": {}}, config
assert config["Entrypoint"] == ["/usr/bin/sluicegate"] and config["Cmd"] == ["serve"], config
assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/sluicegate", "check", "--live"], config
TEXT

say "it serves, with its spool on a volume"
events_port=$(free_port) admin_port=$(free_port) clickhouse_port=$(free_port)
target/release/sluicegate clickhouse --path "$work/clickhouse" --http-port "$clickhouse_port" >"$work/clickhouse.log" 2>&1 &
clickhouse=$!
until_true 60 "ClickHouse answers" curl -sf "http://127.0.0.1:$clickhouse_port/ping"
install -d -m 700 -o 65532 -g 65532 "$work/volume"
# The network is this machine's: loopback is all that the test uses.
for setting in LISTEN=127.0.0.1:$events_port ADMIN_LISTEN=127.0.0.1:$admin_port \
    CLICKHOUSE_URL=http://127.0.0.1:$clickhouse_port; do
    "${buildah[@]}" config --env "SLUICEGATE_$setting" "$container"
done
run() { "${buildah[@]}" run --isolation chroot --volume "$work/volume:/var/lib/sluicegate" "$container" -- "$@"; }
! run /usr/bin/sluicegate check --live >"$work/said" 2>&1 || fail "it is healthy while nothing runs"
run /usr/bin/sluicegate serve >"$work/log" 2>&1 &
server=$!
until_true 60 "it is ready" curl -sf "http://127.0.0.1:$admin_port/readyz"
run /usr/bin/sluicegate check --live >"$work/said" 2>&1 || { cat "$work/said" >&2; fail "it is not healthy"; }
pid=$(pgrep -x -f '/usr/bin/sluicegate serve' | while read -r pid; do
    if grep -qz "^SLUICEGATE_ADMIN_LISTEN=127.0.0.1:$admin_port$" "/proc/$pid/environ"; then echo "$pid"; fi
done)
[ "$(stat -c %u "/proc/$pid")" = 65532 ] || fail "it runs as user $(stat -c %u "/proc/$pid")"
for number in $(seq 500); do echo "{\"event\":\"image\",\"sequence\":$number}"; done |
    curl -sf --data-binary @- "http://127.0.0.1:$events_port/api/events" | grep -q '"accepted":500,' || fail "events"
arrived() {
    [ "$(curl -sf "http://127.0.0.1:$clickhouse_port/" -d 'SELECT count(), uniqExact(sequence) FROM events')" = $'500\t500' ]
}
until_true 30 "ClickHouse has each event once" arrived
[ -f "$work/volume/spool/node-id" ] || fail "the spool is not on the volume"

say "it stops in order"
kill "$pid"
wait "$server" || fail "it ended with status $?"
server=''
say "the image: every check passed"
