// SPDX-License-Identifier: MIT
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const char ALL[] = "fasterfs - a filesystem with checksums, crash safety and snapshots in any directory\n"
                          "\n"
                          "Mount\n"
                          "  fasterfs mount STORE MOUNTPOINT [-o OPTIONS]  mount a store; an empty STORE becomes one\n"
                          "  fasterfs STORE MOUNTPOINT [-o OPTIONS]        the same\n"
                          "  fasterfs umount MOUNTPOINT                    unmount and wait until all is on disk\n"
                          "\n"
                          "Keep\n"
                          "  fasterfs sync MOUNTPOINT                      make all that was written durable\n"
                          "  fasterfs snapshot create MOUNTPOINT NAME      keep the tree as it is at this moment\n"
                          "  fasterfs snapshot list MOUNTPOINT [--json]    what is kept\n"
                          "  fasterfs snapshot delete MOUNTPOINT NAME      let go of it\n"
                          "\n"
                          "Trust\n"
                          "  fasterfs check STORE [--repair] [--json]      is all of an unmounted store whole? Mend it\n"
                          "  fasterfs scrub MOUNTPOINT [--json]            read everything again while it is mounted\n"
                          "\n"
                          "About\n"
                          "  fasterfs COMMAND --help                       more on one command\n"
                          "  fasterfs --version\n"
                          "\n"
                          "Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage.\n";

static const struct {
    const char *command, *text;
} HELP[] = {
    {"mount", "fasterfs mount STORE MOUNTPOINT [-f] [-d] [-o OPTION[,OPTION]...]\n"
              "\n"
              "Mounts the store in the directory STORE on the empty directory MOUNTPOINT and goes to the\n"
              "background once it is usable. STORE is created if it is absent, and becomes a store if it is\n"
              "empty; a directory that holds anything else is refused and left as it is.\n"
              "\n"
              "  -f               stay in the foreground\n"
              "  -d               foreground, and print every request\n"
              "  -o memory=SIZE   memory for log, index and buffers (64M)\n"
              "  -o threads=N     threads that take requests (2 on two processors)\n"
              "  -o ro            read-only, the store as well\n"
              "  -o size=SIZE     how long the log may get: more is `no space left` (as far as its disk allows)\n"
              "  -o noxattr       no extended attributes, no ACLs: one request less for each file written\n"
              "  -o allow_other   for all users, not only the one who mounts\n"
              "  -o fsname=NAME   what df and findmnt show as the source (the path of STORE)\n"
              "  -o nonempty      allow a MOUNTPOINT that holds files; they are hidden while mounted\n"
              "\n"
              "rw, suid, nosuid, dev, nodev, exec, noexec, atime, noatime, sync, dirsync, auto_unmount, remount\n"
              "are as in mount(8), and relatime, noatime, strictatime for reads that reach the daemon (what the\n"
              "kernel has cached is read without its knowledge); other words of fstab are accepted and do nothing. Permissions are always\n"
              "checked, by the kernel.\n"
              "\n"
              "In /etc/fstab, with fasterfs in /usr/local/bin or another such place:\n"
              "  STORE MOUNTPOINT fuse.fasterfs OPTIONS 0 0\n"
              "\n"
              "What fsync(2) acknowledged survives any crash; of the rest, at most about the last second is\n"
              "lost. sync(1) does not reach a FUSE filesystem: use `fasterfs sync`. umount(8) does not wait for\n"
              "the daemon: use `fasterfs umount`.\n"},
    {"umount", "fasterfs umount MOUNTPOINT\n"
               "\n"
               "Makes all durable, unmounts, and waits until the daemon has closed the store: then STORE can be\n"
               "copied, moved or mounted. Also clears a mount whose daemon has died.\n"},
    {"sync", "fasterfs sync MOUNTPOINT\n"
             "\n"
             "Returns when everything written before is on stable media. MOUNTPOINT may be any path in it.\n"},
    {"snapshot", "fasterfs snapshot create MOUNTPOINT NAME\n"
                 "fasterfs snapshot list MOUNTPOINT [--json]\n"
                 "fasterfs snapshot delete MOUNTPOINT NAME\n"
                 "\n"
                 "A snapshot is the whole tree at one moment, read-only, at MOUNTPOINT/.snapshots/NAME; .snapshots\n"
                 "is there although `ls` of MOUNTPOINT does not show it. Taking one copies no data. Restore with\n"
                 "cp -a. mkdir, ls and rmdir in .snapshots do the same as these commands.\n"},
    {"check", "fasterfs check STORE [--repair] [--json]\n"
              "\n"
              "Reads all of a store that is not mounted, verifies every checksum and whether names, files, counts\n"
              "and contents belong together, in each snapshot too, and names the files that are hit. Nothing is\n"
              "written without --repair; with it, nothing before all has been read, and nothing where the disk\n"
              "could not read something: what is damaged or leads nowhere is dropped, and listed; counts are set\n"
              "right, and what has lost its name is found in /lost+found. What was dropped of a file reads as\n"
              "zeros afterwards. A snapshot is never changed: delete one that is damaged. Copy the store first if\n"
              "you can.\n"
              "\n"
              "  --repair   mend what can be mended\n"
              "  --json     one object: store, result (clean, mended, damaged or failed), status, inodes,\n"
              "             snapshots, log_bytes, faults, mended, left, dropped, message, damaged_snapshots,\n"
              "             list, of: path and snapshot (or null), what, ino, offset, len (bytes of the file, or of\n"
              "             the log if ino is 0), mended; and dropped_list, of: path, what, name (or null), ino,\n"
              "             offset, len\n"
              "\n"
              "Memory: 64 bytes for each inode of the largest tree, and 64 MiB. The log is read four times, and what a\n"
              "snapshot has of it twice more for each.\n"
              "Exit status: 0 clean, 1 all was mended, 4 damage is left, 8 it could not be checked, 16 wrong usage.\n"},
    {"scrub", "fasterfs scrub MOUNTPOINT [--restart] [--rate=SIZE] [--json]\n"
              "\n"
              "Reads every record of a mounted store from its disk, snapshots included, and verifies the checksums, so that damage\n"
              "is known while there still is a copy elsewhere. It does not verify more than that: `fasterfs check`\n"
              "does, on a store that is not mounted. Interrupt it as you like: the daemon remembers how far it\n"
              "came, and the next scrub goes on there, until the store is unmounted. For the owner of the mount and root.\n"
              "\n"
              "  --restart     from the beginning\n"
              "  --rate=SIZE   at most so much in a second (64M; 0: as fast as it goes)\n"
              "  --json        one object: mountpoint, result, status, bytes, faults, and list, as of `fasterfs check`\n"
              "\n"
              "Exit status: 0 clean, 4 there is damage, 8 it could not be done, 16 wrong usage.\n"},
};

bool help_wanted(const char *arg)
{
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

bool help_print(const char *command)
{
    if (!command) {
        fputs(ALL, stdout);
        return true;
    }
    for (size_t i = 0; i < sizeof(HELP) / sizeof(HELP[0]); i++)
        if (strcmp(HELP[i].command, command) == 0) {
            fputs(HELP[i].text, stdout);
            return true;
        }
    return false;
}
