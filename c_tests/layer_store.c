/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The layer store from C: each function's results, what it fills, what is found again after a restart. */

#include "archive.h"
#include "test.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#define DIGEST(id) "sha256:" id

/* Digests of the two archives below, as sha256sum prints them. */
#define BASE_DIGEST "sha256:03f4dc3b3211444ea7cc0fb233b38f983511381f37b6baa5f8fd53c556bbb84d"
#define TOP_DIGEST "sha256:601f8a97382256a29b299d4bffc90ea66022cab5970b027115f4cc8412381b48"

static struct archive base, top;
static struct storage_module_init_options conf;

/* Makes a layer of an archive, as most tests do: `step` bytes at a time. */
static int create(const char *id, const char *parent, const char *name, const char *digest, bool writable,
                  const struct archive *archive, size_t step, char **new_id)
{
    /* Options are borrowed and not changed; their members are not const in iSulad's header. */
    char parent_copy[80], name_copy[80], digest_copy[80];
    char *names[] = { name_copy };
    struct layer_opts opts;
    struct memory_stream stream = { NULL, 0, step, 0, 0, 0 };
    struct io_read_wrapper content = { &stream, memory_read, memory_close, 0 };
    int result;

    memset(&opts, 0, sizeof(opts));
    if (parent != NULL) {
        opts.parent = strcpy(parent_copy, parent);
    }
    if (name != NULL) {
        strcpy(name_copy, name);
        opts.names = names;
        opts.names_len = 1;
    }
    if (digest != NULL) {
        opts.compressed_digest = strcpy(digest_copy, digest);
        opts.uncompressed_digest = digest_copy;
    }
    opts.writable = writable;
    if (archive != NULL) {
        stream.bytes = archive->bytes;
        stream.len = archive->len;
    }
    result = layer_store_create(id, &opts, archive == NULL ? NULL : &content, new_id);
    CHECK(stream.closed == 0);
    return result;
}

static int holds(const char *id)
{
    int count = -77;

    CHECK(layer_get_hold_refs(id, &count) == 0);
    return count;
}

static void layers_are_made_once(void)
{
    char untouched = 'x', *new_id = NULL;
    struct memory_stream stream = { base.bytes, base.len, 0, 0, 0, 0 };
    struct io_read_wrapper content = { &stream, memory_read, memory_close, 0 };
    struct layer_opts opts;

    WORKS(create(ID_A, NULL, "first", BASE_DIGEST, false, &base, 7, &new_id) == 0);
    CHECK(test_same(new_id, ID_A));
    free(new_id);
    CHECK(holds(ID_A) == 1);

    /* It exists: a reference more, nothing is read, nothing is written. */
    memset(&opts, 0, sizeof(opts));
    new_id = &untouched;
    WORKS(layer_store_create(ID_A, &opts, &content, &new_id) == 0);
    CHECK(new_id == &untouched);
    CHECK(stream.position == 0);
    CHECK(holds(ID_A) == 2);

    WORKS(create(ID_B, ID_A, NULL, TOP_DIGEST, false, &top, 0, NULL) == 0);
    WORKS(create(ID_C, ID_B, NULL, NULL, true, NULL, 0, NULL) == 0);

    /* A name belongs to one layer. */
    FAILS(create(ID_ABSENT, NULL, "first", NULL, false, &base, 0, &new_id) == -1, EEXIST);
    FAILS(create(ID_ABSENT, ID_ABSENT, NULL, NULL, false, &base, 0, &new_id) == -1, ENOENT);
    CHECK(new_id == &untouched);
    CHECK(!layer_store_exists(ID_ABSENT));
}

static ssize_t read_too_much(void *context, void *buf, size_t len)
{
    (void)context;
    memset(buf, 'x', len);
    return (ssize_t)len + 1;
}

static ssize_t read_fails(void *context, void *buf, size_t len)
{
    (void)context;
    (void)buf;
    (void)len;
    errno = ENETDOWN;
    return -1;
}

