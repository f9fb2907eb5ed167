// SPDX-License-Identifier: MIT
/* Handles, as an NFS server uses them. handles.h says how they outlive a mount. */
#include "handles.h"

#include "cases.h"

static void a_handle_opens_its_file(void)
{
    struct handle f, d;
    struct stat st;
    char bytes[8];
    int fd = make_file("f", 0644);

    equal(4, write(fd, "data", 4));
    close(fd);
    ok(mkdir("d", 0755));
    close(make_file("d/g", 0644));
    ok(handle_of("f", &f));
    ok(handle_of("d/g", &d));
    ok(rename("d/g", "moved"));
    fd = handle_open(&f, O_RDONLY);
    ok(fd);
    equal(4, read(fd, bytes, sizeof bytes));
    close(fd);
    fd = handle_open(&d, O_RDONLY);
    ok(fd);
    ok(fstat(fd, &st));
    equal(stat_of("moved").st_ino, st.st_ino);
    close(fd);
    ok(unlink("f"));
    gives(ESTALE, handle_open(&f, O_RDONLY));
    close(make_file("f", 0644)); /* another file */
    gives(ESTALE, handle_open(&f, O_RDONLY));
}

const struct posix_case HANDLES[] = {
    {"open_by_handle_at, after rename; ESTALE after unlink", a_handle_opens_its_file, true}, {NULL, NULL, false}};
