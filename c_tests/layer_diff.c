/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Layers as archives again, from C: exactly as they came, or as what they change of others. */

#include "archive.h"
#include "test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct archive base, top;
static struct storage_module_init_options conf;

/* Keeps what is written, in small steps if asked to, up to an error if asked for. */
struct sink {
    char *bytes;
    size_t len;
    size_t step;
    size_t fail_at;
    int code;
    int interruptions;
    int closed;
};

static ssize_t sink_write(void *context, const void *data, size_t len)
{
    struct sink *sink = context;
    char *grown;

    if (sink->interruptions > 0) {
        sink->interruptions--;
        errno = EINTR;
        return -1;
    }
    if (sink->fail_at != 0 && sink->len >= sink->fail_at) {
        errno = sink->code;
        return -1;
    }
    if (sink->step != 0 && len > sink->step) {
        len = sink->step;
    }
    grown = realloc(sink->bytes, sink->len + len);
    if (grown == NULL) {
        return -1;
    }
    memcpy(grown + sink->len, data, len);
    sink->bytes = grown;
    sink->len += len;
    return (ssize_t)len;
}

static int sink_close(void *context, char **err)
{
    struct sink *sink = context;

    (void)err;
    sink->closed = 1;
    return 0;
}

static ssize_t takes_too_much(void *context, const void *data, size_t len)
{
    (void)context;
    (void)data;
    return (ssize_t)len + 1;
}

static ssize_t takes_nothing(void *context, const void *data, size_t len)
{
    (void)context;
    (void)data;
    (void)len;
    return 0;
}

static int create(const char *id, const char *parent, bool writable, const char *bytes, size_t len)
{
    struct memory_stream stream = { bytes, len, 0, 0, 0, 0 };
    struct io_read_wrapper content = { &stream, memory_read, memory_close, 0 };
    struct layer_opts opts;
    char parent_copy[80];

    memset(&opts, 0, sizeof(opts));
    if (parent != NULL) {
        opts.parent = strcpy(parent_copy, parent);
    }
    opts.writable = writable;
    return layer_store_create(id, &opts, bytes == NULL ? NULL : &content, NULL);
}

static void exports_are_exact(void)
{
    const struct archive *archives[] = { &base, &top };
    const char *ids[] = { ID_A, ID_B };

    for (int i = 0; i < 2; i++) {
        for (size_t step = 0; step < 2000; step += 999) {
            struct sink sink = { NULL, 0, step, 0, 0, 3, 0 };
            struct io_write_wrapper writer = { &sink, sink_write, sink_close, 0 };

            WORKS(isula_storage_layer_export(ids[i], &writer) == 0);
            CHECK(sink.len == archives[i]->len && memcmp(sink.bytes, archives[i]->bytes, sink.len) == 0);
            CHECK(sink.closed == 0);
            free(sink.bytes);
        }
    }
}

static void writers_that_fail_end_it(void)
{
    struct sink sink = { NULL, 0, 100, 700, ENOSPC, 0, 0 };
    struct io_write_wrapper writer = { &sink, sink_write, NULL, 0 };
    struct io_write_wrapper liar = { NULL, takes_too_much, NULL, 0 };
    struct io_write_wrapper full = { NULL, takes_nothing, NULL, 0 };

    FAILS(isula_storage_layer_export(ID_A, &writer) == -1, ENOSPC);
    CHECK(sink.len == 700);
    FAILS(isula_storage_layer_diff(ID_A, NULL, &writer) == -1, ENOSPC);
    CHECK(sink.len == 700);
    sink.code = 0;
    FAILS(isula_storage_layer_export(ID_A, &writer) == -1, EIO);
    FAILS(isula_storage_layer_export(ID_A, &liar) == -1, EIO);
    FAILS(isula_storage_layer_export(ID_A, &full) == -1, EIO);
    sink.interruptions = 1000000;
    FAILS(isula_storage_layer_export(ID_A, &writer) == -1, EIO);
    FAILS(isula_storage_layer_export(ID_ABSENT, &writer) == -1, ENOENT);
    FAILS(isula_storage_layer_diff(ID_ABSENT, NULL, &writer) == -1, ENOENT);
    FAILS(isula_storage_layer_diff(ID_A, ID_ABSENT, &writer) == -1, ENOENT);
    /* A container's layer was not made from an archive. */
    FAILS(isula_storage_layer_export(ID_C, &writer) == -1, EUCLEAN);
    free(sink.bytes);
}

static void write_file(const char *root, const char *name, const char *content)
{
    char path[4096];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", root, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    CHECK(write(fd, content, strlen(content)) == (ssize_t)strlen(content));
    CHECK(close(fd) == 0);
}

