#!/bin/bash
# SPDX-License-Identifier: MIT
# check and scrub through the command: exit statuses, words, JSON, a mount that is scrubbed while it is used.
. "$(dirname "$0")/lib.sh"

mount_it() { "$FASTERFS" "$store" "$mnt" -o memory=16M; }
umount_it() { "$FASTERFS" umount "$mnt"; }
# expect STATUS COMMAND...: runs it, with its output in $work/out and $work/err.
expect() {
    local wanted=$1 status=0
    shift
    "$@" >"$work/out" 2>"$work/err" || status=$?
    [ $status = "$wanted" ] || {
        cat "$work/out" "$work/err" >&2
        fail "$*: status $status, not $wanted"
    }
}
json() { python3 -c 'import json, sys
d = json.load(open(sys.argv[1], encoding="utf-8", errors="strict"))
assert eval(sys.argv[2]), (sys.argv[2], d)' "$work/out" "$1" || fail "JSON: $1"; }
# Overwrites one byte of the marker that a file holds, on the disk.
damage() {
    local hits hit
    hits=$(grep -aboF -- "$1" "$store"/log.* /dev/null) || fail "the marker $1 is not on the disk"
    while IFS=: read -r file offset _; do
        printf X | dd of="$file" bs=1 seek="$((offset + 3))" conv=notrunc status=none
        sync "$file"
    done <<<"$hits"
}

say "wrong usage, no store"
expect 16 "$FASTERFS" check
expect 16 "$FASTERFS" check --what "$store"
expect 16 "$FASTERFS" scrub
expect 8 "$FASTERFS" check "$work/absent"
expect 8 "$FASTERFS" scrub "$work"
mkdir "$work/empty"
expect 8 "$FASTERFS" check "$work/empty"
[ -z "$(ls -A "$work/empty")" ] || fail "a check made something"

say "clean"
mount_it
cp -r /usr/include/linux "$mnt/linux"
mkdir "$mnt/a"
for i in 1 2 3; do
    printf 'the-marker-of-file-%d %s' "$i" "$(seq 2000)" >"$mnt/a/file$i"
done
"$FASTERFS" snapshot create "$mnt" before
for mounted in "$store" "$mnt"; do
    expect 8 "$FASTERFS" check "$mounted"
    grep -q scrub "$work/err" || fail "a check of what is mounted does not say what to do"
done
expect 0 "$FASTERFS" scrub "$mnt" --rate=0
grep -q ': clean: ' "$work/out" || fail "no result in words"
manifest "$mnt" >"$work/before"
umount_it
find "$store" -type f -exec sha256sum {} + | sort >"$work/sums"
expect 0 "$FASTERFS" check "$store"
tail -n 1 "$work/out" | grep -q ': clean: ' || fail "no result in words"
[ ! -s "$work/err" ] || fail "progress in a pipe"
expect 0 "$FASTERFS" check --json "$store"
json 'd["result"] == "clean" and d["status"] == 0 and d["list"] == [] and d["inodes"] > 100 and d["snapshots"] == 1'
expect 0 "$FASTERFS" check --repair "$store"
find "$store" -type f -exec sha256sum {} + | sort | cmp - "$work/sums" || fail "a check of a clean store wrote to it"

say "a scrub beside changes gives no false alarm, and is resumed"
mount_it
( while [ ! -e "$work/stop" ]; do
    cp -r /usr/include/linux "$mnt/copy" && rm -rf "$mnt/copy"
done ) &
writer=$!
for _ in 1 2 3; do
    expect 0 "$FASTERFS" scrub "$mnt" --rate=0 --json
    json 'd["faults"] == 0 and d["bytes"] > 1000000'
done
timeout -s INT 0.5 "$FASTERFS" scrub "$mnt" --restart --rate=1M >/dev/null || true
expect 0 "$FASTERFS" scrub "$mnt" --rate=0
touch "$work/stop"
wait $writer || fail "the writer failed"

say "a damaged file is named while mounted"
"$FASTERFS" sync "$mnt"
damage the-marker-of-file-2
expect 4 "$FASTERFS" scrub "$mnt" --restart --rate=0
grep -q '^/a/file2: contents cannot be read' "$work/out" || {
    cat "$work/out" >&2
    fail "the damaged file is not named"
}
expect 4 "$FASTERFS" scrub "$mnt" --restart --rate=0 --json
json 'd["result"] == "damaged" and any(f["path"] == "/a/file2" for f in d["list"])'
status=0
"$FASTERFS" scrub "$mnt" --restart --rate=0 >/dev/full 2>"$work/err" || status=$?
[ $status = 8 ] || fail "a result that could not be written: status $status, not 8"
umount_it

say "and found, and mended, when it is not"
expect 4 "$FASTERFS" check "$store"
grep -q '^/a/file2: contents cannot be read' "$work/out" || fail "the damaged file is not named"
tail -n 1 "$work/out" | grep -q ': damaged: ' || fail "no result in words"
expect 4 "$FASTERFS" check --json "$store"
json 'd["status"] == 4 and d["left"] == d["faults"] > 0 and d["mended"] == 0'
expect 4 "$FASTERFS" check --json --repair "$store"
json 'all(f["mended"] == (f["snapshot"] is None) for f in d["list"]) and d["damaged_snapshots"] == ["before"]'
json 'd["dropped"] == 1 and d["dropped_list"][0]["path"] == "/a/file2" and d["dropped_list"][0]["what"] == "contents"'
json 'd["left"] == sum(f["snapshot"] == "before" for f in d["list"]) > 0 and d["mended"] + d["left"] == d["faults"]'
expect 4 "$FASTERFS" check "$store"
grep -q '^/.snapshots/before/a/file2: ' "$work/out" || fail "what a snapshot lacks is not named"
grep -q 'fasterfs snapshot delete MOUNTPOINT before' "$work/out" || fail "it does not say what to do about a snapshot"
mount_it
"$FASTERFS" snapshot delete "$mnt" before
umount_it
expect 0 "$FASTERFS" check "$store"
mount_it
for i in 1 3; do
    grep -q "^the-marker-of-file-$i " "$mnt/a/file$i" || fail "file$i was hit as well"
done
manifest "$mnt" | grep -v ' a/file2$\|  ./a/file2$\|^a/file2 ' >"$work/after"
grep -v ' a/file2$\|  ./a/file2$\|^a/file2 ' "$work/before" | cmp - "$work/after" || fail "a file that was not hit has changed"
echo again >"$mnt/a/file2"
umount_it
expect 0 "$FASTERFS" check "$store"

say "a name that is not UTF-8 leaves JSON what it is"
odd=$(printf 'odd\377"\303\244\355\240\200')
mount_it
printf 'the-marker-of-odd %s' "$(seq 2000)" >"$mnt/a/$odd"
umount_it
damage the-marker-of-odd
expect 4 "$FASTERFS" check --json "$store"
json 'any(f["path"] == "/a/odd\ufffd\"\u00e4\ufffd\ufffd\ufffd" for f in d["list"])'
expect 1 "$FASTERFS" check --repair "$store"

say "a log that is damaged before its end: refused, mended, mounted"
mount_it
printf 'the-marker-of-file-4 %s' "$(seq 2000)" >"$mnt/a/file4"
"$FASTERFS" sync "$mnt"
for i in 5 6 7; do
    echo "$i" >"$mnt/a/file$i"
    "$FASTERFS" sync "$mnt"
done
kill_daemon "$store" "$mnt"
damage the-marker-of-file-4
expect 1 mount_it
grep -q 'check --repair' "$work/err" || fail "the refusal does not say what to do"
expect 1 "$FASTERFS" check --repair "$store"
grep -q '^/a/file4: ' "$work/out" || fail "the damaged file is not named"
grep -q '^dropped: /a/file4: contents' "$work/out" || fail "what was dropped is not listed"
mount_it
[ "$(cat "$mnt/a/file7")" = 7 ] || fail "what came after the damage is lost"
[ "$(cat "$mnt/a/file2")" = again ] || fail "what came before the damage is lost"
umount_it
expect 0 "$FASTERFS" check "$store"
say "done"