static int create_from(ssize_t (*read)(void *, void *, size_t), struct memory_stream *stream, char *digest)
{
    struct io_read_wrapper content = { stream, read, NULL, 0 };
    struct layer_opts opts;
    char *new_id = NULL;
    int result;

    memset(&opts, 0, sizeof(opts));
    opts.uncompressed_digest = digest;
    result = layer_store_create(ID_ABSENT, &opts, &content, &new_id);
    CHECK(new_id == NULL);
    errno = result == 0 ? 0 : errno;
    return result;
}

static void bad_streams_leave_nothing(void)
{
    struct memory_stream truncated = { base.bytes, ARCHIVE_BLOCK + 100, 0, 0, 0, 0 };
    struct memory_stream failing = { base.bytes, base.len, 100, 600, 0, 0 };
    struct memory_stream noise = { "this is not an archive, whatever one may say about it", 50, 0, 0, 0, 0 };
    struct memory_stream whole = { base.bytes, base.len, 0, 0, 0, 0 };
    char wrong[] = DIGEST(ID_A);

    FAILS(create_from(memory_read, &truncated, NULL) == -1, EBADMSG);
    FAILS(create_from(memory_read, &failing, NULL) == -1, EIO);
    FAILS(create_from(memory_read, &noise, NULL) == -1, EBADMSG);
    FAILS(create_from(memory_read, &whole, wrong) == -1, EBADMSG);
    FAILS(create_from(read_too_much, NULL, NULL) == -1, EIO);
    FAILS(create_from(read_fails, NULL, NULL) == -1, ENETDOWN);
    WORKS(!layer_store_exists(ID_ABSENT));
    WORKS(layer_store_delete(ID_ABSENT) == 0);
}

/* Reads from memory, and calls the library as it does. */
static ssize_t read_and_call(void *context, void *buf, size_t len)
{
    struct layer_list list;
    struct memory_stream *stream = context;

    if (stream->position == 0) {
        CHECK(layer_store_exists(ID_A) && !layer_store_exists(ID_ABSENT));
        CHECK(layer_store_list(&list) == 0);
        isula_storage_clear_layer_list(&list);
        CHECK(create("inner", NULL, NULL, NULL, false, &base, 0, NULL) == 0);
        CHECK(layer_store_delete("inner") == 0);
    }
    return memory_read(context, buf, len);
}

static void callbacks_may_call_the_library(void)
{
    struct memory_stream stream = { base.bytes, base.len, 0, 0, 0, 0 };
    struct io_read_wrapper content = { &stream, read_and_call, memory_close, 0 };
    struct layer_opts opts;

    memset(&opts, 0, sizeof(opts));
    WORKS(layer_store_create("outer", &opts, &content, NULL) == 0);
    WORKS(layer_store_delete("outer") == 0);
}

/* Another process, started with the same directories. */
static void another_process_is_refused(char **argv)
{
    char probe[] = "probe";
    char *arguments[] = { argv[0], argv[1], argv[2], argv[3], probe, NULL };
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        execv(argv[0], arguments);
        _exit(127);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS);
    WORKS(layer_store_exists(ID_A));
}

static int probe(void)
{
    char owner[64];

    snprintf(owner, sizeof(owner), "in use by pid %ld", (long)getppid());
    FAILS(layer_store_init(&conf) == -1, EBUSY);
    CHECK(strstr(isula_storage_last_error(), owner) != NULL);
    FAILS(layer_store_lookup(ID_A) == NULL, ENODEV);
    return DONE();
}

static void holds_are_counted_by_id(void)
{
    int count = 77;

    WORKS(layer_inc_hold_refs(ID_A) == 0);
    CHECK(holds(ID_A) == 3);
    for (int i = 0; i < 3; i++) {
        WORKS(layer_dec_hold_refs(ID_A) == 0);
    }
    CHECK(holds(ID_A) == 0);
    /* As in the reference, the count may become negative. */
    WORKS(layer_dec_hold_refs(ID_A) == 0);
    CHECK(holds(ID_A) == -1);
    WORKS(layer_inc_hold_refs(ID_A) == 0);
    FAILS(layer_inc_hold_refs("first") == -1, ENOENT);
    FAILS(layer_get_hold_refs(ID_ABSENT, &count) == -1, ENOENT);
    CHECK(count == 77);
}