static void check_changes(const char *id, const char *parent)
{
    static const struct {
        const char *path;
        int kind;
    } expected[] = {
        { "etc", ISULA_STORAGE_CHANGE_MODIFIED },
        { "etc/hostname", ISULA_STORAGE_CHANGE_DELETED },
        { "etc/motd", ISULA_STORAGE_CHANGE_MODIFIED },
        { "etc/\xff", ISULA_STORAGE_CHANGE_ADDED },
    };
    struct isula_storage_layer_changes_list list = { NULL, 77 };
    int64_t bytes = -1;
    uint64_t limit = 77;

    WORKS(isula_storage_layer_changes(id, parent, &list) == 0);
    CHECK(list.changes_len == sizeof(expected) / sizeof(expected[0]));
    for (size_t i = 0; i < list.changes_len && i < sizeof(expected) / sizeof(expected[0]); i++) {
        CHECK(test_same(list.changes[i].path, expected[i].path));
        CHECK(list.changes[i].kind == expected[i].kind);
    }
    isula_storage_clear_layer_changes(&list);
    CHECK(list.changes == NULL && list.changes_len == 0);
    isula_storage_clear_layer_changes(&list);
    WORKS(isula_storage_layer_limit(id, &limit) == 0);
    CHECK(limit == 0);
    WORKS(isula_storage_layer_diff_size(id, parent, &bytes) == 0);
    CHECK(bytes == (int64_t)strlen("changed\n") + (int64_t)strlen("new\n"));
}

static void changes_become_a_layer(void)
{
    struct sink first = { NULL, 0, 0, 0, 0, 0, 0 }, second = { NULL, 0, 7, 0, 0, 0, 0 };
    struct io_write_wrapper one = { &first, sink_write, NULL, 0 }, two = { &second, sink_write, NULL, 0 };
    char *root = layer_store_mount(ID_C), path[4096];

    CHECK(root != NULL);
    write_file(root, "etc/motd", "changed\n");
    write_file(root, "etc/\xff", "new\n");
    snprintf(path, sizeof(path), "%s/etc/hostname", root);
    CHECK(unlink(path) == 0);
    WORKS(layer_store_umount(ID_C, false) == 0);
    free(root);
    check_changes(ID_C, NULL);
    check_changes(ID_C, ID_B);

    WORKS(isula_storage_layer_diff(ID_C, NULL, &one) == 0);
    WORKS(create(ID_ABSENT, ID_B, false, first.bytes, first.len) == 0);
    check_changes(ID_ABSENT, NULL);
    WORKS(isula_storage_layer_diff(ID_ABSENT, ID_B, &two) == 0);
    CHECK(first.len == second.len && memcmp(first.bytes, second.bytes, first.len) == 0);
    free(second.bytes);
    second.bytes = NULL;
    second.len = 0;
    WORKS(isula_storage_layer_export(ID_ABSENT, &two) == 0);
    CHECK(first.len == second.len && memcmp(first.bytes, second.bytes, first.len) == 0);
    free(first.bytes);
    free(second.bytes);
    WORKS(layer_store_delete(ID_ABSENT) == 0);
}

/* A file that was changed behind the store's back is noticed, whatever was written by then. */
static void a_changed_layer_is_no_archive(const char *driver)
{
    struct sink sink = { NULL, 0, 0, 0, 0, 0, 0 };
    struct io_write_wrapper writer = { &sink, sink_write, NULL, 0 };
    bool overlay = strcmp(driver, "overlay") == 0;
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s/%s%s", conf.storage_root, driver, overlay ? "" : "dir/", ID_A);
    if (overlay) {
        strcat(path, "/diff");
    }
    write_file(path, "etc/motd", "HI\n");
    FAILS(isula_storage_layer_export(ID_A, &writer) == -1, EUCLEAN);
    write_file(path, "etc/motd", "longer than before\n");
    FAILS(isula_storage_layer_export(ID_A, &writer) == -1, EUCLEAN);
    strcat(path, "/etc/motd");
    CHECK(unlink(path) == 0);
    FAILS(isula_storage_layer_export(ID_A, &writer) == -1, EUCLEAN);
    free(sink.bytes);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s ROOT RUN_ROOT DRIVER\n", argv[0]);
        return 2;
    }
    conf.storage_root = argv[1];
    conf.storage_run_root = argv[2];
    conf.driver_name = argv[3];
    archive_add(&base, "etc/", NULL);
    archive_add(&base, "etc/motd", "hi\n");
    archive_add(&base, "etc/issue", "hello\n");
    archive_end(&base);
    archive_add(&top, "etc/hostname", "top\n");
    archive_add(&top, "etc/.wh.issue", "");
    archive_end(&top);

    WORKS(layer_store_init(&conf) == 0);
    WORKS(create(ID_A, NULL, false, base.bytes, base.len) == 0);
    WORKS(create(ID_B, ID_A, false, top.bytes, top.len) == 0);
    WORKS(create(ID_C, ID_B, true, NULL, 0) == 0);
    exports_are_exact();
    writers_that_fail_end_it();
    changes_become_a_layer();
    a_changed_layer_is_no_archive(argv[3]);
    layer_store_exit();
    return DONE();
}
