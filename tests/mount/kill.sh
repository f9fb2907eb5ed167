#!/bin/bash
# SPDX-License-Identifier: MIT
# The daemon is killed again and again (FASTERFS_KILLS times, or for a minute) while writers work; after each time the
# mount is cleared and made anew, and what every writer finds is an exact prefix of its steps that is not
# shorter than what an fsync returned after. A snapshot is taken between and outlives all that follow.
. "$(dirname "$0")/lib.sh"

PREFIX=$(realpath "${PREFIX:?set PREFIX to the program made from prefix.c}")
kills=${FASTERFS_KILLS:-} # empty: as many as there is time for in a minute
RANDOM=${FASTERFS_SEED:-$$}
say "FASTERFS_SEED=${FASTERFS_SEED:-$$}, ${kills:-a minute of} kills"
enough() { if [ -n "$kills" ]; then [ "$kill" -ge "$kills" ]; else [ "$SECONDS" -ge 60 ]; fi; }
mount_it() { "$FASTERFS" "$store" "$mnt" -o memory=16M || fail "cannot mount after kill $kill"; }

# The writers begin at nothing, so that a check does not take longer and longer.
begin_anew() {
    for w in 1 2 3; do
        if [ -e "$work/log$w" ]; then steps=$((steps + $(od -An -t u8 -N 8 "$work/log$w"))); fi
    done
    rm -rf "$mnt"/w{1,2,3} "$work"/log{1,2,3}
    mkdir "$mnt"/w{1,2,3}
    "$FASTERFS" sync "$mnt"
}

kill=0 steps=0 taken=()
mount_it
begin_anew
while ! enough; do
    kill=$((kill + 1))
    if [ $((kill % 10)) = 0 ]; then begin_anew; fi
    writers=()
    for w in 1 2 3; do
        "$PREFIX" write "$mnt/w$w" "$work/log$w" &
        writers+=($!)
    done
    sleep "0.$((RANDOM % 8 + 1))"
    if [ $((kill % 5)) = 2 ]; then
        "$FASTERFS" snapshot create "$mnt" "k$kill"
        taken+=("k$kill")
    fi
    pid=$(daemon_of "$store")
    [ -n "$pid" ] || fail "no daemon before kill $kill"
    kill -9 "$pid"
    for writer in "${writers[@]}"; do wait "$writer" || fail "a writer met an error that is not that of a dead daemon"; done
    wait_gone "$pid"
    "$FASTERFS" umount "$mnt" || fail "the dead mount cannot be cleared"
    mount_it
    for w in 1 2 3; do "$PREFIX" check "$mnt/w$w" "$work/log$w" || fail "writer $w after kill $kill"; done
    for snapshot in "${taken[@]}"; do
        [ -d "$mnt/.snapshots/$snapshot" ] || fail "snapshot $snapshot was promised and is gone"
        manifest "$mnt/.snapshots/$snapshot" >"$work/now"
        [ -e "$work/sum.$snapshot" ] || cp "$work/now" "$work/sum.$snapshot"
        cmp "$work/now" "$work/sum.$snapshot" || fail "snapshot $snapshot has changed"
    done
    if [ ${#taken[@]} -gt 3 ]; then
        "$FASTERFS" snapshot delete "$mnt" "${taken[0]}"
        taken=("${taken[@]:1}")
    fi
done
begin_anew
"$FASTERFS" umount "$mnt"
say "passed: $kill kills, $steps steps"
