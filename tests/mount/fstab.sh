#!/bin/bash
# SPDX-License-Identifier: MIT
# mount(8), umount(8) and a line of fstab, as after an installation: in a mount namespace with the program in /usr/local/bin.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "mount(8) by fstab needs root"
[ -x /sbin/mount.fuse3 ] || skip "there is no mount.fuse3, of the package fuse3"
[ ! -e /sbin/mount.fuse.fasterfs ] || skip "there is a /sbin/mount.fuse.fasterfs: it would be run instead of this program"
unshare -m true 2>/dev/null || skip "no mount namespace can be made here"

mkdir "$work/bin"
cp "$FASTERFS" "$work/bin/fasterfs"
export FASTERFS=$work/bin/fasterfs
echo "$store $mnt fuse.fasterfs memory=16M,nosuid,noatime,nofail,_netdev,x-systemd.automount,comment=ours 0 0" >"$work/fstab"

unshare -m bash -euo pipefail -s "$work" "$store" "$mnt" <<'EOS'
work=$1 store=$2 mnt=$3
fail() { echo "FAIL: $*" >&2; exit 1; }
trap 'cd /; umount -l "$mnt" 2>/dev/null || true' EXIT
mount --bind "$work/bin" /usr/local/bin
options() { awk -v m="$mnt" '$2 == m && $3 == "fuse.fasterfs" { print "," $4 "," }' /proc/mounts; }

echo "== a line of fstab"
mount -T "$work/fstab" "$mnt" >"$work/said" 2>&1 || fail "mount: $(cat "$work/said")"
[ ! -s "$work/said" ] || fail "not silent: $(cat "$work/said")"
[ "$(findmnt -no SOURCE "$mnt")" = "$store" ] || fail "findmnt shows $(findmnt "$mnt")"
for word in rw nosuid noatime; do [[ $(options) = *,$word,* ]] || fail "no $word in $(options)"; done
echo kept >"$mnt/f"

echo "== a mount right after umount waits for the daemon of before"
for _ in $(seq 10); do
    umount "$mnt"
    mount -T "$work/fstab" "$mnt" || fail "the store was not given free"
done
[ "$(cat "$mnt/f")" = kept ] || fail "contents differ"

echo "== remount"
mount -o remount,ro "$mnt"
if touch "$mnt/g" 2>/dev/null; then fail "written to after remount,ro"; fi
mount -o remount,rw "$mnt"
touch "$mnt/g"
umount "$mnt"

echo "== mount -t, read-only; and the way of writing of old"
mount -t fuse.fasterfs "$store" "$mnt" -o ro,nodev
[[ $(options) = *,ro,*nodev,* ]] || fail "not ro,nodev: $(options)"
[ "$(cat "$mnt/f")" = kept ] || fail "contents differ"
umount "$mnt"
mount -t fuse "fasterfs#$store" "$mnt"
[ "$(cat "$mnt/f")" = kept ] || fail "contents differ"
fasterfs umount "$mnt"
[ -z "$(options)" ] || fail "still mounted"
EOS
say "passed"
