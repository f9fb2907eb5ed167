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
fi

if have tar; then
    say "tar"
    mkdir "$mnt/tar"
    tar -C /usr/include -cf - . | tar -C "$mnt/tar" -xpf -
    diff -r --no-dereference /usr/include "$mnt/tar"
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
