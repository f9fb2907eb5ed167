#!/bin/bash
# SPDX-License-Identifier: MIT
# A disk that is really full, tmpfs and ext4: filled through the mount, and by somebody else. The error comes at once and
# to who asked for more; what was acknowledged is intact, then and after a mount while full; deleting works and gives the
# space back; writing goes on. Root only: it mounts a disk of its own.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "mounting a small disk needs root"
disk=$work/disk
mkdir "$disk"
sums=$work/sums
declare -A sizes # in bytes, of the files in it

mount_it() { timeout 60 "$FASTERFS" "$store" "$mnt" -o memory=16M || fail "$1"; }
umount_it() { timeout 120 "$FASTERFS" umount "$mnt" || fail "$1: umount does not end well"; }
free_kib() { df --output=avail -k "$mnt" | tail -1 | tr -d ' '; }
# After a crash without a sync: of the files $1/1, $1/2, ..., which were written in this order, those up to some one are whole, that
# one is cut short, and what came later is not there. All others are whole.
check_prefix() {
    local sum name cut=
    while read -r sum name; do
        if [ -e "$mnt/$name" ] && [ "$(sha256sum <"$mnt/$name" | cut -d ' ' -f 1)" = "$sum" ]; then
            [ -z "$cut" ] || fail "after kill -9: $name is there, and $cut before it is not whole"
            continue
        fi
        [[ $name = "$1"/* ]] || fail "after kill -9: $name, which was synced, is not whole"
        [ ! -e "$mnt/$name" ] || { [ -z "$cut" ] && [ "$(stat -c %s "$mnt/$name")" -lt "${sizes[$name]}" ]; } ||
            fail "after kill -9: $name has wrong contents"
        cut=${cut:-$name}
    done <"$sums"
}
check_sums() { (cd "$mnt" && sha256sum --quiet -c "$sums") || fail "$1: what was acknowledged is not what is read"; }

# Files $1/0, $1/1, ... of up to 2 MiB until there is no room: each that was acknowledged is noted with its sum.
fill() {
    local i
    for _ in $(seq 300); do # what was deleted just before is on its way back
        if mkdir "$mnt/$1" 2>/dev/null; then break; fi
        sleep 0.1
    done
    [ -d "$mnt/$1" ] || fail "a directory of 200 bytes needs room, and for half a minute there is none"
    for i in $(seq 1000); do
        head -c $((RANDOM * 64)) /dev/urandom >"$work/bytes"
        if ! timeout 20 cp "$work/bytes" "$mnt/$1/$i" 2>"$work/error"; then
            grep -q 'No space left' "$work/error" || fail "filling: $(cat "$work/error")"
            rm -f "$mnt/$1/$i" || fail "what did not fit cannot be removed"
            return
        fi
        echo "$(sha256sum <"$work/bytes" | cut -d ' ' -f 1)  $1/$i" >>"$sums"
        sizes[$1/$i]=$(stat -c %s "$work/bytes")
    done
    fail "the disk does not become full"
}

# Deletes every second file, and tries to write 16 MiB until there is room for them.
make_room() {
    local name
    while read -r _ name; do
        rm "$mnt/$name" || fail "$1: deleting on a full disk"
    done < <(sed -n 'n;p' "$sums")
    sed -i 'n;d' "$sums"
    head -c 16777216 /dev/urandom >"$work/bytes"
    for _ in $(seq 300); do
        if timeout 20 cp "$work/bytes" "$mnt/room" 2>"$work/error"; then
            rm "$mnt/room" || fail "$1: deleting"
            return
        fi
        grep -q 'No space left' "$work/error" || fail "$1: $(cat "$work/error")"
        sleep 0.1
    done
    fail "$1: half of the files are gone for half a minute, and there is no room for 16 MiB ($(free_kib) KiB free)"
}

filled_through_the_mount() {
    : >"$sums"
    mount_it "a small disk"
    fill one
    say "full: $(wc -l <"$sums") files, $(free_kib) KiB free"
    check_sums "full"
    timeout 60 "$FASTERFS" sync "$mnt" || fail "sync of what was acknowledged, on a full disk"
    umount_it "full"
    mount_it "mounting while full"
    check_sums "mounted while full"
    make_room "full"
    fill two
    say "full again: $(wc -l <"$sums") files"
    kill_daemon "$store" "$mnt"
    mount_it "mounting while full, after kill -9"
    check_prefix two
    rm -rf "$mnt/one" "$mnt/two" || fail "deleting everything"
    umount_it "emptied"
}

filled_by_others() {
    : >"$sums"
    mount_it "a small disk"
    mkdir "$mnt/before"
    head -c 3000000 /dev/urandom | tee "$mnt/before/1" | sha256sum | sed 's,-$,before/1,' >"$sums"
    dd if=/dev/zero of="$disk/other" bs=64K status=none 2>/dev/null || true
    fill others
    timeout 60 "$FASTERFS" sync "$mnt" || fail "sync of what was acknowledged, beside a full disk"
    check_sums "somebody else has filled the disk"
    umount_it "filled by somebody else"
    mount_it "mounting while somebody else has filled the disk"
    check_sums "mounted on a full disk"
    rm "$disk/other"
    mkdir "$mnt/after" || fail "there is room again, and a directory cannot be made"
    head -c 9000000 /dev/urandom | tee "$mnt/after/1" | sha256sum | sed 's,-$,after/1,' >>"$sums"
    "$FASTERFS" sync "$mnt"
    check_sums "there is room again"
    umount_it "at the end"
}

tests_on() {
    store=$disk/$1
    say "$1"
    "$2"
    rm -rf "$store"
}

mount -t tmpfs -o size=112M none "$disk" || skip "no tmpfs here"
tests_on tmpfs filled_through_the_mount
tests_on tmpfs filled_by_others
umount "$disk"
truncate -s 112M "$work/image"
if mkfs.ext4 -q "$work/image" 2>/dev/null && mount -o loop "$work/image" "$disk" 2>/dev/null; then
    tests_on ext4 filled_through_the_mount
    tests_on ext4 filled_by_others
    umount "$disk"
else
    skip_part "ext4: no loop device here"
fi
say "passed"
