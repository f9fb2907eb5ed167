#!/bin/bash
# SPDX-License-Identifier: MIT
# A store with a cold level, in its own directory and in another one: made, filled, killed, mounted again, checked.
. "$(dirname "$0")/lib.sh"

say "a tree larger than the log is kept at"
"$FASTERFS" "$store" "$mnt" -o memory=8M,cold
[ -d "$store/cold" ] || fail "there is no STORE/cold"
for d in $(seq 20); do
    mkdir "$mnt/d$d"
    head -c 2500000 /dev/urandom | split -b $((10000 + d * 1000)) - "$mnt/d$d/f"
done
manifest "$mnt" >"$work/before"
"$FASTERFS" snapshot create "$mnt" one
cold_kib() { du -sk "$1" | cut -f1; }
first=$(cold_kib "$store/cold")
for i in $(seq 6); do # what is written last pushes what was written first out of the log
    head -c 10000000 /dev/urandom >"$mnt/more$((i % 2))"
done
"$FASTERFS" sync "$mnt"
for _ in $(seq 100); do
    [ "$(cold_kib "$store/cold")" -gt $((first + 8192)) ] && break
    sleep 0.2
done
[ "$(cold_kib "$store/cold")" -gt $((first + 8192)) ] || fail "nothing has gone to the cold level in 20 seconds"

same() {
    rm -f "$mnt"/more*
    manifest "$mnt" | cmp - "$work/before" || fail "the tree is not what it was $1"
}
say "the same after kill -9, without the option"
kill_daemon "$store" "$mnt"
"$FASTERFS" "$store" "$mnt" -o memory=8M
same "after a kill"
manifest "$mnt/.snapshots/one" | cmp - "$work/before" || fail "the snapshot is not what it was"
say "changed, removed, and the rest as before"
echo new >"$mnt/d1/faa"
rm "$mnt/d2/fab"
rm -r "$mnt/d3"
"$FASTERFS" scrub "$mnt" --rate=0
"$FASTERFS" umount "$mnt"
"$FASTERFS" check "$store"
"$FASTERFS" "$store" "$mnt" -o memory=8M,ro
[ "$(cat "$mnt/d1/faa")" = new ] || fail "a change is lost"
[ ! -e "$mnt/d2/fab" ] && [ ! -e "$mnt/d3" ] || fail "what was removed is back"
"$FASTERFS" umount "$mnt"

say "without its cold level it is not mounted"
mv "$store/cold" "$work/away"
if "$FASTERFS" "$store" "$mnt" 2>"$work/error"; then fail "mounted without its cold level"; fi
grep -q "cold level" "$work/error" || fail "no word of the cold level: $(cat "$work/error")"
if "$FASTERFS" "$store" "$mnt" -o cold 2>"$work/error"; then fail "mounted with an empty cold level"; fi
grep -q "missing" "$work/error" || fail "not said to be missing: $(cat "$work/error")"
rmdir "$store/cold"
say "on another disk"
ln -s "$work/away" "$store/cold"
"$FASTERFS" "$store" "$mnt" -o cold="$work/away"
[ "$(cat "$mnt/d1/faa")" = new ] || fail "a change is lost"
"$FASTERFS" umount "$mnt"
if "$FASTERFS" "$store" "$mnt" -o cold="$work/other" 2>"$work/error"; then fail "two cold levels"; fi
grep -q "its cold level is in" "$work/error" || fail "$(cat "$work/error")"
"$FASTERFS" "$work/second" "$mnt" -o memory=8M,cold="$work/elsewhere"
echo x >"$mnt/x"
"$FASTERFS" umount "$mnt"
[ -L "$work/second/cold" ] && [ -e "$work/elsewhere/superblock.0" ] || fail "not made where it was named"
say "passed"
