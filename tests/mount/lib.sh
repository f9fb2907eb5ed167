# SPDX-License-Identifier: MIT
# What the mount tests share: source it. FASTERFS is the program under test.
set -euo pipefail

FASTERFS=$(realpath "${FASTERFS:?set FASTERFS to the fasterfs program}")
name=$(basename "$0" .sh)
work=$(mktemp -d "${TMPDIR:-/tmp}/fasterfs-$name.XXXXXX")
store=$work/store
mnt=$work/mnt
mkdir "$mnt"

say() { echo "== $*"; }
fail() {
    echo "FAIL: $*" >&2
    exit 1
}
skip() {
    echo "SKIPPED: $*" >&2
    exit 77
}
skip_part() { echo "SKIPPED PART: $*" >&2; }

# Process id of the daemon that serves the store $1: the one that has this directory open and locked.
daemon_of() {
    local pid exe args arg
    for pid in /proc/[0-9]*; do # no process for each: there may be thousands
        { mapfile -d '' -t args <"$pid/cmdline"; } 2>/dev/null || continue
        for arg in "${args[@]}"; do
            [ "$arg" = "$1" ] || continue
            exe=$(readlink "$pid/exe" 2>/dev/null || true)
            [ "${exe% (deleted)}" = "$FASTERFS" ] || continue # deleted: built again meanwhile
            echo "${pid#/proc/}"
            return
        done
    done
}

# Returns when the killed process $1 is gone, and its locks.
wait_gone() {
    while [ "$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null || true)" != "" ] &&
        ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; do sleep 0.02; done
}

# kill -9 of the daemon, and its dead mount cleared.
kill_daemon() {
    local pid
    pid=$(daemon_of "$1")
    [ -n "$pid" ] || fail "no daemon for $1"
    kill -9 "$pid"
    wait_gone "$pid"
    "$FASTERFS" umount "$2"
}

# Sums of every file, with names, types, modes, owners, times and link targets: one line each.
manifest() {
    (
        cd "$1"
        find . -mindepth 1 -printf '%P %y %m %U:%G %T@ %l\n' | LC_ALL=C sort
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum
    )
}

cleanup() {
    local status=$? m
    cd /
    while read -r m; do
        if [ $status -ne 0 ]; then echo "cleanup: unmounting $m" >&2; fi
        umount -l "$m" || true
    done < <(awk -v w="$work/" 'index($5, w) == 1 { print $5 }' /proc/self/mountinfo | tac)
    for _ in $(seq 500); do # the daemon may still be writing
        if [ -z "$(daemon_of "$store")" ]; then break; fi
        sleep 0.02
    done
    rm -rf --one-file-system "$work"
    exit $status
}
trap cleanup EXIT

[ -e /dev/fuse ] || skip "there is no /dev/fuse here"
: 2>/dev/null <>/dev/fuse || skip "/dev/fuse may not be opened here"
command -v fusermount3 >/dev/null || [ "$(id -u)" = 0 ] || skip "no fusermount3 and not root"