static void layers_are_found(bool after_restart)
{
    struct layer_list list = { NULL, 0 };
    struct layer_list *malloced;
    struct layer *layer;

    WORKS(layer_store_exists(ID_A) && layer_store_exists("first"));
    WORKS(!layer_store_exists(ID_ABSENT));
    WORKS(!layer_store_exists("aaaa"));
    FAILS(layer_store_lookup("aaaa") == NULL, ENOENT);

    WORKS((layer = layer_store_lookup("first")) != NULL);
    CHECK(test_same(layer->id, ID_A) && layer->parent == NULL && !layer->writable);
    CHECK(test_same(layer->compressed_digest, BASE_DIGEST));
    CHECK(test_same(layer->uncompressed_digest, BASE_DIGEST));
    CHECK(layer->mount_count == 0);
    CHECK(layer->uncompress_size == 6 + 3);
    free_layer(layer);
    layer = layer_store_lookup(ID_B);
    CHECK(layer != NULL && test_same(layer->parent, ID_A));
    free_layer(layer);
    layer = layer_store_lookup(ID_C);
    CHECK(layer != NULL && test_same(layer->parent, ID_B) && layer->writable && layer->compressed_digest == NULL);
    free_layer(layer);

    WORKS(layer_store_list(&list) == 0);
    CHECK(list.layers_len == 3);
    CHECK(list.layers_len == 3 && test_same(list.layers[0]->id, ID_A) && test_same(list.layers[1]->id, ID_B)
          && test_same(list.layers[2]->id, ID_C));
    isula_storage_clear_layer_list(&list);
    CHECK(list.layers == NULL && list.layers_len == 0);

    WORKS(layer_store_by_compress_digest(BASE_DIGEST, &list) == 0);
    CHECK(list.layers_len == 1 && test_same(list.layers[0]->id, ID_A));
    isula_storage_clear_layer_list(&list);
    WORKS(layer_store_by_uncompress_digest(TOP_DIGEST, &list) == 0);
    CHECK(list.layers_len == 1 && test_same(list.layers[0]->id, ID_B));
    isula_storage_clear_layer_list(&list);
    FAILS(layer_store_by_compress_digest(BASE_DIGEST + strlen("sha256:"), &list) == -1, ENOENT);
    FAILS(layer_store_by_compress_digest(DIGEST(ID_B), &list) == -1, ENOENT);
    FAILS(layer_store_by_uncompress_digest(DIGEST(ID_B), &list) == -1, ENOENT);
    CHECK(list.layers == NULL);

    WORKS((malloced = storage_layers_get_by_compress_digest(BASE_DIGEST)) != NULL);
    CHECK(malloced != NULL && malloced->layers_len == 1 && test_same(malloced->layers[0]->id, ID_A));
    free_layer_list(malloced);
    FAILS(storage_layers_get_by_compress_digest(DIGEST(ID_B)) == NULL, ENOENT);

    if (after_restart) {
        CHECK(holds(ID_A) == 0 && holds(ID_B) == 0);
    }
}

/* Content of `dir/name`. */
static const char *content_of(const char *dir, const char *name)
{
    static char text[64];
    char path[4096];
    FILE *file;
    size_t len;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "r");
    if (file == NULL) {
        return NULL;
    }
    len = fread(text, 1, sizeof(text) - 1, file);
    text[len] = '\0';
    fclose(file);
    return text;
}

static int mount_count(const char *id)
{
    struct layer *layer = layer_store_lookup(id);
    int count = layer == NULL ? -1 : layer->mount_count;

    free_layer(layer);
    return count;
}

