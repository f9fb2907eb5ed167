#!/bin/bash
# SPDX-License-Identifier: MIT
# The daemon is killed again and again (FASTERFS_KILLS times) while writers work; after each time the
# mount is cleared and made anew, and what every writer finds is an exact prefix of its steps that is not
# shorter than what an fsync returned after. A snapshot is taken between and outlives all that follow.
. "$(dirname "$0")/lib.sh"

PREFIX=$(realpath "${PREFIX:?set PREFIX to the program made from prefix.c}")
kills=${FASTERFS_KILLS:-20}
RANDOM=${FASTERFS_SEED:-$$}
say "FASTERFS_SEED=${FASTERFS_SEED:-$$}, $kills kills"
mount_it() { "$FASTERFS" "$store" "$mnt" -o memory=16M || fail "cannot mount after kill $kill"; }

kill=0
mount_it
mkdir "$mnt"/w{1,2,3}
"$FASTERFS" sync "$mnt"
for kill in $(seq "$kills"); do
    writers=()
    for w in 1 2 3; do
        "$PREFIX" write "$mnt/w$w" "$work/log$w" &
        writers+=($!)
    done
    sleep "0.$((RANDOM % 8 + 1))"
    if [ $((kill % 5)) = 2 ]; then "$FASTERFS" snapshot create "$mnt" "k$kill"; fi
    pid=$(daemon_of "$store")
    [ -n "$pid" ] || fail "no daemon before kill $kill"
    kill -9 "$pid"
    for writer in "${writers[@]}"; do wait "$writer" || fail "a writer met an error that is not that of a dead daemon"; done
    wait_gone "$pid"
    "$FASTERFS" umount "$mnt" || fail "the dead mount cannot be cleared"
    mount_it
    for w in 1 2 3; do "$PREFIX" check "$mnt/w$w" "$work/log$w" || fail "writer $w after kill $kill"; done
    for snapshot in "$mnt"/.snapshots/*/; do
        [ -e "$snapshot" ] || continue
        if [ -e "$work/sum.$(basename "$snapshot")" ]; then
            manifest "$snapshot" | cmp - "$work/sum.$(basename "$snapshot")" || fail "snapshot $snapshot has changed"
        else
            manifest "$snapshot" >"$work/sum.$(basename "$snapshot")"
        fi
    done
done
for taken in $(seq 2 5 "$kills"); do
    [ -e "$work/sum.k$taken" ] || fail "snapshot k$taken was promised and is gone"
done
for w in 1 2 3; do echo "writer $w: $(od -An -t u8 -N 8 "$work/log$w" | tr -d ' ') steps"; done
"$FASTERFS" umount "$mnt"
say "passed"
