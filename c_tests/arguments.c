/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * NULL and text that is not UTF-8 for every pointer argument of the flat functions. Arguments are looked at before the
 * store is: the answers are the same with and without one.
 */

#include "test.h"


static const struct layer_opts no_opts;

static void layer_init(void)
{
    char root[] = "/nonexistent", bad[] = NOT_UTF8, driver[] = "vfs", empty[] = "";
    char *options[] = { bad };
    struct storage_module_init_options conf;

    FAILS(layer_store_init(NULL) == -1, EINVAL);
    memset(&conf, 0, sizeof(conf));
    FAILS(layer_store_init(&conf) == -1, EINVAL);
    conf.storage_root = root;
    FAILS(layer_store_init(&conf) == -1, EINVAL);
    conf.storage_run_root = root;
    FAILS(layer_store_init(&conf) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "layer_store_init: conf->driver_name is NULL"));
    conf.driver_name = bad;
    FAILS(layer_store_init(&conf) == -1, EILSEQ);
    conf.driver_name = driver;
    conf.driver_opts = options;
    conf.driver_opts_len = 1;
    FAILS(layer_store_init(&conf) == -1, EILSEQ);
    options[0] = NULL;
    FAILS(layer_store_init(&conf) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "layer_store_init: conf->driver_opts[0] is NULL"));
    conf.driver_opts = NULL;
    FAILS(layer_store_init(&conf) == -1, EINVAL);
    conf.driver_opts_len = 0;
    conf.storage_root = bad;
    FAILS(layer_store_init(&conf) == -1, EILSEQ);
    conf.storage_root = root;
    conf.storage_run_root = bad;
    FAILS(layer_store_init(&conf) == -1, EILSEQ);
    /* The working directory is not meant. */
    conf.storage_run_root = empty;
    FAILS(layer_store_init(&conf) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "layer_store_init: conf->storage_run_root is empty"));
    conf.storage_run_root = root;
    conf.storage_root = empty;
    FAILS(layer_store_init(&conf) == -1, EINVAL);
}

static void layer_create(void)
{
    char bad[] = NOT_UTF8;
    char *bad_texts[] = { bad }, *null_texts[] = { NULL };
    char untouched = 'x', *new_id = &untouched;
    struct io_read_wrapper stream;
    struct layer_opts opts = no_opts;
    struct layer_store_mount_opts more;
    json_map_string_string map;

    FAILS(layer_store_create(NULL, &no_opts, NULL, &new_id) == -1, EINVAL);
    FAILS(layer_store_create(NOT_UTF8, &no_opts, NULL, &new_id) == -1, EILSEQ);
    FAILS(layer_store_create(ID_A, NULL, NULL, &new_id) == -1, EINVAL);
    memset(&stream, 0, sizeof(stream));
    FAILS(layer_store_create(ID_A, &no_opts, &stream, &new_id) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "layer_store_create: content->read is NULL"));

    static const char *const bad_ids[] = { "", ".", "..", "../x", "a/b", ".hidden" };
    for (size_t i = 0; i < sizeof(bad_ids) / sizeof(bad_ids[0]); i++) {
        FAILS(layer_store_create(bad_ids[i], &no_opts, NULL, &new_id) == -1, EINVAL);
    }

    opts.parent = bad;
    FAILS(layer_store_create(ID_A, &opts, NULL, &new_id) == -1, EILSEQ);
    opts = no_opts;
    opts.names_len = 1;
    FAILS(layer_store_create(ID_A, &opts, NULL, &new_id) == -1, EINVAL);
    opts.names = null_texts;
    FAILS(layer_store_create(ID_A, &opts, NULL, &new_id) == -1, EINVAL);
    opts.names = bad_texts;
    FAILS(layer_store_create(ID_A, &opts, NULL, &new_id) == -1, EILSEQ);
    opts = no_opts;
    opts.uncompressed_digest = bad;
    FAILS(layer_store_create(ID_A, &opts, NULL, &new_id) == -1, EILSEQ);
    opts = no_opts;
    opts.compressed_digest = bad;
    FAILS(layer_store_create(ID_A, &opts, NULL, &new_id) == -1, EILSEQ);

    opts = no_opts;
    opts.opts = &more;
    memset(&more, 0, sizeof(more));
    more.mount_label = bad;
    FAILS(layer_store_create(ID_A, &opts, NULL, &new_id) == -1, EILSEQ);
    more.mount_label = NULL;
    more.mount_opts = &map;
    map.len = 1;
    map.keys = NULL;
    map.values = bad_texts;
    FAILS(layer_store_create(ID_A, &opts, NULL, &new_id) == -1, EINVAL);
    map.keys = bad_texts;
    FAILS(layer_store_create(ID_A, &opts, NULL, &new_id) == -1, EILSEQ);
    CHECK(new_id == &untouched);
}

static ssize_t discard(void *context, const void *data, size_t len)
{
    (void)context;
    (void)data;
    return (ssize_t)len;
}

static const struct io_write_wrapper discarding = { NULL, discard, NULL, 0 };

static void layers_as_archives(void)
{
    static const struct io_write_wrapper nothing;
    struct isula_storage_layer_changes_list changes = { NULL, 77 };
    int64_t bytes = 77;
    uint64_t limit = 77;

    FAILS(isula_storage_layer_limit(NULL, &limit) == -1, EINVAL);
    FAILS(isula_storage_layer_limit(NOT_UTF8, &limit) == -1, EILSEQ);
    FAILS(isula_storage_layer_limit("../x", &limit) == -1, EINVAL);
    FAILS(isula_storage_layer_limit(ID_A, NULL) == -1, EINVAL);
    FAILS(isula_storage_layer_export(NULL, &discarding) == -1, EINVAL);
    FAILS(isula_storage_layer_export(NOT_UTF8, &discarding) == -1, EILSEQ);
    FAILS(isula_storage_layer_export(ID_A, NULL) == -1, EINVAL);
    FAILS(isula_storage_layer_export(ID_A, &nothing) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "isula_storage_layer_export: writer->write_func is NULL"));
    FAILS(isula_storage_layer_diff(NULL, NULL, &discarding) == -1, EINVAL);
    FAILS(isula_storage_layer_diff(NOT_UTF8, NULL, &discarding) == -1, EILSEQ);
    FAILS(isula_storage_layer_diff(ID_A, NOT_UTF8, &discarding) == -1, EILSEQ);
    FAILS(isula_storage_layer_diff(ID_A, NULL, NULL) == -1, EINVAL);
    FAILS(isula_storage_layer_diff(ID_A, NULL, &nothing) == -1, EINVAL);
    FAILS(isula_storage_layer_changes(NULL, NULL, &changes) == -1, EINVAL);
    FAILS(isula_storage_layer_changes(NOT_UTF8, NULL, &changes) == -1, EILSEQ);
    FAILS(isula_storage_layer_changes(ID_A, NOT_UTF8, &changes) == -1, EILSEQ);
    FAILS(isula_storage_layer_changes(ID_A, NULL, NULL) == -1, EINVAL);
    FAILS(isula_storage_layer_diff_size(NULL, NULL, &bytes) == -1, EINVAL);
    FAILS(isula_storage_layer_diff_size(NOT_UTF8, NULL, &bytes) == -1, EILSEQ);
    FAILS(isula_storage_layer_diff_size(ID_A, NOT_UTF8, &bytes) == -1, EILSEQ);
    FAILS(isula_storage_layer_diff_size(ID_A, NULL, NULL) == -1, EINVAL);
    CHECK(changes.changes == NULL && changes.changes_len == 77 && bytes == 77 && limit == 77);
}

