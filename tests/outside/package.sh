#!/usr/bin/env bash
# The Debian package on a clean Debian: a debootstrap root that systemd-nspawn boots with a real systemd and sshd.
# scripts/deploy installs the package there; the service runs as its unit says, against a ClickHouse outside; it is
# upgraded, removed and purged while events wait in the spool, and every event is in ClickHouse once.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ "$(id -u)" = 0 ] || { echo "The test of the package boots a Debian root: it needs root." >&2; exit 1; }

# The exposure that `systemd-analyze security` may find, of 100.
EXPOSURE_MAX=20

# shellcheck source=tests/outside/common.sh
. tests/outside/common.sh

base=target/outside/debian
if [ ! -f "$base/complete" ]; then
    say "a clean Debian (debootstrap)"
    rm -rf "$base"
    mkdir -p "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,openssh-server \
        bookworm "$base/root" >"$base/log" 2>&1 || { tail -n 20 "$base/log" >&2; fail "debootstrap made no Debian"; }
    touch "$base/complete"
fi

work=$(mktemp -d "$PWD/target/outside/package.XXXXXX")
root=$work/root booted='' clickhouse=''
finish() {
    status=$?
    if [ "$status" != 0 ] && [ -d "$root" ]; then
        journalctl -D "$root/var/log/journal" -u sluicegate --no-pager -n 40 2>/dev/null >&2 || true
    fi
    [ -z "$clickhouse" ] || kill "$clickhouse" 2>/dev/null || true
    # SIGTERM makes the booted system stop in order; a second one ends it.
    [ -z "$booted" ] || kill "$booted" 2>/dev/null || true
    for _ in $(seq 100); do
        if [ -z "$booted" ] || ! kill -0 "$booted" 2>/dev/null; then break; fi
        sleep 0.1
    done
    [ -z "$booted" ] || kill "$booted" 2>/dev/null || true
    wait
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

cp -a "$base/root" "$root"
ssh_port=$(free_port) events_port=$(free_port) admin_port=$(free_port) clickhouse_port=$(free_port)

ssh-keygen -q -t ed25519 -N '' -f "$work/key"
install -d -m 700 "$root/root/.ssh"
install -m 600 "$work/key.pub" "$root/root/.ssh/authorized_keys"
printf 'Port %s\nListenAddress 127.0.0.1\n' "$ssh_port" >"$root/etc/ssh/sshd_config.d/test.conf"
mkdir -p "$root/var/log/journal"
cat >"$work/ssh_config" <<TEXT
Host debian
    HostName 127.0.0.1
    Port $ssh_port
    User root
    IdentityFile $work/key
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile $work/known_hosts
    LogLevel ERROR
TEXT

# The network is this machine's: loopback is all that the test uses.
systemd-nspawn -q -D "$root" -M "sluicegate-$$" --register=no --keep-unit --boot --console=pipe \
    </dev/null >"$work/console" 2>&1 &
booted=$!
there() { ssh -F "$work/ssh_config" -o BatchMode=yes debian "$@"; }
still_there() { kill -0 "$booted" 2>/dev/null || { cat "$work/console" >&2; fail "the Debian root does not run"; }; }
until_true 60 "sshd answers" there true
until_true 60 "systemd has started" there "systemctl is-system-running | grep -qE 'running|degraded'"

start_clickhouse() {
    target/release/sluicegate clickhouse --path "$work/clickhouse" --http-port "$clickhouse_port" \
        >>"$work/clickhouse.log" 2>&1 &
    clickhouse=$!
    until_true 60 "ClickHouse answers" curl -sf "http://127.0.0.1:$clickhouse_port/ping"
}
stop_clickhouse() {
    kill "$clickhouse"
    wait "$clickhouse" || true
    clickhouse=''
}
query() { curl -sf "http://127.0.0.1:$clickhouse_port/" --data-binary "$1"; }
sent=0
send() { # send COUNT: so many events, in one request
    for number in $(seq $((sent + 1)) $((sent + $1))); do
        echo "{\"event\":\"package\",\"sequence\":$number}"
    done | curl -sf --data-binary @- "http://127.0.0.1:$events_port/api/events" | grep -q "\"accepted\":$1," ||
        fail "$1 events were not taken"
    sent=$((sent + $1))
}
arrived() { [ "$(query 'SELECT count(), uniqExact(sequence) FROM events FORMAT TSV')" = "$sent"$'\t'"$sent" ]; }
every_event_arrives() { until_true 60 "ClickHouse has each of $sent events once" arrived; }
ready() { curl -sf "http://127.0.0.1:$admin_port/readyz"; }

say "the packages"
first=$(scripts/package "$work/first" 0.1.0-1~test1)
# The next version has another configuration too, so that dpkg has to choose.
dpkg-deb --raw-extract "$first" "$work/second"
echo '# of the second version' >>"$work/second/etc/sluicegate/sluicegate.toml"
sed -i 's/^Version: .*/Version: 0.1.0-1~test2/' "$work/second/DEBIAN/control"
second=$work/second_0.1.0-1~test2_amd64.deb
dpkg-deb --root-owner-group -Zgzip --build "$work/second" "$second" >/dev/null
(cd "$work/first" && sha256sum --check --quiet SHA256SUMS) || fail "SHA256SUMS"
python3 - "${first%.deb}.cdx.json" <<'TEXT'
import json, sys
bom = json.load(open(sys.argv[1]))
names = {component["name"] for component in bom["components"]}
assert bom["bomFormat"] == "CycloneDX" and {"mio", "sonic-rs", "clap"} <= names, sorted(names)
TEXT
# The maintainer has no address, and the changelog is not in the format of Debian.
lintian --allow-root --fail-on error --suppress-tags bogus-mail-host,no-changelog "$first" >"$work/said" 2>&1 ||
    { cat "$work/said" >&2; fail "lintian finds errors"; }

deploy() { scripts/deploy -F "$work/ssh_config" "$@"; }

say "a dry run changes nothing"
deploy --dry-run --package "$first" debian >"$work/said"
grep -q "would start nothing" "$work/said" || fail "the dry run says: $(cat "$work/said")"
! there "command -v sluicegate" || fail "the dry run installed it"

say "installed"
deploy --package "$first" debian >"$work/said" 2>&1 || { cat "$work/said" >&2; fail "deploy"; }
grep -q "systemctl enable --now sluicegate" "$work/said" || fail "deploy does not say what is next"
there "sluicegate --version" | grep -q '^sluicegate ' || fail "the binary does not run"
! there "systemctl is-active sluicegate" >/dev/null || fail "the service was started by the installation"
there "dpkg -V sluicegate" || fail "files differ from the package's"
for file in man/man1/sluicegate.1.gz bash-completion/completions/sluicegate zsh/vendor-completions/_sluicegate \
    fish/vendor_completions.d/sluicegate.fish doc/sluicegate/tuning.md; do

    there "test -s /usr/share/$file" || fail "/usr/share/$file is missing"
done

say "the unit"
there "systemd-analyze --man=no verify sluicegate.service sluicegate.socket" || fail "systemd-analyze verify"
there "systemd-analyze security --no-pager --threshold=$EXPOSURE_MAX sluicegate.service" >"$work/said" ||
    { cat "$work/said" >&2; fail "the unit is exposed more than $EXPOSURE_MAX of 100"; }
tail -n 1 "$work/said"

say "it runs, as its unit says"
start_clickhouse
there "sed -i -e 's|^listen = .*|listen = [\"127.0.0.1:$events_port\"]|' \
    -e 's|^admin-listen = .*|admin-listen = \"127.0.0.1:$admin_port\"|' \
    -e 's|^clickhouse-url = .*|clickhouse-url = [\"http://127.0.0.1:$clickhouse_port\"]|' \
    -e '1i shutdown-timeout = \"2s\"' /etc/sluicegate/sluicegate.toml && systemctl enable --now --quiet sluicegate"
until_true 30 "it is ready" ready
there "sluicegate check --live --config /etc/sluicegate/sluicegate.toml" || fail "check --live"
# shellcheck disable=SC2016 # expanded there
there 'test "$(ps -o user= -p "$(systemctl show -P MainPID sluicegate)" | tr -d " ")" != root' || fail "it runs as root"
there 'test -d /var/lib/private/sluicegate/spool/log' || fail "the spool is not in its StateDirectory"
send 1000
every_event_arrives
there "sluicegate check --config /etc/sluicegate/sluicegate.toml" >"$work/said" || { cat "$work/said" >&2; fail "check is not green"; }
curl -sf "http://127.0.0.1:$admin_port/" | grep -q '<title>sluicegate</title>' || fail "there is no page"
curl -sf "http://127.0.0.1:$admin_port/api/events?limit=1" | grep -q '"event"' || fail "the page has no event to show"

say "secrets reach it as docs/packages.md says"
there "set -e; umask 077; cd /etc/sluicegate; mkdir -p /etc/systemd/system/sluicegate.service.d
    cp -p sluicegate.toml /root/before.toml
    echo secret >admin-password; groupadd --system sluicegate-files
    echo 'web-0123456789abcdef name=web' >write-keys; chgrp sluicegate-files write-keys; chmod 640 write-keys
    sed -i -e '1i admin-password-file = \"/run/credentials/sluicegate.service/admin-password\"' \
        -e '1i write-key-file = \"/etc/sluicegate/write-keys\"' sluicegate.toml
    printf '%s\n' '[Service]' 'LoadCredential=admin-password:/etc/sluicegate/admin-password' \
        'SupplementaryGroups=sluicegate-files' >/etc/systemd/system/sluicegate.service.d/secrets.conf
    chmod 644 /etc/systemd/system/sluicegate.service.d/secrets.conf; chmod 755 /etc/systemd/system/sluicegate.service.d
    systemctl daemon-reload; systemctl restart sluicegate"
status_of() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
[ "$(status_of "http://127.0.0.1:$admin_port/stats") $(status_of -u a:secret "http://127.0.0.1:$admin_port/stats")" = "401 200" ] ||
    fail "the credential is not read"
[ "$(status_of -d '{"event":"a"}' "http://127.0.0.1:$events_port/api/events")" = 401 ] || fail "the write keys are not read"
there "sed -i 's/0123456789abcdef/another-key-of-the-page/' /etc/sluicegate/write-keys && systemctl reload sluicegate"
reloaded() { [ "$(status_of -H 'X-Write-Key: web-another-key-of-the-page' -d '' "http://127.0.0.1:$events_port/api/events")" = 200 ]; }
until_true 30 "a reload reads the write keys again" reloaded
there "set -e; cp -p /root/before.toml /etc/sluicegate/sluicegate.toml; rm -r /etc/systemd/system/sluicegate.service.d
    rm /etc/sluicegate/admin-password /etc/sluicegate/write-keys; systemctl daemon-reload; systemctl restart sluicegate"

say "upgraded, while events wait"
stop_clickhouse
send 500
pid=$(there "systemctl show -P MainPID sluicegate")
deploy --package "$second" debian >"$work/said" 2>&1 &
deploying=$!
until_true 60 "the service is restarted" there "test \"\$(systemctl show -P MainPID sluicegate)\" != $pid"
start_clickhouse
wait "$deploying" || { cat "$work/said" >&2; fail "deploy"; }
grep -q "test2 runs" "$work/said" || { cat "$work/said" >&2; fail "deploy does not say that it runs"; }
there "grep -q 127.0.0.1:$events_port /etc/sluicegate/sluicegate.toml" || fail "the configuration was replaced"
there "grep -q 'second version' /etc/sluicegate/sluicegate.toml.dpkg-dist" || fail "the new configuration is not beside it"
until_true 30 "it is ready" ready
send 250
every_event_arrives
! deploy --package "$first" debian >"$work/said" 2>&1 || fail "an older package was installed over a newer one"
grep -q "nothing was changed" "$work/said" || fail "a downgrade says: $(cat "$work/said")"

say "removed, while events wait"
stop_clickhouse
send 125
there "apt-get remove -y sluicegate" >"$work/said" 2>&1 || { cat "$work/said" >&2; fail "apt-get remove"; }
grep -q "is kept: its spool" "$work/said" || { cat "$work/said" >&2; fail "the removal does not say what it keeps"; }
! ready >/dev/null || fail "it still runs"
there "test -d /var/lib/private/sluicegate/spool && test -f /etc/sluicegate/sluicegate.toml" ||
    fail "the spool or the configuration went with the package"

say "installed again: what waited goes in"
deploy --package "$second" debian >"$work/said" 2>&1 || { cat "$work/said" >&2; fail "deploy"; }
start_clickhouse
there "systemctl start sluicegate"
until_true 30 "it is ready" ready
every_event_arrives

say "purged"
there "apt-get purge -y sluicegate" >"$work/said" 2>&1 || { cat "$work/said" >&2; fail "apt-get purge"; }
grep -q "Remove it with: rm -r /var/lib/private/sluicegate" "$work/said" || { cat "$work/said" >&2; fail "the purge does not say what it leaves"; }
there "test -d /var/lib/private/sluicegate/spool" || fail "the spool was purged"
left=$(there "ls -d /etc/sluicegate /usr/bin/sluicegate /etc/systemd/system/sluicegate* \
    /etc/systemd/system/*.wants/sluicegate* /usr/share/doc/sluicegate 2>/dev/null || true")
[ -z "$left" ] || fail "left after the purge: $left"
say "the package: every check passed; $sent events are in ClickHouse once"
