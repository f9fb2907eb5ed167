#!/bin/bash
# SPDX-License-Identifier: MIT
# Snapshots through the tree and through the command.
. "$(dirname "$0")/lib.sh"

mount_it() { "$FASTERFS" "$store" "$mnt" -o memory=16M; }
mount_it
say "one is taken"
mkdir -p "$mnt/a/b"
cp -a /etc "$mnt/etc" 2>/dev/null || true
echo one >"$mnt/a/b/file"
manifest "$mnt" >"$work/one"
"$FASTERFS" snapshot create "$mnt" one
echo two >"$mnt/a/b/file"
rm -rf "$mnt/etc"
mkdir "$mnt/.snapshots/two"
echo three >"$mnt/a/b/file"

check() {
    [ "$(cat "$mnt/.snapshots/one/a/b/file")" = one ] || fail "snapshot one does not hold what was"
    [ "$(cat "$mnt/.snapshots/two/a/b/file")" = two ] || fail "snapshot two does not hold what was"
    [ "$(cat "$mnt/a/b/file")" = three ] || fail "the live tree is not what it was"
    manifest "$mnt/.snapshots/one" | cmp - "$work/one" || {
        manifest "$mnt/.snapshots/one" | diff - "$work/one" >"$work/diff" || head "$work/diff" >&2
        fail "snapshot one differs from the tree it was taken of"
    }
}
check
say "it is not listed, and read-only"
if find "$mnt" -name .snapshots | grep -q .; then fail ".snapshots is listed"; fi
if touch "$mnt/.snapshots/one/new" 2>/dev/null; then fail "a snapshot was written to"; fi
if (echo x >"$mnt/.snapshots/one/a/b/file") 2>/dev/null; then fail "a file in a snapshot was written to"; fi
if rm "$mnt/.snapshots/one/a/b/file" 2>/dev/null; then fail "a file in a snapshot was removed"; fi
if mkdir "$mnt/.snapshots/one" 2>/dev/null; then fail "a name was given twice"; fi

say "listed by the command"
"$FASTERFS" snapshot list "$mnt" | tee "$work/list"
[ "$(awk 'NR > 1 { print $1 }' "$work/list" | tr '\n' ' ')" = "one two " ] || fail "the list is wrong"
"$FASTERFS" snapshot list "$mnt" --json | tee "$work/json" | python3 -c '
import json, sys, datetime
l = json.load(sys.stdin)
assert [s["name"] for s in l] == ["one", "two"], l
now = datetime.datetime.now(datetime.timezone.utc)
for s in l:
    age = now - datetime.datetime.fromisoformat(s["time"][:19] + "+00:00")
    assert -5 < age.total_seconds() < 600, s' || fail "the JSON is wrong"

say "a snapshot outlives umount and kill -9"
"$FASTERFS" umount "$mnt"
mount_it
check
kill_daemon "$store" "$mnt"
mount_it
check

say "restored with cp -a"
cp -a "$mnt/.snapshots/one/." "$mnt/restored"
manifest "$mnt/restored" | cmp - "$work/one" || fail "what was restored differs"

say "deleted, although just looked at"
find "$mnt/.snapshots/one" -type f -exec cat {} + >/dev/null
"$FASTERFS" snapshot delete "$mnt" one || fail "cannot delete a snapshot"
if [ -e "$mnt/.snapshots/one" ]; then fail "a deleted snapshot is there"; fi
if "$FASTERFS" snapshot delete "$mnt" one 2>"$work/err"; then fail "deleted twice"; fi
[ "$(wc -l <"$work/err")" = 1 ] || fail "not one line: $(cat "$work/err")"
ls -R "$mnt/.snapshots/two" >/dev/null
rmdir "$mnt/.snapshots/two" || fail "cannot rmdir a snapshot"
[ "$("$FASTERFS" snapshot list "$mnt" --json)" = "[]" ] || fail "the list is not empty"
say "the name may be used again, and shows the new tree"
"$FASTERFS" snapshot create "$mnt" one
[ "$(cat "$mnt/.snapshots/one/a/b/file")" = three ] || fail "a new snapshot shows an old one"
"$FASTERFS" umount "$mnt"
mount_it
[ "$(cat "$mnt/.snapshots/one/a/b/file")" = three ] || fail "a new snapshot shows an old one after mounting"
"$FASTERFS" umount "$mnt"
say "passed"