static void layers(void)
{
    int count = 77;
    struct layer_list list = { NULL, 77 };
    imagetool_fs_info info;

    memset(&info, 0x55, sizeof(info));
    FAILS(layer_inc_hold_refs(NULL) == -1, EINVAL);
    FAILS(layer_inc_hold_refs(NOT_UTF8) == -1, EILSEQ);
    FAILS(layer_dec_hold_refs(NULL) == -1, EINVAL);
    FAILS(layer_dec_hold_refs(NOT_UTF8) == -1, EILSEQ);
    FAILS(layer_get_hold_refs(NULL, &count) == -1, EINVAL);
    FAILS(layer_get_hold_refs(NOT_UTF8, &count) == -1, EILSEQ);
    FAILS(layer_get_hold_refs(ID_A, NULL) == -1, EINVAL);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    FAILS(layer_store_delete(NOT_UTF8) == -1, EILSEQ);
    FAILS(!layer_store_exists(NULL), EINVAL);
    FAILS(!layer_store_exists(NOT_UTF8), EILSEQ);
    FAILS(layer_store_list(NULL) == -1, EINVAL);
    FAILS(layer_store_by_compress_digest(NULL, &list) == -1, EINVAL);
    FAILS(layer_store_by_compress_digest(NOT_UTF8, &list) == -1, EILSEQ);
    FAILS(layer_store_by_compress_digest("sha256:" ID_A, NULL) == -1, EINVAL);
    FAILS(layer_store_by_uncompress_digest(NULL, &list) == -1, EINVAL);
    FAILS(layer_store_by_uncompress_digest(NOT_UTF8, &list) == -1, EILSEQ);
    FAILS(layer_store_by_uncompress_digest("sha256:" ID_A, NULL) == -1, EINVAL);
    FAILS(storage_layers_get_by_compress_digest(NULL) == NULL, EINVAL);
    FAILS(storage_layers_get_by_compress_digest(NOT_UTF8) == NULL, EILSEQ);
    FAILS(layer_store_lookup(NULL) == NULL, EINVAL);
    FAILS(layer_store_lookup(NOT_UTF8) == NULL, EILSEQ);
    FAILS(layer_store_mount(NULL) == NULL, EINVAL);
    FAILS(layer_store_mount(NOT_UTF8) == NULL, EILSEQ);
    WORKS(layer_store_umount(NULL, false) == 0);
    FAILS(layer_store_umount(NOT_UTF8, false) == -1, EILSEQ);
    FAILS(layer_store_try_repair_lowers(NULL) == -1, EINVAL);
    FAILS(layer_store_try_repair_lowers(NOT_UTF8) == -1, EILSEQ);
    FAILS(layer_store_get_layer_fs_info(NULL, &info) == -1, EINVAL);
    FAILS(layer_store_get_layer_fs_info(NOT_UTF8, &info) == -1, EILSEQ);
    FAILS(layer_store_get_layer_fs_info(ID_A, NULL) == -1, EINVAL);
    FAILS(layer_store_get_metadata_by_layer_id(NULL) == NULL, EINVAL);
    FAILS(layer_store_get_metadata_by_layer_id(NOT_UTF8) == NULL, EILSEQ);
    FAILS(layer_store_check(NULL) == -1, EINVAL);
    FAILS(layer_store_check(NOT_UTF8) == -1, EILSEQ);
    layers_as_archives();
    CHECK(count == 77);
    CHECK(list.layers == NULL && list.layers_len == 77);
    for (size_t i = 0; i < sizeof(info); i++) {
        CHECK(((const char *)&info)[i] == 0x55);
    }
    WORKS((remove_layer_list_tail(), true));
}

static void image_init(void)
{
    char root[] = "/nonexistent", bad[] = NOT_UTF8, driver[] = "overlay", empty[] = "";
    struct storage_module_init_options opts;

    FAILS(image_store_init(NULL) == -1, EINVAL);
    /* Only two members are read. */
    memset(&opts, 0x55, sizeof(opts));
    opts.storage_root = NULL;
    opts.driver_name = driver;
    FAILS(image_store_init(&opts) == -1, EINVAL);
    opts.storage_root = bad;
    FAILS(image_store_init(&opts) == -1, EILSEQ);
    opts.storage_root = empty;
    FAILS(image_store_init(&opts) == -1, EINVAL);
    opts.storage_root = root;
    opts.driver_name = NULL;
    FAILS(image_store_init(&opts) == -1, EINVAL);
    opts.driver_name = bad;
    FAILS(image_store_init(&opts) == -1, EILSEQ);
}

static void image_create(void)
{
    const char *names[] = { "a:1", NULL }, *bad_names[] = { NOT_UTF8 };
    types_timestamp_t time = { false, 0, true, 5 };

    FAILS(image_store_create(NOT_UTF8, NULL, 0, NULL, NULL, NULL, NULL) == NULL, EILSEQ);
    FAILS(image_store_create("../x", NULL, 0, NULL, NULL, NULL, NULL) == NULL, EINVAL);
    FAILS(image_store_create("", NULL, 0, NULL, NULL, NULL, NULL) == NULL, EINVAL);
    FAILS(image_store_create(ID_A, NULL, 1, NULL, NULL, NULL, NULL) == NULL, EINVAL);
    FAILS(image_store_create(ID_A, names, 2, NULL, NULL, NULL, NULL) == NULL, EINVAL);
    FAILS(image_store_create(ID_A, bad_names, 1, NULL, NULL, NULL, NULL) == NULL, EILSEQ);
    FAILS(image_store_create(ID_A, NULL, 0, NOT_UTF8, NULL, NULL, NULL) == NULL, EILSEQ);
    FAILS(image_store_create(ID_A, NULL, 0, NULL, NOT_UTF8, NULL, NULL) == NULL, EILSEQ);
    FAILS(image_store_create(ID_A, NULL, 0, NULL, NULL, NULL, NOT_UTF8) == NULL, EILSEQ);
    FAILS(image_store_create(ID_A, NULL, 0, NULL, NULL, &time, NULL) == NULL, EINVAL);
    time.has_seconds = true;
    time.nanos = 1000000000;
    FAILS(image_store_create(ID_A, NULL, 0, NULL, NULL, &time, NULL) == NULL, EINVAL);
    time.nanos = -1;
    FAILS(image_store_create(ID_A, NULL, 0, NULL, NULL, &time, NULL) == NULL, EINVAL);
}

