#!/bin/bash
# SPDX-License-Identifier: MIT
# test.sh [release|asan|tsan]...: installs what is missing, builds with warnings as errors, and tests.
#   release   everything
#   asan      all but what takes long (other programs on a mount, kill -9), under AddressSanitizer and
#             UndefinedBehaviorSanitizer (build/asan)
#   tsan      device, store and fs, and the adapter, under ThreadSanitizer (build/tsan)
# Default: all three, one after the other. CTEST_ARGS is passed on to ctest.
. "$(dirname "$0")/setup.sh"

case ${1:-} in -h | --help)
    sed -n '3,8s/^# //p' "$0"
    exit 0
    ;;
esac
for kind in "$@"; do
    case $kind in
    release | asan | tsan) ;;
    *)
        echo "test.sh: \`$kind\` is none of release, asan, tsan" >&2
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
for kind in "${@:-release asan tsan}"; do
    for one in $kind; do
        case $one in
        release)
            build release -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFASTERFS_WERROR=ON
            run release
            ;;
        asan)
            build asan -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DFASTERFS_WERROR=ON \
                -DFASTERFS_SANITIZE=address,undefined
            FILES_MAX=4000 MIB_MAX=60 run asan -E '^mount/(programs|kill|postgres)$'
            ;;
        tsan)
            build tsan -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DFASTERFS_WERROR=ON \
                -DFASTERFS_SANITIZE=thread
            run tsan -R '^(device|store|fs)/|^mount/adapter$'
            ;;
        esac
    done
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}" >&2
    exit 1
fi
echo "all passed"
