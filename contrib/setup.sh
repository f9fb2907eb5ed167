# SPDX-License-Identifier: MIT
# Shared by run.sh and test.sh: source it. Where the sources are, what a build needs, and building.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "needs root, and there is no sudo: $*" >&2
        return 1
    fi
}

# Debian and Ubuntu packages. Installs only what is missing; without apt-get says what is needed.
install_packages() {
    local packages=(gcc cmake ninja-build pkg-config libc6-dev libfuse3-dev fuse3 liburing-dev libxxhash-dev check "$@")
    local missing=() package
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "This is not Debian or Ubuntu: please see to it that the equivalents of these are installed:" >&2
        echo "  ${packages[*]}" >&2
        return
    fi
    for package in "${packages[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        echo "Installing: ${missing[*]}"
        if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${missing[@]}"; then
            as_root apt-get update -q
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${missing[@]}"
        fi
    fi
}

# build NAME [CMAKE-OPTION...]: configures and builds build/NAME.
build() {
    local dir=$top/build/$1 generator=()
    shift
    if [ ! -e "$dir/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
    cmake -S "$top" -B "$dir" "${generator[@]}" "$@"
    cmake --build "$dir" --parallel "$(nproc)"
}