static void images(void)
{
    const char *names[] = { "a:1" }, *null_names[] = { NULL }, *bad_names[] = { NOT_UTF8 };
    types_timestamp_t time = { false, 0, false, 0 };
    char untouched = 'x', *pointer = &untouched, **texts = &pointer;
    size_t len = 77;

    FAILS(image_store_lookup(NULL) == NULL, EINVAL);
    FAILS(image_store_lookup(NOT_UTF8) == NULL, EILSEQ);
    FAILS(!image_store_exists(NULL), EINVAL);
    FAILS(!image_store_exists(NOT_UTF8), EILSEQ);
    FAILS(image_store_delete(NULL) == -1, EINVAL);
    FAILS(image_store_delete(NOT_UTF8) == -1, EILSEQ);
    FAILS(image_store_set_big_data(NULL, "k", "d") == -1, EINVAL);
    FAILS(image_store_set_big_data(NOT_UTF8, "k", "d") == -1, EILSEQ);
    FAILS(image_store_set_big_data(ID_A, NULL, "d") == -1, EINVAL);
    FAILS(image_store_set_big_data(ID_A, NOT_UTF8, "d") == -1, EILSEQ);
    FAILS(image_store_set_big_data(ID_A, "k", NULL) == -1, EINVAL);
    FAILS(image_store_big_data(NULL, "k") == NULL, EINVAL);
    FAILS(image_store_big_data(NOT_UTF8, "k") == NULL, EILSEQ);
    FAILS(image_store_big_data(ID_A, NULL) == NULL, EINVAL);
    FAILS(image_store_big_data(ID_A, NOT_UTF8) == NULL, EILSEQ);
    FAILS(image_store_big_data_size(NULL, "k") == -1, EINVAL);
    FAILS(image_store_big_data_size(NOT_UTF8, "k") == -1, EILSEQ);
    FAILS(image_store_big_data_size(ID_A, NULL) == -1, EINVAL);
    FAILS(image_store_big_data_size(ID_A, NOT_UTF8) == -1, EILSEQ);
    FAILS(image_store_big_data_digest(NULL, "k") == NULL, EINVAL);
    FAILS(image_store_big_data_digest(NOT_UTF8, "k") == NULL, EILSEQ);
    FAILS(image_store_big_data_digest(ID_A, NULL) == NULL, EINVAL);
    FAILS(image_store_big_data_digest(ID_A, NOT_UTF8) == NULL, EILSEQ);
    FAILS(image_store_big_data_names(NULL, &texts, &len) == -1, EINVAL);
    FAILS(image_store_big_data_names(NOT_UTF8, &texts, &len) == -1, EILSEQ);
    FAILS(image_store_big_data_names(ID_A, NULL, &len) == -1, EINVAL);
    FAILS(image_store_big_data_names(ID_A, &texts, NULL) == -1, EINVAL);
    FAILS(image_store_get_names(NULL, &texts, &len) == -1, EINVAL);
    FAILS(image_store_get_names(NOT_UTF8, &texts, &len) == -1, EILSEQ);
    FAILS(image_store_get_names(ID_A, NULL, &len) == -1, EINVAL);
    FAILS(image_store_get_names(ID_A, &texts, NULL) == -1, EINVAL);
    FAILS(image_store_add_name(NULL, "a:1") == -1, EINVAL);
    FAILS(image_store_add_name(NOT_UTF8, "a:1") == -1, EILSEQ);
    FAILS(image_store_add_name(ID_A, NULL) == -1, EINVAL);
    FAILS(image_store_add_name(ID_A, NOT_UTF8) == -1, EILSEQ);
    FAILS(image_store_set_names(NULL, names, 1) == -1, EINVAL);
    FAILS(image_store_set_names(NOT_UTF8, names, 1) == -1, EILSEQ);
    FAILS(image_store_set_names(ID_A, NULL, 1) == -1, EINVAL);
    FAILS(image_store_set_names(ID_A, names, 0) == -1, EINVAL);
    FAILS(image_store_set_names(ID_A, null_names, 1) == -1, EINVAL);
    FAILS(image_store_set_names(ID_A, bad_names, 1) == -1, EILSEQ);
    FAILS(image_store_set_metadata(NULL, "m") == -1, EINVAL);
    FAILS(image_store_set_metadata(NOT_UTF8, "m") == -1, EILSEQ);
    FAILS(image_store_set_metadata(ID_A, NULL) == -1, EINVAL);
    FAILS(image_store_set_metadata(ID_A, NOT_UTF8) == -1, EILSEQ);
    FAILS(image_store_metadata(NULL) == NULL, EINVAL);
    FAILS(image_store_metadata(NOT_UTF8) == NULL, EILSEQ);
    FAILS(image_store_set_load_time(ID_A, NULL) == -1, EINVAL);
    FAILS(image_store_set_load_time(ID_A, &time) == -1, EINVAL);
    time.has_seconds = true;
    FAILS(image_store_set_load_time(NULL, &time) == -1, EINVAL);
    FAILS(image_store_set_load_time(NOT_UTF8, &time) == -1, EILSEQ);
    FAILS(image_store_set_image_size(NULL, 1) == -1, EINVAL);
    FAILS(image_store_set_image_size(NOT_UTF8, 1) == -1, EILSEQ);
    FAILS(image_store_top_layer(NULL) == NULL, EINVAL);
    FAILS(image_store_top_layer(NOT_UTF8) == NULL, EILSEQ);
    FAILS(image_store_get_image(NULL) == NULL, EINVAL);
    FAILS(image_store_get_image(NOT_UTF8) == NULL, EILSEQ);
    FAILS(image_store_get_image_summary(NULL) == NULL, EINVAL);
    FAILS(image_store_get_image_summary(NOT_UTF8) == NULL, EILSEQ);
    FAILS(image_store_get_all_images(NULL) == -1, EINVAL);
    FAILS(image_store_get_fs_info(NULL) == -1, EINVAL);
    CHECK(texts == &pointer && pointer == &untouched && len == 77);
}

static void rootfs_init(void)
{
    char root[] = "/nonexistent", bad[] = NOT_UTF8, driver[] = "overlay", empty[] = "";
    struct storage_module_init_options opts;

    FAILS(rootfs_store_init(NULL) == -1, EINVAL);
    /* Only two members are read. */
    memset(&opts, 0x55, sizeof(opts));
    opts.storage_root = NULL;
    opts.driver_name = driver;
    FAILS(rootfs_store_init(&opts) == -1, EINVAL);
    opts.storage_root = bad;
    FAILS(rootfs_store_init(&opts) == -1, EILSEQ);
    opts.storage_root = empty;
    FAILS(rootfs_store_init(&opts) == -1, EINVAL);
    opts.storage_root = root;
    opts.driver_name = NULL;
    FAILS(rootfs_store_init(&opts) == -1, EINVAL);
    opts.driver_name = bad;
    FAILS(rootfs_store_init(&opts) == -1, EILSEQ);
}

