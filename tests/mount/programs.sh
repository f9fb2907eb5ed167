#!/bin/bash
# SPDX-License-Identifier: MIT
# Programs that people use: git, make and a compiler, sqlite3, tar, rsync.
. "$(dirname "$0")/lib.sh"

"$FASTERFS" "$store" "$mnt" -o memory=32M
have() { command -v "$1" >/dev/null || { skip_part "$1 is not installed"; return 1; }; }

if have git; then
    say "git"
    git init -q -b main "$work/repo"
    (
        cd "$work/repo"
        git config user.name test
        git config user.email test@example.org
        for n in $(seq 20); do
            mkdir -p "d$n"
            for i in $(seq 20); do seq "$n" $((n * i)) >"d$n/f$i"; done
            git add -A
            git commit -q -m "commit $n"
        done
    )
    git clone -q "$work/repo" "$mnt/clone"
    git -C "$mnt/clone" fsck --full --strict 2>&1 | tail -3
    git -C "$mnt/clone" checkout -q HEAD~10
    git -C "$mnt/clone" checkout -q main
    [ -z "$(git -C "$mnt/clone" status --short)" ] || fail "git sees changes in a fresh clone"
    (
        cd "$mnt/clone"
        git config user.name test
        git config user.email test@example.org
        rm -rf d3
        echo new >new
        git add -A
        git commit -q -m new
        git gc -q
        git fsck --full 2>&1 | tail -1
    )
    diff -r -x .git "$work/repo/d5" "$mnt/clone/d5"
fi

if have make && have cc; then
    say "make -j2 of a project in C"
    mkdir "$mnt/project"
    (
        cd "$mnt/project"
        for n in $(seq 40); do
            printf '#include "all.h"\nint f%d(int x) { return x * %d + 1; }\n' "$n" "$n" >"f$n.c"
        done
        for n in $(seq 40); do echo "int f$n(int x);"; done >all.h
        {
            printf '#include <stdio.h>\n#include "all.h"\nint main(void) { int s = 0;\n'
            for n in $(seq 40); do echo "s += f$n(1);"; done
            printf 'printf("%%d\\n", s); return 0; }\n'
        } >main.c
        printf 'OBJ = $(patsubst %%.c,%%.o,$(wildcard *.c))\nprog: $(OBJ)\n\tcc -o $@ $^\n%%.o: %%.c all.h\n\tcc -c -O1 -o $@ $<\n' >Makefile
        make -s -j2
        [ "$(./prog)" = 860 ] || fail "the program that was built is wrong"
        make -q || fail "make would build again what it has just built"
        touch f7.c
        if make -q; then fail "make does not see a touched file"; fi
        make -s -j2
    )
fi

if have cmake && have make && have cc && command -v pkg-config >/dev/null; then
    say "this project, built inside"
    top=$(cd "$(dirname "$0")/../.." 2>/dev/null && pwd)
    mkdir "$mnt/self"
    tar -C "$top" --exclude=./build --exclude=./.git -cf - . | tar -C "$mnt/self" -xf -
    cmake -S "$mnt/self" -B "$mnt/self/build" -G "Unix Makefiles" >"$work/log" 2>&1 || fail "cmake: $(tail -3 "$work/log")"
    make -s -C "$mnt/self/build" -j2 fasterfs >"$work/log" 2>&1 || fail "make: $(tail -3 "$work/log")"
    "$mnt/self/build/fasterfs" --version
    if make -C "$mnt/self/build" fasterfs | grep Building; then fail "make builds again what it has just built"; fi
    rm -rf "$mnt/self"
fi

