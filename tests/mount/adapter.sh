#!/bin/bash
# SPDX-License-Identifier: MIT
# The adapter by itself, on tables in memory (tests/bench/ceiling): POSIX rules that it and the kernel
# keep between them, and threads that end. The ceiling aborts when references do not add up.
. "$(dirname "$0")/lib.sh"

CEILING=$(realpath "${CEILING:?set CEILING to the ceiling program}")
"$CEILING" "$mnt" 2 allow_other,dev,suid 2>"$work/log" &
pid=$!
for _ in $(seq 200); do
    if mountpoint -q "$mnt"; then break; fi
    sleep 0.05
done
mountpoint -q "$mnt" || fail "does not come up: $(cat "$work/log")"
cd "$mnt"

say "O_TRUNC, O_APPEND, O_EXCL, modes that forbid what creates"
echo first-long-content >f
echo x >f
[ "$(cat f)" = x ] || fail "O_TRUNC does not truncate"
echo y >>f
[ "$(cat f)" = "$(printf 'x\ny')" ] || fail "O_APPEND does not append"
if (set -C && echo z >f) 2>/dev/null; then fail "O_EXCL opened a file that is there"; fi
(umask 277 && echo z >readonly)
[ "$(stat -c %a readonly)" = 400 ] || fail "umask: $(stat -c %a readonly)"
say "setuid goes at a write by a user, and at chown"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    echo a >s
    chmod 6777 s
    chmod 755 "$work"
    setpriv --reuid=nobody --regid=nogroup --clear-groups bash -c 'echo b >>s'
    [ "$(stat -c %a s)" = 777 ] || fail "after a write: $(stat -c %a s)"
    chmod 6755 s
    chown nobody s
    [ "$(stat -c %a s)" = 755 ] || fail "after chown: $(stat -c %a s)"
    setpriv --reuid=nobody --regid=nogroup --clear-groups test ! -r readonly || fail "permissions are not checked"
    mkdir -m 2777 setgid
    chgrp nogroup setgid
    chmod g+s setgid
    touch setgid/x
    [ "$(stat -c %G setgid/x)" = nogroup ] || fail "setgid directory: $(stat -c %G setgid/x)"
else
    skip_part "not root"
fi
say "names of 255 bytes, and no more"
long=$(printf 'n%.0s' $(seq 255))
touch "$long"
if touch "${long}n" 2>/dev/null; then fail "256 bytes are too many"; fi
say "unlinked and open"
exec 5<>g
echo kept >&5
rm g
[ "$(cat /proc/self/fd/5)" = kept ] || fail "an open file went with its name"
exec 5<&-
say "a file and its size, seen through two names and a mapping"
ln f h
echo more >>h
[ "$(tail -1 f)" = more ] || fail "a hard link is another file"
[ "$(stat -c %h f)" = 2 ] || fail "links: $(stat -c %h f)"
say "a directory of 20,000 is listed whole while it changes"
mkdir big
(cd big && seq 20000 | xargs touch)
(cd big && for i in $(seq 20001 20200); do touch "$i"; rm "$i"; done) &
[ "$(find big -type f | awk -F/ '$2 <= 20000' | sort -u | wc -l)" = 20000 ] || fail "names are missing"
wait $!
[ "$(ls big | wc -l)" = 20000 ] || fail "names are missing"
rm -rf big
say "eight at once"
for j in 1 2 3 4 5 6 7 8; do
    (
        mkdir "w$j"
        for i in $(seq 200); do
            echo "$i" >"w$j/$i"
            mv "w$j/$i" "w$j/m$i"
        done
        [ "$(cat "w$j"/m* | wc -l)" = 200 ]
        sync "w$j"
        rm -rf "w$j"
    ) &
    jobs[j]=$!
done
for j in 1 2 3 4 5 6 7 8; do wait "${jobs[j]}" || fail "worker $j"; done
say "the kernel gives back what it has, and ends"
echo 2 >/proc/sys/vm/drop_caches 2>/dev/null || skip_part "cannot drop caches"
[ "$(cat h | wc -l)" = 3 ] || fail "content is gone"
cd /
umount "$mnt"
wait $pid || fail "status $?: $(cat "$work/log")"
[ ! -s "$work/log" ] || fail "said: $(cat "$work/log")"
say "passed"
