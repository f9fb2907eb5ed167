#!/bin/bash
# SPDX-License-Identifier: MIT
# PostgreSQL on a mount whose daemon is killed under load: it recovers, its sums agree, and what it checksums is sound.
. "$(dirname "$0")/lib.sh"

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
[ -x "${bin:-}/pgbench" ] || bin=$(dirname "$(command -v pgbench || true)")
[ -x "$bin/initdb" ] || skip "postgresql is not installed"
owner=$(id -un)
if [ "$owner" = root ]; then
    owner=postgres
    id -u postgres >/dev/null 2>&1 || skip "there is no user postgres, and PostgreSQL does not run as root"
fi
chmod 755 "$work"
mkdir -m 777 "$work/run"
data=$mnt/data
mount_it() { "$FASTERFS" "$store" "$mnt" -o "memory=$1$([ "$(id -u)" != 0 ] || echo ,allow_other)"; }
pg() {
    local as=(env)
    [ "$(id -u)" != 0 ] || as=(setpriv --reuid="$owner" --regid="$owner" --clear-groups env)
    (cd "$work/run" && "${as[@]}" PATH="$bin:$PATH" HOME="$work/run" PGHOST="$work/run" "$@")
}
start() {
    pg pg_ctl -w -t 120 -D "$data" -o "-k $work/run -c listen_addresses=''" -l "$work/run/log" start >/dev/null ||
        fail "PostgreSQL does not start: $(tail -5 "$work/run/log")"
}
# Processes of PostgreSQL outlive the disk under them; they must not outlive this script.
stop_at_once() {
    local leader
    leader=$(cat "$work/run/leader" 2>/dev/null || true)
    if [ -n "$leader" ]; then
        kill -QUIT "$leader" 2>/dev/null || true
        wait_gone "$leader"
        rm -f "$work/run/leader"
    fi
}
trap 'status=$?; set +e; stop_at_once; (exit $status); cleanup' EXIT

mount_it 32M
mkdir -m 700 "$data"
chown "$owner" "$data"
pg initdb -k -N -D "$data" >"$work/run/initdb" 2>&1 || fail "initdb: $(tail -3 "$work/run/initdb")"
start
head -1 "$data/postmaster.pid" >"$work/run/leader"
pg createdb bench
pg pgbench -i -q -s 1 bench 2>/dev/null

for memory in 32M 2M; do
    say "kill -9 of the daemon under pgbench, then memory=$memory"
    pg pgbench -n -c 2 -T 60 bench >"$work/run/bench" 2>&1 &
    bench=$!
    sleep 4
    done_before=$(pg psql -Atc "select count(*) from pgbench_history" bench)
    kill -9 "$(daemon_of "$store")"
    wait $bench || true
    stop_at_once
    "$FASTERFS" umount "$mnt"
    mount_it "$memory"
    rm -f "$data/postmaster.pid"
    start
    head -1 "$data/postmaster.pid" >"$work/run/leader"
    done_after=$(pg psql -Atc "select count(*) from pgbench_history" bench)
    [ "$done_after" -ge "$done_before" ] || fail "of $done_before transactions $done_after are left"
    [ "$done_after" -gt 0 ] || fail "pgbench did nothing: $(tail -3 "$work/run/bench")"
    sums=$(pg psql -Atc "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
        (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)" bench)
    [ "$(tr '|' '\n' <<<"$sums" | sort -u | wc -l)" = 1 ] || fail "sums differ: $sums"
done

say "checksums of every page; the indexes and tables, by amcheck"
pg psql -qc "create extension amcheck" bench || skip_part "there is no amcheck, of postgresql-contrib"
if [ "$(pg psql -Atc "select count(*) from pg_extension where extname = 'amcheck'" bench)" = 1 ]; then
    pg psql -qAtc "select bt_index_parent_check(c.oid, true) from pg_class c join pg_am a on a.oid = c.relam
        where a.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p'" bench >/dev/null || fail "amcheck"
    [ -z "$(pg psql -qAtc "select v.* from pg_class c, verify_heapam(c.oid) v
        where c.relkind = 'r' and c.relname like 'pgbench%'" bench)" ] || fail "verify_heapam finds damage"
fi
pg pg_ctl -D "$data" -m fast stop >/dev/null
rm -f "$work/run/leader"
pg pg_checksums --check -D "$data" | grep -x "Bad checksums:  0" || fail "pages with wrong checksums"
"$FASTERFS" umount "$mnt"
say "passed"
