#!/bin/bash
# SPDX-License-Identifier: MIT
# The daemon is killed again and again (FASTERFS_KILLS times, 100) while writers work; after each time the
# mount is cleared and made anew, and what every writer finds is an exact prefix of its steps that is not
# shorter than what an fsync returned after. A snapshot is taken between and outlives all that follow: each time one of
# them, in turn, is read and compared with what it was.
. "$(dirname "$0")/lib.sh"

PREFIX=$(realpath "${PREFIX:?set PREFIX to the program made from prefix.c}")
kills=${FASTERFS_KILLS:-100}
RANDOM=${FASTERFS_SEED:-$$}
say "FASTERFS_SEED=${FASTERFS_SEED:-$$}, $kills kills"
mount_it() { "$FASTERFS" "$store" "$mnt" -o memory=16M || fail "cannot mount after kill $kill"; }

# Mostly short; now and then over a second, so that the daemon has committed by itself.
work_a_while() {
    local hundredths=$((RANDOM % 30 + 3))
    if [ $((RANDOM % 16)) = 0 ]; then hundredths=$((RANDOM % 100 + 100)); fi
    printf -v hundredths %03d "$hundredths"
    sleep "${hundredths:0:1}.${hundredths:1}"
}

check_snapshot() {
    manifest "$mnt/.snapshots/$1" >"$work/now"
    [ -e "$work/sum.$1" ] || cp "$work/now" "$work/sum.$1"
    cmp "$work/now" "$work/sum.$1" || fail "snapshot $1 has changed"
}

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
while [ "$kill" -lt "$kills" ]; do
    kill=$((kill + 1))
    if [ $((kill % 10)) = 0 ]; then begin_anew; fi
    writers=()
    for w in 1 2 3; do
        "$PREFIX" write "$mnt/w$w" "$work/log$w" &
        writers+=($!)
    done
    work_a_while
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
        [ -e "$work/sum.$snapshot" ] || check_snapshot "$snapshot"
    done
    if [ ${#taken[@]} -gt 0 ]; then check_snapshot "${taken[kill % ${#taken[@]}]}"; fi
    if [ ${#taken[@]} -gt 3 ]; then
        check_snapshot "${taken[0]}"
        "$FASTERFS" snapshot delete "$mnt" "${taken[0]}"
        taken=("${taken[@]:1}")
    fi
done
begin_anew
"$FASTERFS" umount "$mnt"
say "passed: $kill kills, $steps steps"
