/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The graph driver from C: alone, and as the driver of an open layer store. */

#include "archive.h"
#include "test.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

static struct archive base, top;
static struct storage_module_init_options conf;
static bool overlay;

static struct driver_create_opts *no_opts(void)
{
    static struct driver_create_opts opts;

    memset(&opts, 0, sizeof(opts));
    return &opts;
}

static int apply(const char *id, const struct archive *archive)
{
    struct memory_stream stream = { archive->bytes, archive->len, 100, 0, 0, 0 };
    struct io_read_wrapper content = { &stream, memory_read, memory_close, 0 };
    int result = graphdriver_apply_diff(id, &content);

    CHECK(stream.closed == 0);
    return result;
}

static bool is_file(const char *dir, const char *name)
{
    char path[1024];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void make_file(const char *dir, const char *name)
{
    char path[1024];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    close(fd);
}

static void layers_are_made_and_filled(void)
{
    struct driver_create_opts *opts = no_opts();
    struct archive half = base;

    CHECK(!graphdriver_layer_exists(ID_A));
    WORKS(graphdriver_create_ro(ID_A, NULL, opts) == 0);
    WORKS(graphdriver_layer_exists(ID_A));
    WORKS(apply(ID_A, &base) == 0);
    WORKS(graphdriver_create_ro(ID_B, ID_A, opts) == 0);
    WORKS(apply(ID_B, &top) == 0);
    WORKS(graphdriver_create_rw(ID_C, ID_B, opts) == 0);

    FAILS(graphdriver_create_rw(ID_ABSENT, ID_ABSENT, opts) == -1, ENOENT);
    FAILS(apply(ID_ABSENT, &base) == -1, ENOENT);
    CHECK(!graphdriver_layer_exists(ID_ABSENT));

    /* An archive that ends early: the layer is removed, and can be made again. */
    half.len = 700;
    WORKS(graphdriver_create_ro(ID_ABSENT, NULL, opts) == 0);
    FAILS(apply(ID_ABSENT, &half) == -1, EBADMSG);
    WORKS(graphdriver_rm_layer(ID_ABSENT) == 0);
    CHECK(!graphdriver_layer_exists(ID_ABSENT));
}

static void what_is_there_stays(void)
{
    struct driver_create_opts *opts = no_opts();
    char *root = NULL;

    WORKS((root = graphdriver_mount_layer(ID_C, NULL)) != NULL);
    make_file(root, "data");
    if (overlay) {
        FAILS(apply(ID_C, &base) == -1, EBUSY);
    }
    WORKS(graphdriver_umount_layer(ID_C) == 0);
    FAILS(graphdriver_create_rw(ID_C, ID_B, opts) == -1, EEXIST);
    FAILS(graphdriver_create_ro(ID_C, NULL, opts) == -1, EEXIST);
    FAILS(graphdriver_rm_layer(ID_A) == -1, EBUSY);
    FAILS(graphdriver_rm_layer(ID_B) == -1, EBUSY);
    free(root);
    WORKS((root = graphdriver_mount_layer(ID_C, NULL)) != NULL);
    CHECK(is_file(root, "data") && is_file(root, "etc/motd") && is_file(root, "etc/hostname"));
    CHECK(!is_file(root, "etc/issue"));
    WORKS(graphdriver_umount_layer(ID_C) == 0);
    free(root);
}

static void mounts_take_options(void)
{
    char option[] = "ro", bad[] = "bind";
    char *options[] = { option };
    struct driver_mount_opts mount = { NULL, options, 1 };
    char *root = NULL, *again = NULL;

    if (!overlay) {
        return;
    }
    WORKS((root = graphdriver_mount_layer(ID_C, &mount)) != NULL);
    WORKS((again = graphdriver_mount_layer(ID_C, NULL)) != NULL);
    CHECK(test_same(root, again));
    {
        char path[1024];

        snprintf(path, sizeof(path), "%s/more", root);
        CHECK(open(path, O_WRONLY | O_CREAT | O_EXCL, 0600) == -1 && errno == EROFS);
    }
    WORKS(graphdriver_umount_layer(ID_C) == 0);
    WORKS(graphdriver_umount_layer(ID_C) == 0);
    CHECK(!is_file(root, "etc"));
    free(root);
    free(again);
    options[0] = bad;
    FAILS(graphdriver_mount_layer(ID_C, &mount) == NULL, EINVAL);
}

static void unknown_layers(void)
{
    imagetool_fs_info info;

    memset(&info, 0x5a, sizeof(info));
    WORKS(graphdriver_get_layer_fs_info(ID_ABSENT, &info) == 0);
    CHECK(info.image_filesystems_len == (size_t)0x5a5a5a5a5a5a5a5a);
    WORKS(graphdriver_rm_layer(ID_ABSENT) == 0);
    WORKS(graphdriver_umount_layer(ID_ABSENT) == 0);
    WORKS(graphdriver_try_repair_lowers(ID_ABSENT, NULL) == 0);
    WORKS(!graphdriver_layer_exists(ID_ABSENT));
    FAILS(graphdriver_mount_layer(ID_ABSENT, NULL) == NULL, ENOENT);
    FAILS(graphdriver_get_metadata(ID_ABSENT) == NULL, ENOENT);
}

static void facts(const char *driver)
{
    container_inspect_graph_driver *graph = NULL;
    struct graphdriver_status *status = NULL;
    imagetool_fs_info info;
    char expected[256];

    WORKS((status = graphdriver_get_status()) != NULL);
    CHECK(test_same(status->driver_name, driver));
    CHECK(test_same(status->backing_fs, "tmpfs") || test_same(status->backing_fs, "extfs") ||
          test_same(status->backing_fs, "xfs") || test_same(status->backing_fs, "btrfs"));
    snprintf(expected, sizeof(expected), "Backing Filesystem: %s\n%s", status->backing_fs,
             overlay ? "Supports d_type: true\n" : "");
    CHECK(test_same(status->status, expected));
    free_graphdriver_status(status);

    WORKS((graph = graphdriver_get_metadata(ID_C)) != NULL);
    CHECK(test_same(graph->name, driver));
    CHECK(graph->data->merged_dir != NULL && graph->data->upper_dir != NULL);
    CHECK(!overlay || (graph->data->work_dir != NULL && strchr(graph->data->lower_dir, ':') != NULL));
    CHECK(graph->data->device_id == NULL && graph->data->device_name == NULL && graph->data->device_size == NULL);

    memset(&info, 0, sizeof(info));
    WORKS(graphdriver_get_layer_fs_info(ID_C, &info) == 0);
    CHECK(info.image_filesystems_len == 1);
    CHECK(test_same(info.image_filesystems[0]->fs_id->mountpoint, graph->data->upper_dir));
    CHECK(info.image_filesystems[0]->inodes_used->value == (overlay ? 2 : 5));
    isula_storage_clear_imagetool_fs_info(&info);
    isula_storage_free_graph_driver(graph);
}

static void lowers_are_repaired(void)
{
    container_inspect_graph_driver *graph = NULL;
    char path[1024], *end;

    WORKS(graphdriver_try_repair_lowers(ID_C, ID_B) == 0);
    if (!overlay) {
        return;
    }
    CHECK((graph = graphdriver_get_metadata(ID_C)) != NULL);
    strcpy(path, graph->data->upper_dir);
    isula_storage_free_graph_driver(graph);
    end = strrchr(path, '/');
    strcpy(end, "/lower");
    CHECK(unlink(path) == 0);
    WORKS(graphdriver_try_repair_lowers(ID_C, ID_B) == 0);
    CHECK(access(path, F_OK) == 0);
    CHECK(unlink(path) == 0);
    FAILS(graphdriver_try_repair_lowers(ID_C, ID_ABSENT) == -1, EUCLEAN);
    WORKS(graphdriver_try_repair_lowers(ID_C, ID_B) == 0);
}

static const char *shown;
static char shown_text[256];

static void show(const char *message, void *userdata)
{
    (void)userdata;
    snprintf(shown_text, sizeof(shown_text), "%s", message);
    shown = shown_text;
}

/* Under the name that iSulad's daemon has: what the person who asked is shown. */
void isulad_set_error_message(const char *format, ...);
void isulad_set_error_message(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(shown_text, sizeof(shown_text), format, arguments);
    va_end(arguments);
    shown = shown_text;
}

static void sizes_are_refused(void)
{
    char size[] = "size", value[] = "10G";
    char *keys[] = { size }, *values[] = { value };
    json_map_string_string map;
    struct driver_create_opts opts = { NULL, &map };
    struct isula_storage_host host;

    memset(&host, 0, sizeof(host));
    host.size = sizeof(host);
    host.set_error_message = show;
    CHECK(isula_storage_set_host(&host) == 0);
    memset(&map, 0, sizeof(map));
    map.keys = keys;
    map.values = values;
    map.len = 1;
    FAILS(graphdriver_create_rw(ID_ABSENT, NULL, &opts) == -1, EOPNOTSUPP);
    if (overlay) {
        CHECK(strstr(shown, "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option") !=
              NULL);
    }
    FAILS(graphdriver_create_ro(ID_ABSENT, NULL, &opts) == -1, EINVAL);
    CHECK(!graphdriver_layer_exists(ID_ABSENT));
    host.set_error_message = NULL;
    CHECK(isula_storage_set_host(&host) == 0);

    /* The daemon is given the reference's text and nothing else; its own texts stay otherwise. */
    shown = NULL;
    FAILS(graphdriver_create_rw(ID_ABSENT, NULL, &opts) == -1, EOPNOTSUPP);
    CHECK(test_same(shown, overlay ? "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option"
                                   : NULL));
    shown = NULL;
    FAILS(graphdriver_create_ro(ID_ABSENT, NULL, &opts) == -1, EINVAL);
    FAILS(graphdriver_rm_layer("../x") == -1, EINVAL);
    CHECK(shown == NULL);
    /* The options are the caller's, and not added to. */
    CHECK(map.len == 1 && keys[0] == size);
}

/* Takes everything down, in the only order. */
static void layers_are_removed(void)
{
    char *root = NULL;

    WORKS((root = graphdriver_mount_layer(ID_C, NULL)) != NULL);
    WORKS(graphdriver_rm_layer(ID_C) == 0);
    CHECK(access(root, F_OK) == -1);
    free(root);
    WORKS(graphdriver_rm_layer(ID_B) == 0);
    WORKS(graphdriver_rm_layer(ID_A) == 0);
    WORKS(graphdriver_rm_layer(ID_A) == 0);
    CHECK(!graphdriver_layer_exists(ID_A));
}

static void a_driver_is_closed_and_opened(void)
{
    FAILS(graphdriver_init(&conf) == -1, EEXIST);
    WORKS(graphdriver_cleanup() == 0);
    FAILS(graphdriver_cleanup() == -1, ENODEV);
    FAILS(!graphdriver_layer_exists(ID_A), ENODEV);
    FAILS(graphdriver_get_status() == NULL, ENODEV);
    WORKS(graphdriver_init(&conf) == 0);
    WORKS(graphdriver_layer_exists(ID_A));
}

static int store_create(const char *id, char *parent, bool writable)
{
    struct layer_opts opts;

    memset(&opts, 0, sizeof(opts));
    opts.parent = parent;
    opts.writable = writable;
    return layer_store_create(id, &opts, NULL, NULL);
}

/* What the layer store has a record of is its own; `alone`: the store is closed, and its records are on the disk. */
static void layers_with_a_record_are_left_alone(bool alone)
{
    char *root = NULL;

    FAILS(graphdriver_create_rw(ID_C, NULL, no_opts()) == -1, EEXIST);
    FAILS(graphdriver_rm_layer(ID_C) == -1, EBUSY);
    FAILS(graphdriver_rm_layer(ID_A) == -1, EBUSY);
    FAILS(apply(ID_C, &base) == -1, EBUSY);
    WORKS(graphdriver_layer_exists(ID_C));
    WORKS((root = graphdriver_mount_layer(ID_C, NULL)) != NULL);
    make_file(root, alone ? "one" : "two");
    WORKS(graphdriver_umount_layer(ID_C) == 0);
    free(root);
}

static void the_driver_of_a_layer_store(void)
{
    char parent[] = ID_A, *root = NULL;

    WORKS(layer_store_init(&conf) == 0);
    FAILS(graphdriver_init(&conf) == -1, EEXIST);
    FAILS(graphdriver_cleanup() == -1, EBUSY);
    WORKS(store_create(ID_A, NULL, false) == 0);
    WORKS(store_create(ID_C, parent, true) == 0);
    layers_with_a_record_are_left_alone(false);

    /* A layer without a record stands on one that has one, which can then not be deleted. */
    WORKS(graphdriver_create_rw(ID_B, ID_A, no_opts()) == 0);
    WORKS(layer_store_delete(ID_C) == 0);
    FAILS(layer_store_delete(ID_A) == -1, EBUSY);
    WORKS(graphdriver_rm_layer(ID_B) == 0);
    WORKS(store_create(ID_C, parent, true) == 0);
    layer_store_exit();
    FAILS(!graphdriver_layer_exists(ID_C), ENODEV);

    WORKS(graphdriver_init(&conf) == 0);
    layers_with_a_record_are_left_alone(true);
    WORKS(graphdriver_cleanup() == 0);

    WORKS(layer_store_init(&conf) == 0);
    WORKS((root = layer_store_mount(ID_C)) != NULL);
    CHECK(is_file(root, "one"));
    WORKS(layer_store_umount(ID_C, true) == 0);
    free(root);
    WORKS(layer_store_delete(ID_C) == 0);
    WORKS(layer_store_delete(ID_A) == 0);
    layer_store_exit();
}

static void options_are_freed(void)
{
    struct driver_mount_opts *opts = calloc(1, sizeof(*opts));

    opts->mount_label = strdup("x");
    opts->options = calloc(2, sizeof(char *));
    opts->options[0] = strdup("ro");
    opts->options[1] = strdup("noatime");
    opts->options_len = 2;
    free_graphdriver_mount_opts(opts);
    free_graphdriver_mount_opts(calloc(1, sizeof(*opts)));
}

int main(int argc, char **argv)
{
    char skip[] = "overlay2.skip_mount_home=true";
    char *options[] = { skip };

    if (argc != 4) {
        fprintf(stderr, "usage: %s ROOT RUN_ROOT DRIVER\n", argv[0]);
        return 2;
    }
    conf.storage_root = argv[1];
    conf.driver_name = argv[3];
    overlay = strncmp(argv[3], "overlay", 7) == 0;

    archive_add(&base, "etc/", NULL);
    archive_add(&base, "etc/motd", "hi\n");
    archive_add(&base, "etc/issue", "hello\n");
    archive_end(&base);
    archive_add(&top, "etc/hostname", "top\n");
    archive_add(&top, "etc/.wh.issue", "");
    archive_end(&top);

    /* Without the mount of the home on itself the clean-up succeeds just the same. */
    for (int round = 0; round < 2; round++) {
        conf.driver_opts = overlay && round == 1 ? options : NULL;
        conf.driver_opts_len = overlay && round == 1 ? 1 : 0;
        WORKS(graphdriver_init(&conf) == 0);
        unknown_layers();
        layers_are_made_and_filled();
        what_is_there_stays();
        mounts_take_options();
        facts(argv[3]);
        lowers_are_repaired();
        sizes_are_refused();
        a_driver_is_closed_and_opened();
        layers_are_removed();
        WORKS(graphdriver_cleanup() == 0);
    }
    conf.storage_run_root = argv[2];
    the_driver_of_a_layer_store();
    options_are_freed();
    return DONE();
}