static void rootfs(void)
{
    const char *names[] = { "a", NULL }, *bad_names[] = { NOT_UTF8 };
    char id[] = ID_A, bad[] = NOT_UTF8, outside[] = "../x";
    char *text = NULL;
    struct storage_rootfs_options opts;
    storage_rootfs record;
    storage_rootfs_uidmap_element *uids[] = { NULL };
    storage_rootfs_gidmap_element *gids[] = { NULL };
    cntrootfs_t counted = { NULL, 1 };

    FAILS(rootfs_store_create(NOT_UTF8, NULL, 0, NULL, ID_A, NULL, NULL) == NULL, EILSEQ);
    FAILS(rootfs_store_create("../x", NULL, 0, NULL, ID_A, NULL, NULL) == NULL, EINVAL);
    FAILS(rootfs_store_create("", NULL, 0, NULL, ID_A, NULL, NULL) == NULL, EINVAL);
    FAILS(rootfs_store_create(ID_A, NULL, 1, NULL, ID_A, NULL, NULL) == NULL, EINVAL);
    FAILS(rootfs_store_create(ID_A, names, 2, NULL, ID_A, NULL, NULL) == NULL, EINVAL);
    FAILS(rootfs_store_create(ID_A, bad_names, 1, NULL, ID_A, NULL, NULL) == NULL, EILSEQ);
    FAILS(rootfs_store_create(ID_A, NULL, 0, NOT_UTF8, ID_A, NULL, NULL) == NULL, EILSEQ);
    FAILS(rootfs_store_create(ID_A, NULL, 0, NULL, NULL, NULL, NULL) == NULL, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "rootfs_store_create: layer is NULL"));
    FAILS(rootfs_store_create(ID_A, NULL, 0, NULL, NOT_UTF8, NULL, NULL) == NULL, EILSEQ);
    FAILS(rootfs_store_create(ID_A, NULL, 0, NULL, ID_A, NOT_UTF8, NULL) == NULL, EILSEQ);
    memset(&opts, 0, sizeof(opts));
    opts.id_mapping_opts.uid_map_len = 1;
    FAILS(rootfs_store_create(ID_A, NULL, 0, NULL, ID_A, NULL, &opts) == NULL, EINVAL);
    opts.id_mapping_opts.uid_map_len = 0;
    opts.id_mapping_opts.gid_map_len = 1;
    FAILS(rootfs_store_create(ID_A, NULL, 0, NULL, ID_A, NULL, &opts) == NULL, EINVAL);

    FAILS((text = rootfs_store_lookup(NULL)) == NULL, EINVAL);
    FAILS((text = rootfs_store_lookup(NOT_UTF8)) == NULL, EILSEQ);
    FAILS(rootfs_store_delete(NULL) == -1, EINVAL);
    FAILS(rootfs_store_delete(NOT_UTF8) == -1, EILSEQ);
    FAILS(rootfs_store_set_metadata(NULL, "m") == -1, EINVAL);
    FAILS(rootfs_store_set_metadata(NOT_UTF8, "m") == -1, EILSEQ);
    FAILS(rootfs_store_set_metadata(ID_A, NULL) == -1, EINVAL);
    FAILS(rootfs_store_set_metadata(ID_A, NOT_UTF8) == -1, EILSEQ);
    FAILS(!rootfs_store_exists(NULL), EINVAL);
    FAILS(!rootfs_store_exists(NOT_UTF8), EILSEQ);
    FAILS(rootfs_store_get_rootfs(NULL) == NULL, EINVAL);
    FAILS(rootfs_store_get_rootfs(NOT_UTF8) == NULL, EILSEQ);
    FAILS(rootfs_store_get_all_rootfs(NULL) == -1, EINVAL);

    FAILS(rootfs_store_save(NULL) == -1, EINVAL);
    FAILS(rootfs_store_save(&counted) == -1, EINVAL);
    memset(&record, 0, sizeof(record));
    counted.srootfs = &record;
    FAILS(rootfs_store_save(&counted) == -1, EINVAL);
    record.id = id;
    FAILS(rootfs_store_save(&counted) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "rootfs_store_save: c->srootfs->layer is NULL"));
    record.layer = bad;
    FAILS(rootfs_store_save(&counted) == -1, EILSEQ);
    record.layer = id;
    record.id = bad;
    FAILS(rootfs_store_save(&counted) == -1, EILSEQ);
    record.id = id;
    record.image = bad;
    FAILS(rootfs_store_save(&counted) == -1, EILSEQ);
    record.image = NULL;
    record.metadata = bad;
    FAILS(rootfs_store_save(&counted) == -1, EILSEQ);
    record.metadata = NULL;
    record.created = bad;
    FAILS(rootfs_store_save(&counted) == -1, EILSEQ);
    record.created = NULL;
    record.names_len = 1;
    FAILS(rootfs_store_save(&counted) == -1, EINVAL);
    record.names_len = 0;
    record.uidmap_len = 1;
    FAILS(rootfs_store_save(&counted) == -1, EINVAL);
    record.uidmap = uids;
    FAILS(rootfs_store_save(&counted) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "rootfs_store_save: c->srootfs->uidmap[0] is NULL"));
    record.uidmap_len = 0;
    record.gidmap_len = 1;
    FAILS(rootfs_store_save(&counted) == -1, EINVAL);
    record.gidmap = gids;
    FAILS(rootfs_store_save(&counted) == -1, EINVAL);
    record.gidmap_len = 0;
    /* Without a store the ids themselves are not looked at. */
    record.layer = outside;
    CHECK(rootfs_store_save(&counted) == -1);

    FAILS(new_rootfs(NULL) == NULL, EINVAL);
    WORKS((rootfs_ref_inc(NULL), true));
    WORKS((rootfs_ref_dec(NULL), true));
    WORKS((free_rootfs_t(NULL), true));
}

static void freeing_nothing(void)
{
    WORKS((isula_storage_free_storage_rootfs(NULL), true));
    WORKS((isula_storage_clear_rootfs_list(NULL), true));
    WORKS((free_layer(NULL), true));
    WORKS((free_layer_list(NULL), true));
    WORKS((free_layer_opts(NULL), true));
    WORKS((free_layer_store_mount_opts(NULL), true));
    WORKS((free_image_store(NULL), true));
    WORKS((isula_storage_free_string(NULL), true));
    WORKS((isula_storage_free_strings(NULL, 5), true));
    WORKS((isula_storage_clear_layer_list(NULL), true));
    WORKS((isula_storage_clear_layer_changes(NULL), true));
    WORKS((isula_storage_clear_image(NULL), true));
    WORKS((isula_storage_free_images(NULL, 5), true));
    WORKS((isula_storage_free_imagetool_image(NULL), true));
    WORKS((isula_storage_free_imagetool_image_summary(NULL), true));
    WORKS((isula_storage_free_imagetool_images_list(NULL), true));
    WORKS((isula_storage_clear_imagetool_images_list(NULL), true));
    WORKS((isula_storage_free_imagetool_fs_info(NULL), true));
    WORKS((isula_storage_clear_imagetool_fs_info(NULL), true));
    WORKS((isula_storage_free_graph_driver(NULL), true));
}

