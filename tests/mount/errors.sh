#!/bin/bash
# SPDX-License-Identifier: MIT
# Every mistake gives one line with the path and what to do, the right status, and changes nothing.
. "$(dirname "$0")/lib.sh"

state() { find "$work/kept" -printf '%p %y %m %U:%G %s %T@\n' | LC_ALL=C sort; }

# expect STATUS PATH WORDS COMMAND...: the line begins with PATH and contains WORDS; the directory
# $work/kept is as it was.
expect() {
    local want=$1 path=$2 words=$3 got=0 before
    shift 3
    before=$(state)
    "$@" >"$work/out" 2>"$work/err" || got=$?
    echo "$got: $(cat "$work/err")"
    [ "$got" = "$want" ] || fail "status $got, not $want: $*"
    [ ! -s "$work/out" ] || fail "said on stdout: $(cat "$work/out")"
    [ "$(wc -l <"$work/err")" = 1 ] || fail "not one line: $(cat "$work/err")"
    [ -z "$path" ] || grep -qF "fasterfs: $path: " "$work/err" || fail "the line does not begin with $path"
    grep -q -- "$words" "$work/err" || fail "the line does not say \"$words\""
    grep -q ';' "$work/err" || fail "the line does not say what to do"
    [ "$before" = "$(state)" ] || fail "something was touched: $*"
    if grep -qF " $mnt " /proc/self/mountinfo; then fail "mounted: $*"; fi
}
F=$FASTERFS
kept=$work/kept
mkdir "$kept"

say "the store"
echo data >"$kept/file"
expect 1 "$kept/file" "file" "$F" "$kept/file" "$mnt"
expect 1 "$kept/file/below" "file" "$F" "$kept/file/below" "$mnt"
expect 1 "$kept/no/such" "does not exist" "$F" "$kept/no/such" "$mnt"
expect 1 "$kept" "" "$F" "$kept" "$mnt"
expect 1 "$kept/absent" "ro" "$F" "$kept/absent" "$mnt" -o ro

"$F" "$kept/store" "$mnt" -o memory=8M
echo content >"$mnt/content"
"$F" umount "$mnt"
[ -f "$kept/store/superblock.0" ] || fail "where is the superblock?"

say "its damage"
cp -a "$kept/store" "$work/spare"
damaged=$kept/store
for f in "$damaged"/superblock.*; do
    printf 'damage damage damage' | dd of="$f" bs=1 seek=40 conv=notrunc status=none
done
expect 1 "$damaged" damaged "$F" "$damaged" "$mnt"
for f in "$damaged"/superblock.*; do : >"$f"; done
expect 1 "$damaged" "" "$F" "$damaged" "$mnt"
rm -rf "$damaged"
cp -a "$work/spare" "$damaged"

say "the mount point"
expect 1 "$work/nowhere" "mkdir" "$F" "$kept/store" "$work/nowhere"
expect 1 "$kept/file" "not a directory" "$F" "$kept/store" "$kept/file"
mkdir "$work/full"
touch "$work/full/x"
expect 1 "$work/full" "not empty" "$F" "$kept/store" "$work/full"
expect 1 "$kept/store" "inside\|hidden" "$F" "$kept/store" "$kept/store"
expect 1 "$kept/store" "inside\|hidden" "$F" "$kept/store" "$kept"
mkdir "$kept/store2"
expect 1 "$kept/new" "inside\|hidden" "$F" "$kept/new" "$kept"
rmdir "$kept/store2"

say "usage"
expect 2 "" "MOUNTPOINT" "$F" "$kept/store" -f
expect 2 "" "nosuch" "$F" mount "$kept/store" "$mnt" -o nosuch
expect 2 "" "memory" "$F" mount "$kept/store" "$mnt" -o memory=lots
expect 2 "" "one argument" "$F" mount "$kept/store" "$mnt" more
expect 2 "" "blah" "$F" blah
expect 2 "" "command" "$F"
expect 2 "" "snapshot" "$F" snapshot
expect 2 "" "snapshot" "$F" snapshot create "$mnt"
"$F" --help | grep -q 'fasterfs mount STORE' || fail "no help"
for c in mount umount sync snapshot; do "$F" $c --help | grep -q "fasterfs $c" || fail "no help for $c"; done
"$F" --version | grep -q '^fasterfs [0-9]' || fail "no version"