static void mounts_are_counted(void)
{
    char *first, *second;

    WORKS((first = layer_store_mount(ID_B)) != NULL);
    CHECK(test_same(content_of(first, "etc/hostname"), "top\n"));
    CHECK(test_same(content_of(first, "etc/motd"), "hi\n"));
    CHECK(content_of(first, "etc/issue") == NULL);
    CHECK(mount_count(ID_B) == 1);
    WORKS((second = layer_store_mount(ID_B)) != NULL);
    CHECK(test_same(first, second));
    CHECK(mount_count(ID_B) == 2);
    free(first);
    free(second);
    WORKS(layer_store_umount(ID_B, false) == 0);
    CHECK(mount_count(ID_B) == 1);
    WORKS((first = layer_store_mount(ID_B)) != NULL);
    WORKS(layer_store_umount(ID_B, true) == 0);
    CHECK(mount_count(ID_B) == 0);
    isula_storage_free_string(first);
    WORKS(layer_store_umount(ID_B, false) == 0);
    WORKS(layer_store_umount(ID_ABSENT, true) == 0);
    FAILS(layer_store_mount(ID_ABSENT) == NULL, ENOENT);
}

static void a_container_writes_to_its_layer(void)
{
    char *dir, path[4096];
    FILE *file;

    WORKS((dir = layer_store_mount(ID_C)) != NULL);
    snprintf(path, sizeof(path), "%s/new", dir);
    file = fopen(path, "w");
    CHECK(file != NULL);
    if (file != NULL) {
        fputs("written\n", file);
        fclose(file);
    }
    WORKS(layer_store_umount(ID_C, false) == 0);
    free(dir);
    WORKS((dir = layer_store_mount(ID_C)) != NULL);
    CHECK(test_same(content_of(dir, "new"), "written\n"));
    CHECK(test_same(content_of(dir, "etc/hostname"), "top\n"));
    free(dir);
    WORKS(layer_store_umount(ID_C, true) == 0);
    WORKS(layer_store_check(ID_C) == 0);
}

static void facts_about_layers(const char *driver)
{
    imagetool_fs_info info;
    container_inspect_graph_driver *graph;
    imagetool_fs_info_image_filesystems_element *element;
    bool overlay = strcmp(driver, "overlay") == 0;

    memset(&info, 0, sizeof(info));
    WORKS(layer_store_get_layer_fs_info(ID_ABSENT, &info) == 0);
    CHECK(info.image_filesystems == NULL && info.image_filesystems_len == 0);
    WORKS(layer_store_get_layer_fs_info(ID_A, &info) == 0);
    CHECK(info.image_filesystems_len == 1);
    if (info.image_filesystems_len == 1) {
        element = info.image_filesystems[0];
        CHECK(element->timestamp > 0);
        CHECK(element->fs_id->mountpoint != NULL && strstr(element->fs_id->mountpoint, ID_A) != NULL);
        CHECK(element->used_bytes->value >= 9);
        CHECK(element->inodes_used->value >= 3);
    }
    isula_storage_clear_imagetool_fs_info(&info);
    CHECK(info.image_filesystems == NULL);

    FAILS(layer_store_get_metadata_by_layer_id(ID_ABSENT) == NULL, ENOENT);
    WORKS((graph = layer_store_get_metadata_by_layer_id(ID_B)) != NULL);
    CHECK(test_same(graph->name, driver));
    CHECK(graph->data->merged_dir != NULL);
    CHECK(!overlay || (graph->data->upper_dir != NULL && graph->data->work_dir != NULL));
    CHECK(!overlay || (graph->data->lower_dir != NULL && strchr(graph->data->lower_dir, ':') == NULL));
    CHECK(graph->data->device_id == NULL && graph->data->device_name == NULL && graph->data->device_size == NULL);
    isula_storage_free_graph_driver(graph);

    WORKS(layer_store_try_repair_lowers(ID_A) == 0);
    WORKS(layer_store_try_repair_lowers(ID_B) == 0);
    FAILS(layer_store_try_repair_lowers(ID_ABSENT) == -1, ENOENT);
}