static void driver_init(void)
{
    char root[] = "/nonexistent", bad[] = NOT_UTF8, driver[] = "vfs", empty[] = "", unknown[] = "aufs";
    char incomplete[] = "devicemapper";
    char *options[] = { bad };
    struct storage_module_init_options conf;

    FAILS(graphdriver_init(NULL) == -1, EINVAL);
    memset(&conf, 0, sizeof(conf));
    FAILS(graphdriver_init(&conf) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "graphdriver_init: opts->storage_root is NULL"));
    conf.storage_root = empty;
    FAILS(graphdriver_init(&conf) == -1, EINVAL);
    conf.storage_root = bad;
    FAILS(graphdriver_init(&conf) == -1, EILSEQ);
    conf.storage_root = root;
    FAILS(graphdriver_init(&conf) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "graphdriver_init: opts->driver_name is NULL"));
    conf.driver_name = bad;
    FAILS(graphdriver_init(&conf) == -1, EILSEQ);
    conf.driver_name = unknown;
    FAILS(graphdriver_init(&conf) == -1, EINVAL);
    conf.driver_name = incomplete;
    FAILS(graphdriver_init(&conf) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "graphdriver_init: devicemapper: no thin pool: name one that exists by the "
                                                "storage option dm.thinpooldev"));
    conf.driver_name = driver;
    conf.driver_opts = options;
    conf.driver_opts_len = 1;
    FAILS(graphdriver_init(&conf) == -1, EILSEQ);
    options[0] = NULL;
    FAILS(graphdriver_init(&conf) == -1, EINVAL);
    conf.driver_opts = NULL;
    FAILS(graphdriver_init(&conf) == -1, EINVAL);
}

static void drivers(void)
{
    char bad[] = NOT_UTF8;
    char *bad_texts[] = { bad };
    struct driver_create_opts opts = { NULL, NULL };
    struct driver_mount_opts mount = { NULL, NULL, 0 };
    struct io_read_wrapper stream;
    json_map_string_string map;
    imagetool_fs_info info;
    static const char *const bad_ids[] = { NULL, "", ".", "..", "../x", "a/b", ".hidden", NOT_UTF8 };

    memset(&stream, 0, sizeof(stream));
    memset(&map, 0, sizeof(map));
    for (size_t i = 0; i < sizeof(bad_ids) / sizeof(bad_ids[0]); i++) {
        int code = test_same(bad_ids[i], NOT_UTF8) ? EILSEQ : EINVAL;

        FAILS(graphdriver_create_rw(bad_ids[i], NULL, &opts) == -1, code);
        FAILS(graphdriver_create_ro(bad_ids[i], NULL, &opts) == -1, code);
        FAILS(graphdriver_rm_layer(bad_ids[i]) == -1, code);
        FAILS(graphdriver_mount_layer(bad_ids[i], NULL) == NULL, code);
        FAILS(graphdriver_umount_layer(bad_ids[i]) == -1, code);
        FAILS(!graphdriver_layer_exists(bad_ids[i]), code);
        FAILS(graphdriver_apply_diff(bad_ids[i], &stream) == -1, code);
        FAILS(graphdriver_get_metadata(bad_ids[i]) == NULL, code);
        FAILS(graphdriver_try_repair_lowers(bad_ids[i], NULL) == -1, code);
        FAILS(graphdriver_get_layer_fs_info(bad_ids[i], &info) == -1, code);
        if (bad_ids[i] != NULL) {
            FAILS(graphdriver_create_rw(ID_A, bad_ids[i], &opts) == -1, code);
            FAILS(graphdriver_create_ro(ID_A, bad_ids[i], &opts) == -1, code);
            FAILS(graphdriver_try_repair_lowers(ID_A, bad_ids[i]) == -1, code);
        }
    }

    FAILS(graphdriver_create_rw(ID_A, NULL, NULL) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "graphdriver_create_rw: create_opts is NULL"));
    FAILS(graphdriver_create_ro(ID_A, NULL, NULL) == -1, EINVAL);
    opts.mount_label = bad;
    FAILS(graphdriver_create_rw(ID_A, NULL, &opts) == -1, EILSEQ);
    opts.mount_label = NULL;
    opts.storage_opt = &map;
    map.len = 1;
    FAILS(graphdriver_create_rw(ID_A, NULL, &opts) == -1, EINVAL);
    map.keys = bad_texts;
    FAILS(graphdriver_create_rw(ID_A, NULL, &opts) == -1, EILSEQ);

    mount.mount_label = bad;
    FAILS(graphdriver_mount_layer(ID_A, &mount) == NULL, EILSEQ);
    mount.mount_label = NULL;
    mount.options_len = 1;
    FAILS(graphdriver_mount_layer(ID_A, &mount) == NULL, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "graphdriver_mount_layer: mount_opts->options is NULL"));
    mount.options = bad_texts;
    FAILS(graphdriver_mount_layer(ID_A, &mount) == NULL, EILSEQ);

    FAILS(graphdriver_apply_diff(ID_A, NULL) == -1, EINVAL);
    FAILS(graphdriver_apply_diff(ID_A, &stream) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "graphdriver_apply_diff: content->read is NULL"));
    FAILS(graphdriver_get_layer_fs_info(ID_A, NULL) == -1, EINVAL);
    WORKS((free_graphdriver_mount_opts(NULL), true));
    WORKS((free_graphdriver_status(NULL), true));
}