say "not a mount"
expect 1 "$mnt" "not" "$F" sync "$mnt"
expect 1 "$mnt" "not\|no fasterfs" "$F" umount "$mnt"
expect 1 "$mnt" "not" "$F" snapshot list "$mnt"
expect 1 "$work/nowhere" "" "$F" umount "$work/nowhere"

say "in use"
"$F" "$kept/store" "$mnt"
mkdir "$work/second"
got=0
"$F" "$kept/store" "$work/second" 2>"$work/err" || got=$?
cat "$work/err"
[ $got = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q findmnt "$work/err" || fail "mounted a store twice"
got=0
"$F" "$work/other" "$mnt" 2>"$work/err" || got=$?
cat "$work/err"
[ $got = 1 ] && grep -q 'already' "$work/err" || fail "mounted over a mount"
[ ! -e "$work/other" ] || fail "made a store and did not mount it"
got=0
(cd "$mnt" && "$F" umount "$mnt") 2>"$work/err" || got=$?
cat "$work/err"
[ $got = 1 ] && grep -q fuser "$work/err" || fail "unmounted under a program"
say "mounting again right after umount(8)"
for _ in 1 2 3; do
    umount "$mnt"
    "$F" "$kept/store" "$mnt"
    [ "$(cat "$mnt/content")" = content ] || fail "content is gone"
done
say "a dead daemon"
kill -9 "$(daemon_of "$kept/store")"
sleep 0.3
got=0
"$F" "$kept/store" "$mnt" 2>"$work/err" || got=$?
cat "$work/err"
[ $got = 1 ] && grep -q 'fasterfs umount' "$work/err" || fail "a dead mount is not recognized"
"$F" umount "$mnt"
"$F" "$kept/store" "$mnt"
[ "$(cat "$mnt/content")" = content ] || fail "content is gone"

say "silent, and SIGTERM ends it cleanly"
"$F" umount "$mnt"
"$F" "$kept/store" "$mnt" >"$work/out" 2>&1
[ ! -s "$work/out" ] || fail "mounting says: $(cat "$work/out")"
"$F" umount "$mnt"
"$F" "$kept/store" "$mnt" -f &
pid=$!
for _ in $(seq 200); do
    if mountpoint -q "$mnt"; then break; fi
    sleep 0.05
done
echo more >"$mnt/more"
kill -TERM $pid
wait $pid || fail "status $? after SIGTERM"
if mountpoint -q "$mnt"; then fail "still mounted after SIGTERM"; fi
say "read-only"
"$F" "$kept/store" "$mnt" -o ro
[ "$(cat "$mnt/more")" = more ] || fail "more is gone"
if touch "$mnt/x" 2>/dev/null; then fail "wrote to a read-only mount"; fi
"$F" sync "$mnt"
"$F" umount "$mnt"

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    say "no permission"
    chmod 755 "$work"
    chmod 700 "$kept/store"
    chown nobody "$mnt"
    if [ "$(realpath "$F")" = "$F" ] && setpriv --reuid=nobody --clear-groups "$F" --version >/dev/null 2>&1; then
        expect 1 "$kept/store" "permission" setpriv --reuid=nobody --clear-groups "$F" "$kept/store" "$mnt"
    else
        skip_part "another user cannot run $F"
    fi
    chown root "$mnt"
else
    skip_part "not root: nobody else to be"
fi

if [ "$(id -u)" = 0 ]; then
    if unshare -m true 2>/dev/null; then
        say "no space, no /dev/fuse"
        mkdir "$work/small" "$work/small.mnt"
        mount -t tmpfs -o size=16k tmpfs "$work/small" || true
        if mountpoint -q "$work/small"; then
            head -c 16384 /dev/zero >"$work/small/fill" 2>/dev/null || true
            got=0
            "$F" "$work/small/store" "$work/small.mnt" 2>"$work/err" || got=$?
            cat "$work/err"
            [ $got = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q '[sS]pace' "$work/err" || fail "no line about space"
            umount "$work/small"
        else
            skip_part "no tmpfs"
        fi
        # shellcheck disable=SC2016
        unshare -m bash -c 'mount -t tmpfs tmpfs /dev && exec "$@"' - "$F" "$kept/store" "$mnt" 2>"$work/err" && fail "no /dev/fuse and mounted"
        cat "$work/err"
        grep -q 'fasterfs: /dev/fuse: .*modprobe' "$work/err" && [ "$(wc -l <"$work/err")" = 1 ] || fail "no line about /dev/fuse"
    else
        skip_part "no mount namespaces here"
    fi
fi
say "passed"
