#!/bin/sh
# SPDX-License-Identifier: MIT
# installed.sh BUILD COMPILER PROGRAM.c: installs the library from BUILD to a new directory, compiles the program
# with what pkg-config says, and runs it.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cmake --install "$1" --prefix "$dir/usr" --component library >/dev/null
export PKG_CONFIG_PATH="$dir/usr/lib/pkgconfig"
# shellcheck disable=SC2046
"$2" -std=gnu17 -o "$dir/program" "$3" ${FASTERFS_SANITIZE:+-fsanitize=$FASTERFS_SANITIZE} \
    $(pkg-config --static --cflags --libs fasterstore)
"$dir/program" "$dir/store"