/* Without a store the rest fails in one way. */
static void nothing_is_open(void)
{
    int count = 0;
    struct isula_storage_layer_changes_list changes = { NULL, 77 };
    int64_t bytes = 77;
    uint64_t limit = 77;
    struct layer_list list;
    char **texts = NULL;
    size_t len = 0;
    types_timestamp_t time = { true, 1, false, 0 };
    const char *names[] = { "a:1" };
    imagetool_images_list all;
    imagetool_fs_info info;
    struct rootfs_list containers;
    struct driver_create_opts driver_opts = { NULL, NULL };

    FAILS(layer_store_create(ID_A, &no_opts, NULL, NULL) == -1, ENODEV);
    FAILS(layer_inc_hold_refs(ID_A) == -1, ENODEV);
    FAILS(layer_dec_hold_refs(ID_A) == -1, ENODEV);
    FAILS(layer_get_hold_refs(ID_A, &count) == -1, ENODEV);
    FAILS(layer_store_delete(ID_A) == -1, ENODEV);
    FAILS(!layer_store_exists(ID_A), ENODEV);
    FAILS(layer_store_list(&list) == -1, ENODEV);
    FAILS(layer_store_by_compress_digest("sha256:" ID_A, &list) == -1, ENODEV);
    FAILS(layer_store_by_uncompress_digest("sha256:" ID_A, &list) == -1, ENODEV);
    FAILS(storage_layers_get_by_compress_digest("sha256:" ID_A) == NULL, ENODEV);
    FAILS(layer_store_lookup(ID_A) == NULL, ENODEV);
    FAILS(layer_store_mount(ID_A) == NULL, ENODEV);
    FAILS(layer_store_umount(ID_A, true) == -1, ENODEV);
    FAILS(layer_store_try_repair_lowers(ID_A) == -1, ENODEV);
    FAILS(layer_store_get_layer_fs_info(ID_A, &info) == -1, ENODEV);
    FAILS(layer_store_get_metadata_by_layer_id(ID_A) == NULL, ENODEV);
    FAILS(layer_store_check(ID_A) == -1, ENODEV);
    FAILS(isula_storage_layer_limit(ID_A, &limit) == -1, ENODEV);
    FAILS(isula_storage_layer_export(ID_A, &discarding) == -1, ENODEV);
    FAILS(isula_storage_layer_diff(ID_A, NULL, &discarding) == -1, ENODEV);
    FAILS(isula_storage_layer_changes(ID_A, NULL, &changes) == -1, ENODEV);
    FAILS(isula_storage_layer_diff_size(ID_A, NULL, &bytes) == -1, ENODEV);
    CHECK(changes.changes == NULL && changes.changes_len == 77 && bytes == 77 && limit == 77);
    WORKS((layer_store_exit(), true));
    WORKS((layer_store_cleanup(), true));

    FAILS(graphdriver_create_rw(ID_A, NULL, &driver_opts) == -1, ENODEV);
    FAILS(graphdriver_create_ro(ID_A, NULL, &driver_opts) == -1, ENODEV);
    FAILS(graphdriver_rm_layer(ID_A) == -1, ENODEV);
    FAILS(graphdriver_mount_layer(ID_A, NULL) == NULL, ENODEV);
    FAILS(graphdriver_umount_layer(ID_A) == -1, ENODEV);
    FAILS(!graphdriver_layer_exists(ID_A), ENODEV);
    FAILS(graphdriver_get_metadata(ID_A) == NULL, ENODEV);
    FAILS(graphdriver_get_status() == NULL, ENODEV);
    FAILS(graphdriver_try_repair_lowers(ID_A, ID_B) == -1, ENODEV);
    FAILS(graphdriver_get_layer_fs_info(ID_A, &info) == -1, ENODEV);
    FAILS(graphdriver_cleanup() == -1, ENODEV);

    FAILS(image_store_create(ID_A, NULL, 0, NULL, NULL, NULL, NULL) == NULL, ENODEV);
    FAILS(image_store_lookup(ID_A) == NULL, ENODEV);
    FAILS(!image_store_exists(ID_A), ENODEV);
    FAILS(image_store_delete(ID_A) == -1, ENODEV);
    FAILS(image_store_set_big_data(ID_A, "k", "d") == -1, ENODEV);
    FAILS(image_store_big_data(ID_A, "k") == NULL, ENODEV);
    FAILS(image_store_big_data_size(ID_A, "k") == -1, ENODEV);
    FAILS(image_store_big_data_digest(ID_A, "k") == NULL, ENODEV);
    FAILS(image_store_big_data_names(ID_A, &texts, &len) == -1, ENODEV);
    FAILS(image_store_get_names(ID_A, &texts, &len) == -1, ENODEV);
    FAILS(image_store_add_name(ID_A, "a:1") == -1, ENODEV);
    FAILS(image_store_set_names(ID_A, names, 1) == -1, ENODEV);
    FAILS(image_store_set_metadata(ID_A, "m") == -1, ENODEV);
    FAILS(image_store_metadata(ID_A) == NULL, ENODEV);
    FAILS(image_store_set_load_time(ID_A, &time) == -1, ENODEV);
    FAILS(image_store_set_image_size(ID_A, 1) == -1, ENODEV);
    FAILS(image_store_top_layer(ID_A) == NULL, ENODEV);
    FAILS(image_store_get_images_number() == (size_t)-1, ENODEV);
    FAILS(image_store_get_image(ID_A) == NULL, ENODEV);
    FAILS(image_store_get_image_summary(ID_A) == NULL, ENODEV);
    FAILS(image_store_get_all_images(&all) == -1, ENODEV);
    FAILS(image_store_get_fs_info(&info) == -1, ENODEV);
    WORKS((image_store_free(), true));

    FAILS(rootfs_store_create(ID_A, NULL, 0, NULL, ID_A, NULL, NULL) == NULL, ENODEV);
    FAILS(rootfs_store_lookup(ID_A) == NULL, ENODEV);
    FAILS(rootfs_store_delete(ID_A) == -1, ENODEV);
    FAILS(rootfs_store_wipe() == -1, ENODEV);
    FAILS(rootfs_store_set_metadata(ID_A, "m") == -1, ENODEV);
    FAILS(!rootfs_store_exists(ID_A), ENODEV);
    FAILS(rootfs_store_get_rootfs(ID_A) == NULL, ENODEV);
    FAILS(rootfs_store_get_all_rootfs(&containers) == -1, ENODEV);
    FAILS(rootfs_store_get_data_dir() == NULL, ENODEV);
    WORKS((rootfs_store_free(), true));
    FAILS(storage_layer_get(ID_A) == NULL, ENODEV);
    FAILS(storage_layer_chain_delete(ID_A) == -1, ENODEV);
    FAILS(storage_layer_try_repair_lowers(ID_A, NULL) == -1, ENODEV);
    FAILS(storage_inc_hold_refs(ID_A) == -1, ENODEV);
    FAILS(storage_dec_hold_refs(ID_A) == -1, ENODEV);
    FAILS(storage_img_get(ID_A) == NULL, ENODEV);
    FAILS(storage_img_get_summary(ID_A) == NULL, ENODEV);
    FAILS(storage_img_delete(ID_A, true) == -1, ENODEV);
    FAILS(storage_img_set_image_size(ID_A) == -1, ENODEV);
    FAILS(!storage_image_exist(ID_A), ENODEV);
    FAILS(storage_get_img_count() == (size_t)-1, ENODEV);
    FAILS(storage_rootfs_create(ID_A, "a:1", NULL, NULL, NULL) == -1, ENODEV);
    FAILS(storage_rootfs_delete(ID_A) == -1, ENODEV);
    FAILS(storage_rootfs_mount(ID_A) == NULL, ENODEV);
    FAILS(storage_rootfs_umount(ID_A, true) == -1, ENODEV);
    FAILS(storage_rootfs_fs_usgae(ID_A, &info) == -1, ENODEV);
    FAILS(storage_rootfs_get_dir() == NULL, ENODEV);
    FAILS(storage_get_metadata_by_container_id(ID_A) == NULL, ENODEV);
    FAILS(storage_broken_rw_layer_delete(ID_A) == -1, ENODEV);
}

static void storage_init(void)
{
    char root[] = "/nonexistent", bad[] = NOT_UTF8, driver[] = "vfs", empty[] = "";
    struct storage_module_init_options opts;

    FAILS(storage_module_init(NULL) == -1, EINVAL);
    memset(&opts, 0, sizeof(opts));
    FAILS(storage_module_init(&opts) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "storage_module_init: conf->storage_root is NULL"));
    opts.storage_root = root;
    FAILS(storage_module_init(&opts) == -1, EINVAL);
    opts.storage_run_root = root;
    FAILS(storage_module_init(&opts) == -1, EINVAL);
    opts.driver_name = bad;
    FAILS(storage_module_init(&opts) == -1, EILSEQ);
    opts.driver_name = driver;
    opts.storage_root = empty;
    FAILS(storage_module_init(&opts) == -1, EINVAL);
    opts.storage_root = bad;
    FAILS(storage_module_init(&opts) == -1, EILSEQ);
    WORKS((storage_module_exit(), true));
    WORKS((free_storage_module_init_options(NULL), true));
}

