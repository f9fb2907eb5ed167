#!/bin/bash
# SPDX-License-Identifier: MIT
# bulk.sh [BUILD] [DISK]: what people wait for: 20,000 files of 4 KiB in 100 directories, a source tree, and one large
# file, on fasterfs, on bindfs and on the plain directory, taking turns on the same disk, as a markdown table of medians in
# milliseconds. BUILD defaults to build/release, DISK to $TMPDIR. MEMORY=256M, FILES=20000, LARGE=1024 (MiB),
# TREE=/usr/include, ROUNDS=3. Root: `cold` then means that the kernel has dropped its caches.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(realpath "${1:-$here/../../build/release}")
disk=${2:-${TMPDIR:-/tmp}}
files=${FILES:-20000} large=${LARGE:-1024} tree=${TREE:-/usr/include}
work=$(mktemp -d "$disk/fasterfs-bulk.XXXXXX")
cleanup() {
    mountpoint -q "$work/bindfs" && umount "$work/bindfs"
    mountpoint -q "$work/fasterfs" && "$build/fasterfs" umount "$work/fasterfs"
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT

mkdir "$work"/{plain,bind-source,bindfs,fasterfs,small}
kinds=(fasterfs)
if command -v bindfs >/dev/null; then kinds+=(bindfs); else echo "bulk.sh: bindfs is not installed, left out" >&2; fi
kinds+=(plain)
[ "$(id -u)" = 0 ] || echo "bulk.sh: not root: the kernel keeps what it has cached" >&2

up() {
    case $1 in
    fasterfs) "$build/fasterfs" "$work/store" "$work/fasterfs" -o "memory=${MEMORY:-256M}" ;;
    bindfs) bindfs "$work/bind-source" "$work/bindfs" ;;
    esac
}
down() {
    case $1 in
    fasterfs) "$build/fasterfs" umount "$work/fasterfs" ;;
    bindfs) umount "$work/bindfs" ;;
    esac
}
# What follows finds nothing in memory.
cold() {
    down "$1"
    sync -f "$work"
    if [ "$(id -u)" = 0 ]; then echo 3 >/proc/sys/vm/drop_caches; fi
    up "$1"
}
durable() { if [ "$1" = fasterfs ]; then "$build/fasterfs" sync "$2"; else sync -f "$work"; fi; } # FUSE passes no sync on
# timed KIND NAME COMMAND...
timed() {
    local kind=$1 name=$2 from
    shift 2
    from=$(date +%s%N)
    "$@" >/dev/null
    echo "$kind $(($(date +%s%N) - from)) $name" >>"$work/times"
}
read_all() { tar -C "$1" -cf - . | cat; }
stat_all() { find "$1" -printf '%s %T@ %p\n'; }

python3 - "$work/small" "$files" <<'END'
import os, sys
for i in range(int(sys.argv[2])):
    directory = f"{sys.argv[1]}/{i % 100}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/file-{i}", "wb") as f:
        f.write(os.urandom(4096))
END
tar -C "$work/small" -cf "$work/small.tar" .
tar -C "$tree" -cf "$work/tree.tar" .
rm -rf "$work/small"

for kind in "${kinds[@]}"; do up "$kind"; done
for round in $(seq "${ROUNDS:-3}"); do
    for kind in "${kinds[@]}"; do
        at=$work/$kind/$round
        mkdir -p "$at"/{small,tree}
        timed "$kind" "$files files: untar" tar -C "$at/small" -xf "$work/small.tar"
        timed "$kind" "made durable" durable "$kind" "$at"
        timed "$kind" "found and stat'ed" stat_all "$at/small"
        cold "$kind"
        timed "$kind" "found and stat'ed, cold" stat_all "$at/small"
        cold "$kind"
        timed "$kind" "read, cold" read_all "$at/small"
        timed "$kind" "removed" rm -rf "$at/small"
        timed "$kind" "$tree: untar" tar -C "$at/tree" -xf "$work/tree.tar"
        cold "$kind"
        timed "$kind" "read, cold, of that" read_all "$at/tree"
        timed "$kind" "removed, of that" rm -rf "$at/tree"
        timed "$kind" "$large MiB: written" dd if=/dev/zero of="$at/large" bs=1M count="$large" status=none
        timed "$kind" "and synced" durable "$kind" "$at"
        cold "$kind"
        timed "$kind" "read, cold, in one file" dd if="$at/large" of=/dev/null bs=1M status=none
        rm -rf "$at"
    done
done
python3 - "$work/times" "${kinds[@]}" <<'END'
import statistics, sys
times = {}
for line in open(sys.argv[1]):
    kind, ns, name = line.rstrip("\n").split(" ", 2)
    times.setdefault(name, {}).setdefault(kind, []).append(int(ns) / 1e6)
kinds = sys.argv[2:]
print("| ms | " + " | ".join(kinds) + " | plain / fasterfs |")
print("|---" * (len(kinds) + 2) + "|")
for name, of in times.items():
    median = {k: statistics.median(of[k]) for k in kinds}
    print(f"| {name} | " + " | ".join(f"{median[k]:.0f}" for k in kinds) + f" | {median['plain'] / median['fasterfs']:.2f} |")
END