if have sqlite3; then
    say "sqlite3"
    for mode in delete truncate persist wal; do
        db=$mnt/$mode.db
        sqlite3 "$db" "pragma journal_mode=$mode; create table t(a integer primary key, b text);" >/dev/null
        for w in 1 2; do
            (for i in $(seq 30); do
                sqlite3 -cmd ".timeout 20000" "$db" "insert into t(b) values ('$w $i ' || hex(randomblob(2000)));"
            done) &
        done
        wait
        [ "$(sqlite3 "$db" 'select count(*) from t; pragma integrity_check;' | tr '\n' ' ')" = "60 ok " ] ||
            fail "sqlite in mode $mode: rows are missing or the file is damaged"
    done
    say "sqlite3 through kill -9 of the daemon: what it said was committed is there"
    for mode in delete wal; do
        db=$mnt/crash-$mode.db
        sqlite3 "$db" "pragma journal_mode=$mode; create table t(a integer primary key, b text);" >/dev/null
        # mode=rw: once the dead mount is gone it makes no file below it.
        (i=0 && while sqlite3 -cmd "pragma synchronous=extra" "file:$db?mode=rw" "insert into t(b) values (hex(randomblob(2000)));"; do
            echo $((i += 1)) >"$work/committed"
        done) 2>/dev/null &
        while [ "$(cat "$work/committed" 2>/dev/null || echo 0)" -lt 10 ]; do sleep 0.05; done
        kill_daemon "$store" "$mnt"
        wait
        "$FASTERFS" "$store" "$mnt" -o memory=32M
        committed=$(cat "$work/committed")
        rm "$work/committed"
        [ "$(sqlite3 "$db" "select count(*) >= $committed from t; pragma integrity_check;" | tr '\n' ' ')" = "1 ok " ] ||
            fail "sqlite in mode $mode: of $committed commits $(sqlite3 "$db" 'select count(*) from t') are left"
    done
fi

if have tar; then
    say "tar"
    mkdir "$mnt/tar"
    tar -C /usr/include -cf - . | tar -C "$mnt/tar" -xpf -
    diff -r --no-dereference /usr/include "$mnt/tar"
fi
if have tar && have python3; then
    say "tar of extended attributes, and of a sparse file"
    python3 - "$mnt" <<'PY'
import os, sys
os.mkdir(sys.argv[1] + "/x")
f = sys.argv[1] + "/x/sparse"
with open(f, "wb") as file:
    file.seek(1 << 30)
    file.write(b"end")
os.setxattr(f, "user.small", b"value")
os.setxattr(f, "user.large", b"v" * 20000)
PY
    tar -C "$mnt" --xattrs --sparse -cf "$work/x.tar" x
    [ "$(stat -c %s "$work/x.tar")" -lt 1000000 ] || fail "tar did not see the hole: $(stat -c %s "$work/x.tar") bytes"
    mkdir "$mnt/x2"
    tar -C "$mnt/x2" --xattrs -xf "$work/x.tar"
    cmp "$mnt/x/sparse" "$mnt/x2/x/sparse"
    [ "$(stat -c %b "$mnt/x2/x/sparse")" -lt 1000 ] || fail "the hole was written"
    python3 -c 'import os, sys
f = sys.argv[1]
assert os.getxattr(f, "user.small") == b"value" and os.getxattr(f, "user.large") == b"v" * 20000' "$mnt/x2/x/sparse" ||
        fail "tar lost an attribute"
    say "cp -a and cp --sparse=always keep both"
    cp -a "$mnt/x/sparse" "$mnt/x/copy"
    cmp "$mnt/x/sparse" "$mnt/x/copy"
    [ "$(stat -c %b "$mnt/x/copy")" -lt 1000 ] || fail "cp wrote the hole"
fi
if have rsync && have setfacl; then
    say "rsync -aHAX, in and out"
    attributes_of() { (cd "$1" && find . | LC_ALL=C sort | while read -r f; do getfacl -- "$f"; getfattr -d -- "$f"; done); }
    mkdir -p "$work/in/d"
    echo x >"$work/in/d/f"
    ln "$work/in/d/f" "$work/in/d/hard"
    setfattr -n user.a -v 1 "$work/in/d/f"
    setfacl -m u:1234:rwx "$work/in/d/f"
    setfacl -d -m g:1234:rx "$work/in/d"
    rsync -aHAX "$work/in/" "$mnt/in/"
    rsync -aHAX "$mnt/in/" "$work/out/"
    for t in "$mnt/in" "$work/out"; do
        [ -z "$(rsync -aHAXic --delete "$work/in/" "$t/")" ] || fail "rsync finds differences"
        attributes_of "$t" | diff <(attributes_of "$work/in") - || fail "ACLs or attributes differ"
    done
fi
if have rsync; then
    say "rsync"
    rsync -aH /usr/include/linux/ "$mnt/rsync/"
    [ -z "$(rsync -aHic --delete /usr/include/linux/ "$mnt/rsync/")" ] || fail "rsync would copy again what it has just copied"
fi

say "and all of it is there after umount and mount"
manifest "$mnt" >"$work/before"
"$FASTERFS" umount "$mnt"
"$FASTERFS" "$store" "$mnt" -o memory=32M
manifest "$mnt" | cmp - "$work/before" || fail "something changed"
"$FASTERFS" umount "$mnt"
say "passed"