static void storage_layers(void)
{
    storage_layer_create_opts_t opts;
    struct layer_list list = { NULL, 0 };
    json_map_string_string map;
    char bad[] = NOT_UTF8, *bad_texts[] = { bad };

    memset(&opts, 0, sizeof(opts));
    FAILS(storage_layer_create(NULL, &opts) == -1, EINVAL);
    FAILS(storage_layer_create(NOT_UTF8, &opts) == -1, EILSEQ);
    FAILS(storage_layer_create("../x", &opts) == -1, EINVAL);
    FAILS(storage_layer_create(ID_A, NULL) == -1, EINVAL);
    /* Only a container's layer is made without an archive. */
    FAILS(storage_layer_create(ID_A, &opts) == -1, EINVAL);
    opts.writable = true;
    opts.parent = NOT_UTF8;
    FAILS(storage_layer_create(ID_A, &opts) == -1, EILSEQ);
    opts.parent = "a/b";
    FAILS(storage_layer_create(ID_A, &opts) == -1, EINVAL);
    opts.parent = NULL;
    opts.uncompress_digest = NOT_UTF8;
    FAILS(storage_layer_create(ID_A, &opts) == -1, EILSEQ);
    opts.uncompress_digest = NULL;
    opts.compressed_digest = NOT_UTF8;
    FAILS(storage_layer_create(ID_A, &opts) == -1, EILSEQ);
    opts.compressed_digest = NULL;
    memset(&map, 0, sizeof(map));
    map.len = 1;
    map.values = bad_texts;
    opts.storage_opts = &map;
    FAILS(storage_layer_create(ID_A, &opts) == -1, EINVAL);
    map.keys = bad_texts;
    FAILS(storage_layer_create(ID_A, &opts) == -1, EILSEQ);
    opts.storage_opts = NULL;
    opts.layer_data_path = "/nonexistent/" NOT_UTF8;
    FAILS(storage_layer_create(ID_A, &opts) == -1, ENOENT);

    FAILS(storage_layer_get(NULL) == NULL, EINVAL);
    FAILS(storage_layer_get(NOT_UTF8) == NULL, EILSEQ);
    FAILS(storage_layer_chain_delete(NULL) == -1, EINVAL);
    FAILS(storage_layer_chain_delete(NOT_UTF8) == -1, EILSEQ);
    FAILS(storage_layer_try_repair_lowers(NULL, NULL) == -1, EINVAL);
    FAILS(storage_layer_try_repair_lowers(NOT_UTF8, NULL) == -1, EILSEQ);
    FAILS(storage_inc_hold_refs(NULL) == -1, EINVAL);
    FAILS(storage_inc_hold_refs(NOT_UTF8) == -1, EILSEQ);
    FAILS(storage_dec_hold_refs(NULL) == -1, EINVAL);
    FAILS(storage_dec_hold_refs(NOT_UTF8) == -1, EILSEQ);
    FAILS(!is_parent_layer_of_other_layer(NULL, NULL, &list), EINVAL);
    FAILS(!is_parent_layer_of_other_layer(NOT_UTF8, NULL, &list), EILSEQ);
    FAILS(!is_parent_layer_of_other_layer(ID_A, NOT_UTF8, &list), EILSEQ);
    FAILS(!is_parent_layer_of_other_layer(ID_A, NULL, NULL), EINVAL);
}

static void storage_containers(void)
{
    char untouched = 'x', *mountpoint = &untouched, bad[] = NOT_UTF8, *bad_texts[] = { bad };
    json_map_string_string map;
    imagetool_fs_info info;

    memset(&map, 0, sizeof(map));
    memset(&info, 0x55, sizeof(info));
    map.len = 1;
    map.keys = bad_texts;
    FAILS(storage_rootfs_create(NULL, "a:1", NULL, NULL, &mountpoint) == -1, EINVAL);
    FAILS(storage_rootfs_create(NOT_UTF8, "a:1", NULL, NULL, &mountpoint) == -1, EILSEQ);
    FAILS(storage_rootfs_create("../x", "a:1", NULL, NULL, &mountpoint) == -1, EINVAL);
    FAILS(storage_rootfs_create(ID_A, NULL, NULL, NULL, &mountpoint) == -1, EINVAL);
    FAILS(storage_rootfs_create(ID_A, NOT_UTF8, NULL, NULL, &mountpoint) == -1, EILSEQ);
    FAILS(storage_rootfs_create(ID_A, "a:1", NOT_UTF8, NULL, &mountpoint) == -1, EILSEQ);
    FAILS(storage_rootfs_create(ID_A, "a:1", NULL, &map, &mountpoint) == -1, EILSEQ);
    map.keys = NULL;
    FAILS(storage_rootfs_create(ID_A, "a:1", NULL, &map, &mountpoint) == -1, EINVAL);
    FAILS(storage_rootfs_delete(NULL) == -1, EINVAL);
    FAILS(storage_rootfs_delete(NOT_UTF8) == -1, EILSEQ);
    FAILS(storage_rootfs_mount(NULL) == NULL, EINVAL);
    FAILS(storage_rootfs_mount(NOT_UTF8) == NULL, EILSEQ);
    FAILS(storage_rootfs_umount(NULL, true) == -1, EINVAL);
    FAILS(storage_rootfs_umount(NOT_UTF8, true) == -1, EILSEQ);
    FAILS(storage_rootfs_fs_usgae(NULL, &info) == -1, EINVAL);
    FAILS(storage_rootfs_fs_usgae(NOT_UTF8, &info) == -1, EILSEQ);
    FAILS(storage_rootfs_fs_usgae(ID_A, NULL) == -1, EINVAL);
    FAILS(storage_get_metadata_by_container_id(NULL) == NULL, EINVAL);
    FAILS(storage_get_metadata_by_container_id(NOT_UTF8) == NULL, EILSEQ);
    FAILS(storage_broken_rw_layer_delete(NULL) == -1, EINVAL);
    FAILS(storage_broken_rw_layer_delete(NOT_UTF8) == -1, EILSEQ);
    CHECK(mountpoint == &untouched);
    for (size_t i = 0; i < sizeof(info); i++) {
        CHECK(((const char *)&info)[i] == 0x55);
    }
}

