#!/bin/bash
# SPDX-License-Identifier: MIT
# run.sh [STORE MOUNTPOINT]: installs what is missing, builds, and mounts a store to try.
# Defaults: ~/fasterfs/store on ~/fasterfs/mnt.
. "$(dirname "$0")/setup.sh"

case ${1:-} in -h | --help)
    sed -n '3,4s/^# //p' "$0"
    exit 0
    ;;
esac
if [ $# != 0 ] && [ $# != 2 ]; then
    echo "usage: run.sh [STORE MOUNTPOINT]" >&2
    exit 2
fi
store=${1:-$HOME/fasterfs/store}
mountpoint=${2:-$HOME/fasterfs/mnt}
install_packages
build release -DCMAKE_BUILD_TYPE=RelWithDebInfo
fasterfs=$top/build/release/fasterfs

mkdir -p "$(dirname "$store")" "$mountpoint"
"$fasterfs" mount "$store" "$mountpoint"
cat <<END

Mounted: $mountpoint (the store is $store). Try:

  cp -a /usr/include $mountpoint/           any program works in it
  $fasterfs snapshot create $mountpoint first
  rm -rf $mountpoint/include
  cp -a $mountpoint/.snapshots/first/include $mountpoint/
  $fasterfs sync $mountpoint                make it durable
  $fasterfs umount $mountpoint              end; $fasterfs $store $mountpoint mounts again
  $fasterfs --help
END