static void a_changed_file_is_noticed(const char *driver)
{
    container_inspect_graph_driver *graph = layer_store_get_metadata_by_layer_id(ID_A);
    char path[4096];
    int file;

    CHECK(graph != NULL);
    snprintf(path, sizeof(path), "%s/etc/motd",
             strcmp(driver, "overlay") == 0 ? graph->data->upper_dir : graph->data->merged_dir);
    isula_storage_free_graph_driver(graph);

    WORKS(layer_store_check(ID_A) == 0);
    WORKS(layer_store_check("first") == 0);
    file = open(path, O_WRONLY);
    CHECK(file >= 0 && pwrite(file, "H", 1, 0) == 1);
    WORKS(layer_store_check(ID_A) == 1);
    CHECK(pwrite(file, "h", 1, 0) == 1);
    WORKS(layer_store_check(ID_A) == 0);
    close(file);
    FAILS(layer_store_check(ID_ABSENT) == -1, ENOENT);
}

static void a_restart_forgets_nothing(void)
{
    FAILS(layer_store_init(&conf) == -1, EEXIST);
    WORKS((layer_store_exit(), true));
    FAILS(layer_store_lookup(ID_A) == NULL, ENODEV);
    WORKS((layer_store_exit(), true));
    WORKS((layer_store_cleanup(), true));
    WORKS(layer_store_init(&conf) == 0);
    layers_are_found(true);
}

static void layers_are_deleted_from_the_top(void)
{
    struct layer_list list = { NULL, 77 };

    FAILS(layer_store_delete(ID_A) == -1, EBUSY);
    FAILS(layer_store_delete("first") == -1, EBUSY);
    WORKS(layer_store_exists(ID_A));
    free(layer_store_mount(ID_C));
    WORKS(layer_store_delete(ID_C) == 0);
    WORKS(layer_inc_hold_refs(ID_B) == 0);
    WORKS(layer_store_delete(ID_B) == 0);
    WORKS(layer_store_delete("first") == 0);
    WORKS(layer_store_delete(ID_A) == 0);
    WORKS(!layer_store_exists(ID_A));
    WORKS(layer_store_list(&list) == 0);
    CHECK(list.layers != NULL && list.layers_len == 0);
    isula_storage_clear_layer_list(&list);
}

/* Structs that a caller makes with malloc, freed by the documented functions. */
static void callers_options_are_freed(void)
{
    struct layer_opts *opts = calloc(1, sizeof(*opts));
    struct layer_store_mount_opts *more = calloc(1, sizeof(*more));

    opts->parent = strdup(ID_A);
    opts->names = calloc(2, sizeof(char *));
    opts->names[0] = strdup("a");
    opts->names[1] = strdup("b");
    opts->names_len = 2;
    opts->uncompressed_digest = strdup("x");
    opts->compressed_digest = strdup("y");
    opts->opts = more;
    more->mount_label = strdup("z");
    more->mount_opts = calloc(1, sizeof(*more->mount_opts));
    more->mount_opts->keys = calloc(1, sizeof(char *));
    more->mount_opts->keys[0] = strdup("size");
    more->mount_opts->values = calloc(1, sizeof(char *));
    more->mount_opts->values[0] = strdup("1G");
    more->mount_opts->len = 1;
    free_layer_opts(opts);
    free_layer_store_mount_opts(calloc(1, sizeof(*more)));
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: %s ROOT RUN_ROOT DRIVER\n", argv[0]);
        return 2;
    }
    conf.storage_root = argv[1];
    conf.storage_run_root = argv[2];
    conf.driver_name = argv[3];
    if (argc == 5) {
        return probe();
    }

    archive_add(&base, "etc/", NULL);
    archive_add(&base, "etc/motd", "hi\n");
    archive_add(&base, "etc/issue", "hello\n");
    archive_end(&base);
    archive_add(&top, "etc/hostname", "top\n");
    archive_add(&top, "etc/.wh.issue", "");
    archive_end(&top);

    WORKS(layer_store_init(&conf) == 0);
    layers_are_made_once();
    bad_streams_leave_nothing();
    callbacks_may_call_the_library();
    another_process_is_refused(argv);
    holds_are_counted_by_id();
    layers_are_found(false);
    mounts_are_counted();
    a_container_writes_to_its_layer();
    facts_about_layers(argv[3]);
    a_changed_file_is_noticed(argv[3]);
    a_restart_forgets_nothing();
    layers_are_deleted_from_the_top();
    layer_store_exit();
    callers_options_are_freed();
    return DONE();
}