static void storage_images(void)
{
    const char *names[] = { "a:1" }, *null_names[] = { NULL }, *bad_names[] = { NOT_UTF8 };
    types_timestamp_t time = { false, 0, true, 5 };
    struct storage_img_create_options opts;
    char bad[] = NOT_UTF8, untouched = 'x', *pointer = &untouched, **texts = &pointer;
    size_t len = 77;

    memset(&opts, 0, sizeof(opts));
    FAILS(storage_img_create(NULL, NULL, NULL, &opts) == -1, EINVAL);
    FAILS(storage_img_create(NOT_UTF8, NULL, NULL, &opts) == -1, EILSEQ);
    FAILS(storage_img_create("../x", NULL, NULL, &opts) == -1, EINVAL);
    FAILS(storage_img_create(ID_A, NULL, NULL, NULL) == -1, EINVAL);
    FAILS(storage_img_create(ID_A, NOT_UTF8, NULL, &opts) == -1, EILSEQ);
    FAILS(storage_img_create(ID_A, NULL, NOT_UTF8, &opts) == -1, EILSEQ);
    opts.digest = bad;
    FAILS(storage_img_create(ID_A, NULL, NULL, &opts) == -1, EILSEQ);
    opts.digest = NULL;
    opts.create_time = &time;
    FAILS(storage_img_create(ID_A, NULL, NULL, &opts) == -1, EINVAL);

    FAILS(storage_img_get(NULL) == NULL, EINVAL);
    FAILS(storage_img_get(NOT_UTF8) == NULL, EILSEQ);
    FAILS(storage_img_get_summary(NULL) == NULL, EINVAL);
    FAILS(storage_img_get_summary(NOT_UTF8) == NULL, EILSEQ);
    FAILS(storage_img_set_big_data(NULL, "k", "d") == -1, EINVAL);
    FAILS(storage_img_set_big_data(NOT_UTF8, "k", "d") == -1, EILSEQ);
    FAILS(storage_img_set_big_data(ID_A, NULL, "d") == -1, EINVAL);
    FAILS(storage_img_set_big_data(ID_A, NOT_UTF8, "d") == -1, EILSEQ);
    FAILS(storage_img_set_big_data(ID_A, "k", NULL) == -1, EINVAL);
    FAILS(storage_img_add_name(NULL, "a:1") == -1, EINVAL);
    FAILS(storage_img_add_name(NOT_UTF8, "a:1") == -1, EILSEQ);
    FAILS(storage_img_add_name(ID_A, NULL) == -1, EINVAL);
    FAILS(storage_img_add_name(ID_A, NOT_UTF8) == -1, EILSEQ);
    FAILS(storage_img_delete(NULL, true) == -1, EINVAL);
    FAILS(storage_img_delete(NOT_UTF8, true) == -1, EILSEQ);
    FAILS(storage_img_set_loaded_time(ID_A, NULL) == -1, EINVAL);
    time.nanos = 0;
    FAILS(storage_img_set_loaded_time(ID_A, &time) == -1, EINVAL);
    time.has_seconds = true;
    FAILS(storage_img_set_loaded_time(NULL, &time) == -1, EINVAL);
    FAILS(storage_img_set_loaded_time(NOT_UTF8, &time) == -1, EILSEQ);
    FAILS(storage_img_get_names(NULL, &texts, &len) == -1, EINVAL);
    FAILS(storage_img_get_names(NOT_UTF8, &texts, &len) == -1, EILSEQ);
    FAILS(storage_img_get_names(ID_A, NULL, &len) == -1, EINVAL);
    FAILS(storage_img_get_names(ID_A, &texts, NULL) == -1, EINVAL);
    FAILS(storage_img_set_names(NULL, names, 1) == -1, EINVAL);
    FAILS(storage_img_set_names(NOT_UTF8, names, 1) == -1, EILSEQ);
    FAILS(storage_img_set_names(ID_A, NULL, 1) == -1, EINVAL);
    FAILS(storage_img_set_names(ID_A, names, 0) == -1, EINVAL);
    FAILS(storage_img_set_names(ID_A, null_names, 1) == -1, EINVAL);
    FAILS(storage_img_set_names(ID_A, bad_names, 1) == -1, EILSEQ);
    FAILS(storage_img_set_image_size(NULL) == -1, EINVAL);
    FAILS(storage_img_set_image_size(NOT_UTF8) == -1, EILSEQ);
    FAILS(storage_img_get_image_id(NULL) == NULL, EINVAL);
    FAILS(storage_img_get_image_id(NOT_UTF8) == NULL, EILSEQ);
    FAILS(!storage_image_exist(NULL), EINVAL);
    FAILS(!storage_image_exist(NOT_UTF8), EILSEQ);
    FAILS(storage_get_img_top_layer(NULL) == NULL, EINVAL);
    FAILS(storage_get_img_top_layer(NOT_UTF8) == NULL, EILSEQ);
    FAILS(storage_get_all_images(NULL) == -1, EINVAL);
    FAILS(storage_get_images_fs_usage(NULL) == -1, EINVAL);
    CHECK(texts == &pointer && pointer == &untouched && len == 77);
}

#if defined(ENABLE_REMOTE_LAYER_STORE)
static void remote(void)
{
    static int (*const with_text[])(const char *) = {
        remote_append_image_by_directory_with_lock,
        remote_remove_image_from_memory_with_lock,
        remote_load_one_layer,
        remote_layer_remove_memory_stores_with_lock,
        remote_image_init,
        remote_layer_init,
        remote_overlay_init,
        remote_layer_build_ro_dir,
        remote_overlay_build_ro_dir,
    };

    for (size_t i = 0; i < sizeof(with_text) / sizeof(with_text[0]); i++) {
        FAILS(with_text[i](NULL) == -1, EINVAL);
        FAILS(with_text[i](NOT_UTF8) == -1, EILSEQ);
    }
    WORKS(remote_layer_remove_ro_dir(NULL) == 0);
    WORKS(remote_overlay_remove_ro_dir(NULL) == 0);
    FAILS(remote_layer_remove_ro_dir(NOT_UTF8) == -1, EILSEQ);
    FAILS(remote_overlay_remove_ro_dir(NOT_UTF8) == -1, EILSEQ);
    FAILS(!remote_overlay_layer_valid(NULL), EINVAL);
    FAILS(!remote_overlay_layer_valid(NOT_UTF8), EILSEQ);
    FAILS(!remote_layer_layer_valid(NULL), EINVAL);
    FAILS(!remote_layer_layer_valid(NOT_UTF8), EILSEQ);
    FAILS(remote_image_get_top_layer_from_json(NULL) == NULL, EINVAL);
    FAILS(remote_image_get_top_layer_from_json(NOT_UTF8) == NULL, EILSEQ);
    FAILS(remote_start_refresh_thread(NULL) == -1, EINVAL);
}
#endif

int main(int argc, char **argv)
{
    char driver[] = "vfs";
    struct storage_module_init_options conf;

    if (argc != 3) {
        fprintf(stderr, "usage: %s ROOT RUN_ROOT\n", argv[0]);
        return 2;
    }
    layer_init();
    image_init();
    rootfs_init();
    storage_init();
    driver_init();
    nothing_is_open();
    for (int open = 0; open < 2; open++) {
        layer_create();
        layers();
        drivers();
        image_create();
        images();
        rootfs();
        storage_layers();
        storage_images();
        storage_containers();
        freeing_nothing();
#if defined(ENABLE_REMOTE_LAYER_STORE)
        remote();
#endif
        if (open == 0) {
            memset(&conf, 0, sizeof(conf));
            conf.storage_root = argv[1];
            conf.storage_run_root = argv[2];
            conf.driver_name = driver;
            WORKS(storage_module_init(&conf) == 0);
        }
    }
    storage_module_exit();
    nothing_is_open();
    return DONE();
}
