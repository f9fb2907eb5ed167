#!/bin/bash
# SPDX-License-Identifier: MIT
# test.sh [release|asan|tsan|fuzz|long]...: installs what is missing, builds with warnings as errors, and tests.
#   release   everything
#   asan      all but what takes long (other programs on a mount, kill -9, full disks), under AddressSanitizer and
#             UndefinedBehaviorSanitizer (build/asan)
#   tsan      device, store and fs (but for the check, which has one thread), and the adapter, under ThreadSanitizer (build/tsan)
#   fuzz      each target of tests/fuzz for FUZZ_SECONDS (60), by libFuzzer under the first two sanitizers (build/fuzz,
#             which keeps what it found)
#   long      for a night: a million crash states, every failing call and allocation, every bit of metadata, 1,000
#             kills, an hour of fuzzing
# Default: the first three, one after the other. CTEST_ARGS is passed on to ctest.
. "$(dirname "$0")/setup.sh"

case ${1:-} in -h | --help)
    sed -n '3,12s/^# //p' "$0"
    exit 0
    ;;
esac
for kind in "$@"; do
    case $kind in
    release | asan | tsan | fuzz | long) ;;
    *)
        echo "test.sh: \`$kind\` is none of release, asan, tsan, fuzz, long" >&2
        exit 2
        ;;
    esac
done
install_packages git make sqlite3 rsync python3 acl attr
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

failed=()
run() {
    local kind=$1
    shift
    echo "==== $kind"
    # shellcheck disable=SC2086
    if ! (cd "$top/build/$kind" && ctest --output-on-failure --parallel "$(nproc)" "$@" ${CTEST_ARGS:-}); then
        failed+=("$kind")
    fi
}
build_release() { build release -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFASTERFS_WERROR=ON; }

# fuzz SECONDS: each target for so long. What ends one is kept in build/fuzz/found/NAME: replay it with that target.
fuzz() {
    local target name
    install_packages clang libclang-rt-14-dev
    build fuzz -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER=clang -DCMAKE_C_FLAGS=-fsanitize=fuzzer-no-link \
        -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DFASTERFS_SANITIZE=address,undefined -DFASTERFS_FUZZ=ON
    for target in "$top"/tests/fuzz/fuzz_*.c; do
        name=$(basename "$target" .c)
        name=${name#fuzz_}
        mkdir -p "$top/build/fuzz/corpus/$name" "$top/build/fuzz/found/$name"
        echo "==== fuzz $name, $1 s"
        ASAN_OPTIONS=$ASAN_OPTIONS:allocator_may_return_null=1 "$top/build/fuzz/tests/fuzz/fuzz_$name" \
            -max_total_time="$1" -timeout=60 -rss_limit_mb=2500 -max_len=4096 -print_final_stats=1 \
            -artifact_prefix="$top/build/fuzz/found/$name/" "$top/build/fuzz/corpus/$name" \
            "$top/tests/fuzz/corpus/$name" || failed+=("fuzz $name")
    done
}

# longer NAME=VALUE... PROGRAM: one test, with more of it. Its seed is what it prints.
longer() {
    echo "==== $*"
    env "$@" || failed+=("$*")
}

for kind in "${@:-release asan tsan}"; do
    for one in $kind; do
        case $one in
        release)
            build_release
            run release
            ;;
        asan)
            build asan -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DFASTERFS_WERROR=ON \
                -DFASTERFS_SANITIZE=address,undefined
            FILES_MAX=4000 MIB_MAX=60 run asan -E '^mount/(programs|kill|postgres|full)$'
            ;;
        tsan)
            build tsan -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DFASTERFS_WERROR=ON \
                -DFASTERFS_SANITIZE=thread
            run tsan -R '^(device|store|fs)/|^mount/adapter$' -E '^fs/check'
            ;;
        fuzz) fuzz "${FUZZ_SECONDS:-60}" ;;
        long)
            build_release
            tests=$top/build/release/tests
            longer FASTERFS_STATES=600000 "$tests/test_crash_store_states"
            longer FASTERFS_STATES=400000 "$tests/test_crash_fs_states"
            longer FASTERFS_ROUNDS=30000 "$tests/test_store_linear"
            longer FASTERFS_STEP=1 "$tests/test_crash_faults"
            longer FASTERFS_STEP=1 "$tests/test_crash_fs_faults"
            longer FASTERFS_FLIPS=100000 "$tests/test_crash_flips"
            longer FASTERFS_KILLS=1000 FASTERFS="$top/build/release/fasterfs" PREFIX="$tests/mount/mount_prefix" \
                "$top/tests/mount/kill.sh"
            fuzz "${FUZZ_SECONDS:-720}"
            ;;
        esac
    done
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}" >&2
    exit 1
fi
echo "all passed"
