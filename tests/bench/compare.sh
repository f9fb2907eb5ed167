#!/bin/bash
# SPDX-License-Identifier: MIT
# compare.sh [BUILD] [DISK] [fsbench options]: fsbench on fasterfs, on the ceiling (the same adapter on
# tables in memory), on bindfs and on the plain directory, one after the other on the same disk, as a
# markdown table of p50, and one of durable creates per second. BUILD defaults to build/release, DISK to $TMPDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/../../build/release}
disk=${2:-${TMPDIR:-/tmp}}
shift $(($# > 2 ? 2 : $#))
bench=$build/fsbench
work=$(mktemp -d "$disk/fasterfs-compare.XXXXXX")
ceiling=
cleanup() {
    mountpoint -q "$work/ceiling" && umount "$work/ceiling"
    mountpoint -q "$work/bindfs" && umount "$work/bindfs"
    mountpoint -q "$work/fasterfs" && "$build/fasterfs" umount "$work/fasterfs"
    if [ -n "$ceiling" ]; then wait "$ceiling" || true; fi
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
wait_mounted() {
    for _ in $(seq 200); do
        if mountpoint -q "$1"; then return; fi
        sleep 0.05
    done
    echo "compare.sh: $1 does not come up" >&2
    exit 1
}

mkdir "$work"/{plain,bind-source,bindfs,ceiling,store,fasterfs,out}
kinds=(fasterfs ceiling)
"$build/fasterfs" "$work/store" "$work/fasterfs" -o "memory=${MEMORY:-64M}${THREADS:+,threads=$THREADS}"
"$build/ceiling" "$work/ceiling" "${THREADS:-0}" &
ceiling=$!
wait_mounted "$work/ceiling"
if command -v bindfs >/dev/null; then
    bindfs "$work/bind-source" "$work/bindfs"
    kinds+=(bindfs)
else
    echo "compare.sh: bindfs is not installed, left out" >&2
fi
kinds+=(plain)

# Three runs of each, taking turns, so that what else the machine does hits all alike.
for run in 1 2 3; do
    for kind in "${kinds[@]}"; do
        "$bench" --json --seed "$run" "$@" "$work/$kind" >"$work/out/$kind.$run"
    done
done
python3 - "$work/out" "${kinds[@]}" <<'END'
import json, statistics, sys
out, kinds = sys.argv[1], sys.argv[2:]
runs = {k: [json.load(open(f"{out}/{k}.{r}"))["ops"] for r in (1, 2, 3)] for k in kinds}
median = lambda k, op, what: statistics.median(r[op][what] for r in runs[k])
p50 = lambda k, op: median(k, op, "p50_us")
print("| p50, us | " + " | ".join(kinds) + " | ceiling / fasterfs |")
print("|---" * (len(kinds) + 2) + "|")
for op in runs[kinds[0]][0]:
    row = [f"{p50(k, op):.1f}" for k in kinds]
    print(f"| {op} | " + " | ".join(row) + f" | {p50('ceiling', op) / p50('fasterfs', op):.2f} |")
print("\n| per second | " + " | ".join(kinds) + " | fasterfs / plain (of single runs) |")
print("|---" * (len(kinds) + 2) + "|")
for op in (op for op in runs["plain"][0] if op.startswith("fsync by ")):
    row = [f"{median(k, op, 'per_s'):.0f}" for k in kinds]
    ratios = " ".join(f"{f[op]['per_s'] / p[op]['per_s']:.2f}" for f, p in zip(runs["fasterfs"], runs["plain"]))
    print(f"| {op} | " + " | ".join(row) + f" | {ratios} |")
END
