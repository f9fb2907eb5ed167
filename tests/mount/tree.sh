#!/bin/bash
# SPDX-License-Identifier: MIT
# A real tree survives: copied, mounted again, changed, and the daemon killed after `fasterfs sync`.
# MEMORY_MIB (32) is the budget; the daemon may use 24 MiB beyond it.
. "$(dirname "$0")/lib.sh"

budget=${MEMORY_MIB:-32}
files_max=${FILES_MAX:-20000}
bytes_max=$((${MIB_MAX:-300} << 20))
source=$work/source
mount_it() { "$FASTERFS" mount "$store" "$mnt" -o "memory=${budget}M"; }

say "a tree of at most $files_max files and $((bytes_max >> 20)) MiB out of /usr/include, /usr/share, /usr/lib"
mkdir "$source"
(cd / && find usr/include usr/share usr/lib -xdev \( -type f -o -type l \) -size -20000k -printf '%s %p\0' 2>/dev/null) |
    awk -v RS='\0' -v n="$files_max" -v b="$bytes_max" \
        '{ size = $1; sub(/^[0-9]+ /, ""); sum += size; if (NR <= n && sum <= b) printf "%s%c", $0, 0 }' |
    tar -C / --null -T - -cf - | tar -C "$source" -xpf -
mkdir -p "$source"/own/{empty,deep/er}
truncate -s 5G "$source/own/sparse-head"
truncate -s 3M "$source/own/sparse-head"
ln -s ../deep "$source/own/link"
ln "$source/own/sparse-head" "$source/own/hard"
mkfifo "$source/own/fifo"
chmod 4751 "$source/own/hard"
touch -d '1969-12-31 12:34:56.123456789 UTC' "$source/own/empty"
: >"$source/own/$(printf 'n%.0s' $(seq 255))"
echo "$(find "$source" | wc -l) names, $(du -sm --apparent-size "$source" | cut -f1) MiB"

say "cp -a"
mount_it
time cp -a "$source" "$mnt/tree"
same() {
    diff -r --no-dereference -x fifo "$source" "$mnt/tree" >"$work/diff" || {
        head "$work/diff" >&2
        fail "$1: trees differ"
    }
    manifest "$source" >"$work/want"
    manifest "$mnt/tree" >"$work/have"
    cmp "$work/want" "$work/have" || {
        diff "$work/want" "$work/have" >"$work/diff" || head "$work/diff" >&2
        fail "$1: sums, modes or times differ"
    }
    [ "$(stat -c %h "$mnt/tree/own/hard")" = 2 ] || fail "$1: a hard link is lost"
}
time same "after cp"

peak=$(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$(daemon_of "$store")/status")
echo "daemon: $peak MiB at most, budget $budget MiB"

say "umount, mount"
"$FASTERFS" umount "$mnt"
mount_it
same "after mounting again"

say "change half, sync, kill -9, mount"
python3 - "$source" "$mnt/tree" <<'EOF'
import os, sys
source = os.fsencode(sys.argv[1])
files = sorted(os.path.relpath(os.path.join(d, f), source) for d, _, names in os.walk(os.path.join(source, b"usr"))
               for f in names if not os.path.islink(os.path.join(d, f)))
for i, file in enumerate(files):
    for tree in sys.argv[1:]:
        path = os.path.join(os.fsencode(tree), file)
        if i % 8 < 2:
            os.unlink(path)
        elif i % 8 == 2:
            os.rename(path, path + b".moved")
        elif i % 8 == 3:
            with open(path, "ab") as f:
                f.write(b"more\n")
EOF
for t in "$source" "$mnt/tree"; do # the two were not changed in the same nanosecond
    (cd "$t" && find . -depth -print0 | xargs -0 touch -h -d '2020-02-02 UTC')
done
"$FASTERFS" sync "$mnt"
for n in 1 2 3; do echo "not promised $n" >"$mnt/after-the-sync-$n"; done
peak2=$(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$(daemon_of "$store")/status")
kill_daemon "$store" "$mnt"
mount_it
same "after kill -9"

peak3=$(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$(daemon_of "$store")/status")
echo "daemon: $peak, $peak2 and $peak3 MiB at most, budget $budget MiB"
say "rm -rf, and the store is empty"
rm -rf "$mnt/tree"
rm -f "$mnt"/after-the-sync-*
[ -z "$(ls -A "$mnt")" ] || fail "something is left: $(ls -A "$mnt")"
"$FASTERFS" umount "$mnt"

if ! grep -qa __asan_init "$FASTERFS" && ! grep -qa __tsan_init "$FASTERFS"; then
    for p in "$peak" "$peak2" "$peak3"; do
        [ "$p" -le $((budget + 24)) ] || fail "the daemon used $p MiB of memory, more than $budget + 24"
    done
fi
say "passed"
