#!/bin/bash
# SPDX-License-Identifier: MIT
# POSIX through a mount: the cases of tests/posix, and what needs mount options or more than one mount.
. "$(dirname "$0")/lib.sh"

POSIX=$(realpath "${POSIX:?set POSIX to the posix program}")
HANDLE=$(realpath "${POSIX_HANDLE:?set POSIX_HANDLE to the posix_handle program}")
root=$([ "$(id -u)" = 0 ] && echo 1 || true)
chmod 755 "$work"
mount_it() { "$FASTERFS" "$store" "$mnt" -o "memory=32M${root:+,allow_other,suid,dev}${1:+,$1}"; }
has_python() { command -v python3 >/dev/null || { skip_part "python3 is not installed"; return 1; }; }

say "the cases of tests/posix"
mount_it
mkdir "$mnt/cases"
"$POSIX" "$mnt/cases" || fail "a case failed"
say "rm -rf of what they leave"
rm -rf "$mnt/cases"

if has_python; then
    say "extended attributes, snapshots of them, and after umount and mount"
    echo x >"$mnt/f"
    python3 - "$mnt" <<'PY'
import os, sys
m = sys.argv[1]
os.setxattr(m + "/f", "user.old", b"1")
os.setxattr(m + "/f", "user.big", b"b" * 60000)
os.mkdir(m + "/.snapshots/one")
os.setxattr(m + "/f", "user.old", b"2")
os.removexattr(m + "/f", "user.big")
PY
    "$FASTERFS" umount "$mnt"
    mount_it
    python3 - "$mnt" <<'PY'
import os, sys
m, s = sys.argv[1], sys.argv[1] + "/.snapshots/one"
assert os.listxattr(m + "/f") == ["user.old"], os.listxattr(m + "/f")
assert os.getxattr(m + "/f", "user.old") == b"2"
assert sorted(os.listxattr(s + "/f")) == ["user.big", "user.old"]
assert os.getxattr(s + "/f", "user.old") == b"1"
assert os.getxattr(s + "/f", "user.big") == b"b" * 60000
try:
    os.setxattr(s + "/f", "user.old", b"3")
    raise SystemExit("an attribute in a snapshot was changed")
except OSError as e:
    assert e.errno == 30, e
PY
fi

if [ "$root" ]; then
    say "a handle opens its file after umount and mount; ESTALE when it is gone"
    mkdir "$mnt/d"
    echo found >"$mnt/d/h"
    "$HANDLE" save "$mnt/d/h" "$work/handle"
    mv "$mnt/d/h" "$mnt/elsewhere"
    "$FASTERFS" umount "$mnt"
    mount_it
    [ "$("$HANDLE" cat "$mnt" "$work/handle")" = found ] || fail "the handle leads elsewhere"
    rm "$mnt/elsewhere"
    if "$HANDLE" cat "$mnt" "$work/handle" 2>"$work/err"; then fail "a handle opened what is gone"; fi
    grep -q Stale "$work/err" || fail "not ESTALE: $(cat "$work/err")"
    say "overlayfs with the mount as the upper side: whiteouts, copies, attributes"
    mkdir "$mnt/upper" "$mnt/scratch" "$work/lower" "$work/merged"
    echo below >"$work/lower/gone"
    echo below >"$work/lower/moved"
    if mount -t overlay overlay -o "lowerdir=$work/lower,upperdir=$mnt/upper,workdir=$mnt/scratch" "$work/merged"; then
        rm "$work/merged/gone"
        mkdir "$work/merged/dir"
        mv "$work/merged/moved" "$work/merged/dir/here"
        echo above >>"$work/merged/dir/here"
        [ "$(ls "$work/merged")" = dir ] || fail "overlayfs shows $(ls "$work/merged")"
        [ "$(cat "$work/merged/dir/here")" = "$(printf 'below\nabove')" ] || fail "overlayfs: what was copied up differs"
        [ "$(stat -c %F%t%T "$mnt/upper/gone")" = "character special file00" ] || fail "no whiteout"
        umount "$work/merged"
    else
        skip_part "overlayfs is not to be had here"
    fi
else
    skip_part "not root: handles, overlayfs"
fi
"$FASTERFS" umount "$mnt"

say "-o noatime, relatime and strictatime"
for how in noatime relatime strictatime; do
    mount_it "$how"
    echo x >"$mnt/a"
    touch -a -d 2001-01-01 "$mnt/a"
    "$FASTERFS" umount "$mnt"
    mount_it "$how"
    cat "$mnt/a" >/dev/null
    first=$(stat -c %X "$mnt/a")
    case $how in
    noatime) [ "$first" = "$(date -d 2001-01-01 +%s)" ] || fail "noatime: atime moved" ;;
    *) [ "$first" -gt 1700000000 ] || fail "$how: atime is $first" ;;
    esac
    "$FASTERFS" umount "$mnt"
done

if has_python; then
    say "-o noxattr"
    mount_it noxattr
    python3 - "$mnt" <<'PY'
import errno, os, sys
f = sys.argv[1] + "/f"
for call in (lambda: os.setxattr(f, "user.a", b"1"), lambda: os.getxattr(f, "user.old"), lambda: os.listxattr(f)):
    try:
        call()
        raise SystemExit("noxattr has them")
    except OSError as e:
        assert e.errno == errno.EOPNOTSUPP, e
PY
    "$FASTERFS" umount "$mnt"
fi

say "-o size=: df says it, ENOSPC keeps it"
mkdir "$work/small"
"$FASTERFS" "$work/small" "$mnt" -o memory=16M,size=64M
[ "$(df --output=size -B1M "$mnt" | tail -1 | tr -d ' ')" = 64 ] || fail "df: $(df -B1M "$mnt")"
if dd if=/dev/zero of="$mnt/zeros" bs=1M count=100 2>"$work/err"; then fail "100M went into 64M"; fi
grep -q "No space left" "$work/err" || fail "not ENOSPC: $(cat "$work/err")"
[ "$(stat -c %s "$mnt/zeros")" -gt $((50 << 20)) ] || fail "full at $(stat -c %s "$mnt/zeros") bytes"
[ "$(df --output=avail -B1M "$mnt" | tail -1 | tr -d ' ')" -le 2 ] || fail "df: $(df -B1M "$mnt")"
if fallocate -l 10M "$mnt/more" 2>"$work/err"; then fail "10M were allocated where there is no space"; fi
rm -f "$mnt/zeros" "$mnt/more" || fail "a full filesystem cannot be deleted from"
"$FASTERFS" umount "$mnt"
[ "$(du -sm "$work/small" | cut -f1)" -le 130 ] || fail "the store takes $(du -sm "$work/small")"
say "passed"
