/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The storage as a whole from C: opening and closing it, images and their layers, containers, what is found again. */

#include "archive.h"
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGEST(id) "sha256:" id

/* Digests of the two archives below, as sha256sum prints them. */
#define BASE_DIGEST DIGEST("03f4dc3b3211444ea7cc0fb233b38f983511381f37b6baa5f8fd53c556bbb84d")
#define TOP_DIGEST DIGEST("601f8a97382256a29b299d4bffc90ea66022cab5970b027115f4cc8412381b48")

/* Two layers, an image, two containers. */
#define BASE ID_A
#define TOP ID_B
#define IMAGE "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
#define CONTAINER "1111111111111111111111111111111111111111111111111111111111111111"
#define OTHER "2222222222222222222222222222222222222222222222222222222222222222"

#define CONFIG                                                                                    \
    "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"User\":\"7\"},\"rootfs\":{\"type\":\"layers\"," \
    "\"diff_ids\":[\"" BASE_DIGEST "\",\"" TOP_DIGEST "\"]}}"
#define MANIFEST                                                                                           \
    "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"c\",\"size\":1,\"digest\":\"" DIGEST(IMAGE) "\"},\"layers\":[" \
    "{\"mediaType\":\"l\",\"size\":1,\"digest\":\"" BASE_DIGEST "\"}]}"

static struct storage_module_init_options conf;
static char base_path[4096], top_path[4096];

static void path_below(char *path, const char *dir, const char *name)
{
    CHECK(snprintf(path, 4096, "%s/%s", dir, name) < 4096);
}

static void write_file(const char *path, const char *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");

    CHECK(file != NULL && fwrite(bytes, 1, len, file) == len && fclose(file) == 0);
}

/* Gives whether the file holds exactly this text. */
static bool holds_text(const char *dir, const char *name, const char *text)
{
    char path[4096], bytes[256];
    FILE *file;
    size_t len;

    path_below(path, dir, name);
    file = fopen(path, "rb");
    if (file == NULL) {
        return false;
    }
    len = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    return len == strlen(text) && memcmp(bytes, text, len) == 0;
}

static void write_archives(const char *dir)
{
    static struct archive base, top;

    archive_add(&base, "etc/", NULL);
    archive_add(&base, "etc/motd", "hi\n");
    archive_add(&base, "etc/issue", "hello\n");
    archive_end(&base);
    archive_add(&top, "etc/hostname", "top\n");
    archive_add(&top, "etc/.wh.issue", "");
    archive_end(&top);
    path_below(base_path, dir, "base.tar");
    path_below(top_path, dir, "top.tar");
    write_file(base_path, base.bytes, base.len);
    write_file(top_path, top.bytes, top.len);
}

static int create_layer(const char *id, const char *parent, const char *digest, const char *path)
{
    storage_layer_create_opts_t opts;

    memset(&opts, 0, sizeof(opts));
    opts.parent = parent;
    opts.uncompress_digest = digest;
    opts.compressed_digest = digest;
    opts.layer_data_path = path;
    return storage_layer_create(id, &opts);
}

static int holds(const char *id)
{
    int count = -77;

    CHECK(layer_get_hold_refs(id, &count) == 0);
    return count;
}

/* A storage is opened whole or not at all, once, and as often as it was closed. */
static void opening_and_closing(void)
{
    char unknown[] = "btrfs", *driver = conf.driver_name;
    struct storage_module_init_options *copy;

    conf.driver_name = unknown;
    FAILS(storage_module_init(&conf) == -1, EINVAL);
    conf.driver_name = driver;
    WORKS(storage_module_init(&conf) == 0);
    FAILS(storage_module_init(&conf) == -1, EEXIST);
    FAILS(layer_store_init(&conf) == -1, EEXIST);
    FAILS(image_store_init(&conf) == -1, EEXIST);
    FAILS(rootfs_store_init(&conf) == -1, EEXIST);
    FAILS(graphdriver_init(&conf) == -1, EEXIST);
    WORKS(storage_get_img_count() == 0 && image_store_get_images_number() == 0);
    WORKS((storage_module_exit(), true));
    WORKS((storage_module_exit(), true));
    FAILS(storage_get_img_count() == (size_t)-1, ENODEV);
    FAILS(image_store_get_images_number() == (size_t)-1, ENODEV);
    FAILS(!layer_store_exists(BASE), ENODEV);
    FAILS(!rootfs_store_exists(CONTAINER), ENODEV);

    /* One of the stores is open alone: refused, and nothing else is open afterwards. */
    WORKS(rootfs_store_init(&conf) == 0);
    FAILS(storage_module_init(&conf) == -1, EEXIST);
    FAILS(!layer_store_exists(BASE), ENODEV);
    WORKS(!rootfs_store_exists(CONTAINER));
    WORKS((storage_module_exit(), true));
    WORKS(!rootfs_store_exists(CONTAINER));
    WORKS((rootfs_store_free(), true));
    WORKS(graphdriver_init(&conf) == 0);
    FAILS(storage_module_init(&conf) == -1, EEXIST);
    WORKS(graphdriver_cleanup() == 0);

    copy = calloc(1, sizeof(*copy));
    copy->storage_root = strdup(conf.storage_root);
    copy->storage_run_root = strdup(conf.storage_run_root);
    copy->driver_name = strdup(conf.driver_name);
    copy->driver_opts = calloc(1, sizeof(char *));
    WORKS(storage_module_init(copy) == 0);
    copy->driver_opts[0] = strdup("x=y");
    copy->driver_opts_len = 1;
    WORKS((free_storage_module_init_options(copy), true));
}

/* What stands in the way of one store closes the others again. */
static void a_failed_opening_is_rolled_back(void)
{
    char path[4096], name[64];
    const char *dir = strncmp(conf.driver_name, "overlay", 7) == 0 ? "overlay" : conf.driver_name;

    storage_module_exit();
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof(name), "%s-%s", dir, i == 0 ? "images" : "containers");
        path_below(path, conf.storage_root, name);
        char moved[4100];
        snprintf(moved, sizeof(moved), "%s.old", path);
        CHECK(rename(path, moved) == 0);
        write_file(path, "no directory", 12);
        errno = 0;
        CHECK(storage_module_init(&conf) == -1 && errno != 0);
        FAILS(storage_get_img_count() == (size_t)-1, ENODEV);
        FAILS(!layer_store_exists(BASE), ENODEV);
        CHECK(unlink(path) == 0 && rename(moved, path) == 0);
    }
    WORKS(storage_module_init(&conf) == 0);
}

static void layers_come_from_files(void)
{
    struct layer *layer;

    FAILS(create_layer(BASE, NULL, BASE_DIGEST, "/nonexistent/base.tar") == -1, ENOENT);
    FAILS(create_layer(BASE, NULL, TOP_DIGEST, base_path) == -1, EBADMSG);
    FAILS(create_layer(BASE, NULL, "sha256:1", base_path) == -1, EINVAL);
    FAILS(create_layer(TOP, BASE, TOP_DIGEST, top_path) == -1, ENOENT);
    FAILS(storage_layer_get(BASE) == NULL, ENOENT);
    WORKS(create_layer(BASE, NULL, BASE_DIGEST, base_path) == 0);
    WORKS(create_layer(BASE, NULL, BASE_DIGEST, base_path) == 0);
    CHECK(holds(BASE) == 2);
    WORKS(storage_dec_hold_refs(BASE) == 0);
    WORKS(create_layer(TOP, BASE, TOP_DIGEST, top_path) == 0);
    WORKS(storage_inc_hold_refs(TOP) == 0);
    CHECK(holds(TOP) == 2);
    WORKS(storage_dec_hold_refs(TOP) == 0);
    WORKS(storage_dec_hold_refs(BASE) == 0);
    FAILS(storage_inc_hold_refs(ID_ABSENT) == -1, ENOENT);
    FAILS(storage_dec_hold_refs(ID_ABSENT) == -1, ENOENT);

    layer = storage_layer_get(TOP);
    CHECK(layer != NULL && test_same(layer->id, TOP) && test_same(layer->parent, BASE) && !layer->writable);
    CHECK(test_same(layer->compressed_digest, TOP_DIGEST) && test_same(layer->uncompressed_digest, TOP_DIGEST));
    CHECK(layer->uncompress_size == 4);
    free_layer(layer);
    WORKS(storage_layer_try_repair_lowers(TOP, BASE) == 0);
    FAILS(storage_layer_try_repair_lowers(ID_ABSENT, NULL) == -1, ENOENT);

    /* Held, and stood upon: the chain stays. */
    FAILS(storage_layer_chain_delete(ID_ABSENT) == -1, ENOENT);
    WORKS(storage_layer_chain_delete(TOP) == 0);
    WORKS(storage_layer_chain_delete(BASE) == 0);
    CHECK(layer_store_exists(TOP) && layer_store_exists(BASE));
}

static void who_is_whose_parent(void)
{
    struct layer_list *list = calloc(1, sizeof(*list));

    WORKS(layer_store_list(list) == 0);
    WORKS(is_parent_layer_of_other_layer(BASE, NULL, list));
    WORKS(!is_parent_layer_of_other_layer(BASE, TOP, list));
    WORKS(is_parent_layer_of_other_layer(BASE, ID_ABSENT, list));
    WORKS(!is_parent_layer_of_other_layer(TOP, NULL, list));
    free_layer_list(list);
    list = storage_layers_get_by_compress_digest(BASE_DIGEST);
    CHECK(list != NULL && list->layers_len == 1 && test_same(list->layers[0]->id, BASE));
    free_layer_list(list);
    FAILS(storage_layers_get_by_compress_digest(DIGEST(ID_ABSENT)) == NULL, ENOENT);
}

static void an_image_is_made(void)
{
    types_timestamp_t time = { true, 1700000000, true, 5 };
    char digest[] = BASE_DIGEST;
    struct storage_img_create_options opts = { &time, digest };
    const char *names[] = { "example:2", "example:1", "example:1" };
    char **texts = NULL, *text;
    size_t len = 0;
    imagetool_image *image;
    imagetool_image_summary *summary;
    imagetool_images_list list;
    imagetool_fs_info usage;

    memset(&list, 0, sizeof(list));
    WORKS(storage_get_all_images(&list) == 0 && list.images_len == 0);
    WORKS(storage_img_create(IMAGE, TOP, NULL, &opts) == 0);
    FAILS(storage_img_create(IMAGE, TOP, NULL, &opts) == -1, EEXIST);
    text = storage_get_img_top_layer(IMAGE);
    CHECK(test_same(text, TOP));
    free(text);
    WORKS(storage_img_add_name(IMAGE, "example:1") == 0);
    WORKS(storage_img_set_big_data(IMAGE, DIGEST(IMAGE), CONFIG) == 0);
    WORKS(storage_img_set_big_data(IMAGE, "manifest", MANIFEST) == 0);
    WORKS(storage_img_set_loaded_time(IMAGE, &time) == 0);
    WORKS(storage_img_set_image_size(IMAGE) == 0);
    FAILS(storage_img_set_image_size(ID_ABSENT) == -1, ENOENT);
    WORKS(storage_dec_hold_refs(TOP) == 0);

    WORKS(storage_img_set_names("example:1", names, 3) == 0);
    WORKS(storage_img_get_names(IMAGE, &texts, &len) == 0);
    CHECK(len == 2 && test_same(texts[0], "example:1") && test_same(texts[1], "example:2"));
    isula_storage_free_strings(texts, len);

    /* Names are looked up as they stand; two functions take any spelling. */
    WORKS(storage_image_exist("example:2") && storage_image_exist("eee") && storage_image_exist(IMAGE));
    WORKS(!storage_image_exist("docker.io/library/example:2") && !storage_image_exist("ee"));
    text = storage_img_get_image_id("example:2");
    CHECK(test_same(text, IMAGE));
    free(text);
    FAILS(storage_img_get_image_id("example") == NULL, ENOENT);
    FAILS(storage_get_img_top_layer("example") == NULL, ENOENT);
    WORKS(storage_get_img_count() == 1);

    summary = storage_img_get_summary("eeee");
    CHECK(summary != NULL && test_same(summary->top_layer, TOP) && summary->repo_tags_len == 2);
    CHECK(summary->size == strlen(CONFIG) + strlen(MANIFEST) + strlen("hi\n") + strlen("hello\n") +
                               strlen("top\n"));
    isula_storage_free_imagetool_image_summary(summary);
    FAILS(storage_img_get_summary("ee") == NULL, ENOENT);
    image = storage_img_get("example:1");
    CHECK(image != NULL && test_same(image->id, IMAGE) && image->uid != NULL && image->uid->value == 7);
    isula_storage_free_imagetool_image(image);

    WORKS(storage_get_all_images(&list) == 0);
    CHECK(list.images_len == 1 && test_same(list.images[0]->id, IMAGE));
    isula_storage_clear_imagetool_images_list(&list);
    memset(&usage, 0, sizeof(usage));
    WORKS(storage_get_images_fs_usage(&usage) == 0);
    CHECK(usage.image_filesystems_len == 1 && usage.image_filesystems[0]->used_bytes->value > strlen(CONFIG));
    isula_storage_clear_imagetool_fs_info(&usage);
}

static void containers_are_made_and_mounted(void)
{
    char untouched = 'x', *place = &untouched, *mounted, *dir;
    char key[] = "nothing", value[] = "1", *keys[] = { key }, *values[] = { value };
    json_map_string_string options = { keys, values, 1 };
    imagetool_fs_info usage;
    container_inspect_graph_driver *driver;

    FAILS(storage_rootfs_create(CONTAINER, "absent:1", NULL, NULL, &place) == -1, ENOENT);
    errno = 0;
    CHECK(storage_rootfs_create(CONTAINER, IMAGE, NULL, &options, &place) == -1 && errno != 0);
    CHECK(place == &untouched && !rootfs_store_exists(CONTAINER) && !layer_store_exists(CONTAINER));
    WORKS(storage_rootfs_create(CONTAINER, "docker.io/library/example:1", NULL, NULL, &place) == 0);
    WORKS(storage_rootfs_create(OTHER, "eee", NULL, NULL, NULL) == 0);
    CHECK(place != NULL && place != &untouched);

    mounted = storage_rootfs_mount("111");
    CHECK(test_same(mounted, place));
    CHECK(holds_text(mounted, "etc/hostname", "top\n") && holds_text(mounted, "etc/motd", "hi\n"));
    CHECK(!holds_text(mounted, "etc/issue", "hello\n"));
    char path[4096];
    path_below(path, mounted, "own");
    write_file(path, "own\n", 4);
    free(place);

    /* It exists: its data stay. */
    place = &untouched;
    FAILS(storage_rootfs_create(CONTAINER, IMAGE, NULL, NULL, &place) == -1, EEXIST);
    CHECK(place == &untouched && holds_text(mounted, "own", "own\n"));
    free(mounted);
    WORKS(storage_rootfs_umount(CONTAINER, false) == 0);
    WORKS(storage_rootfs_umount(CONTAINER, true) == 0);
    WORKS(storage_rootfs_umount(ID_ABSENT, true) == 0);
    FAILS(storage_rootfs_mount(ID_ABSENT) == NULL, ENOENT);

    memset(&usage, 0, sizeof(usage));
    WORKS(storage_rootfs_fs_usgae(CONTAINER, &usage) == 0);
    CHECK(usage.image_filesystems_len == 1 && usage.image_filesystems[0]->inodes_used->value > 0);
    isula_storage_clear_imagetool_fs_info(&usage);
    FAILS(storage_rootfs_fs_usgae(ID_ABSENT, &usage) == -1, ENOENT);
    driver = storage_get_metadata_by_container_id(CONTAINER);
    CHECK(driver != NULL && driver->name != NULL);
    isula_storage_free_graph_driver(driver);
    FAILS(storage_get_metadata_by_container_id(ID_ABSENT) == NULL, ENOENT);
    dir = storage_rootfs_get_dir();
    CHECK(dir != NULL && strstr(dir, "-containers") != NULL && strncmp(dir, conf.storage_root, strlen(conf.storage_root)) == 0);
    free(dir);
    FAILS(storage_broken_rw_layer_delete(CONTAINER) == -1, EBUSY);
    FAILS(storage_broken_rw_layer_delete(TOP) == -1, EINVAL);
    FAILS(storage_broken_rw_layer_delete(ID_ABSENT) == -1, ENOENT);
}

static void what_is_used_stays(void)
{
    FAILS(storage_img_delete("example:1", true) == -1, EBUSY);
    CHECK(strstr(isula_storage_last_error(), "used by container") != NULL);
    CHECK(storage_image_exist(IMAGE));
    WORKS(storage_img_delete(ID_ABSENT, false) == 0);
    WORKS(storage_rootfs_delete(ID_ABSENT) == 0);
}

static void everything_is_found_again(void)
{
    char *mounted;

    storage_module_exit();
    WORKS(storage_module_init(&conf) == 0);
    WORKS(storage_get_img_count() == 1 && storage_image_exist("example:2"));
    CHECK(holds(TOP) == 0 && holds(CONTAINER) == 0);
    mounted = storage_rootfs_mount(CONTAINER);
    CHECK(mounted != NULL && holds_text(mounted, "own", "own\n") && holds_text(mounted, "etc/hostname", "top\n"));
    free(mounted);
    /* Still mounted: deleted all the same. */
    WORKS(storage_rootfs_delete("11111") == 0);
    CHECK(!layer_store_exists(CONTAINER) && !rootfs_store_exists(CONTAINER));
}

static void images_go_with_their_layers(void)
{
    FAILS(storage_img_delete(IMAGE, true) == -1, EBUSY);
    WORKS(storage_rootfs_delete(OTHER) == 0);
    WORKS(storage_inc_hold_refs(BASE) == 0);
    WORKS(storage_img_delete("example:2", true) == 0);
    CHECK(!storage_image_exist(IMAGE) && !layer_store_exists(TOP) && layer_store_exists(BASE));
    WORKS(storage_dec_hold_refs(BASE) == 0);
    WORKS(storage_layer_chain_delete(BASE) == 0);
    CHECK(!layer_store_exists(BASE));
    WORKS(storage_img_delete(IMAGE, true) == 0);
    WORKS(storage_get_img_count() == 0);
}

/* A container's record is lost: its layer is put aside, not deleted. */
static void broken_containers_lose_nothing(void)
{
    storage_layer_create_opts_t opts;

    memset(&opts, 0, sizeof(opts));
    opts.writable = true;
    WORKS(storage_layer_create(CONTAINER, &opts) == 0);
    WORKS(storage_broken_rw_layer_delete(CONTAINER) == 0);
    CHECK(!layer_store_exists(CONTAINER));
}

static atomic_bool stop;

static void *use_the_storage(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop)) {
        char *place = NULL;
        struct layer *layer;

        if (create_layer(BASE, NULL, BASE_DIGEST, base_path) == 0) {
            storage_dec_hold_refs(BASE);
        } else {
            CHECK(errno == ENODEV || errno == ECANCELED);
        }
        layer = storage_layer_get(BASE);
        free_layer(layer);
        storage_image_exist("example:1");
        storage_get_img_count();
        if (storage_rootfs_create(OTHER, "example:1", NULL, NULL, &place) == 0) {
            free(place);
        }
        free(storage_rootfs_mount(OTHER));
        storage_rootfs_umount(OTHER, true);
    }
    return NULL;
}

/* Others are inside calls while the storage is closed and opened. */
static void closing_waits_for_others(void)
{
    pthread_t threads[3];

    for (size_t i = 0; i < 3; i++) {
        CHECK(pthread_create(&threads[i], NULL, use_the_storage, NULL) == 0);
    }
    for (int i = 0; i < 10; i++) {
        storage_module_exit();
        /* Nobody holds anything of it any more. */
        CHECK(storage_module_init(&conf) == 0);
        CHECK(storage_layer_get(ID_ABSENT) == NULL);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 3; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

int main(int argc, char **argv)
{
    char dir[4096];
    struct isula_storage_host host;

    if (argc != 4) {
        fprintf(stderr, "usage: %s ROOT RUN_ROOT DRIVER\n", argv[0]);
        return 2;
    }
    memset(&host, 0, sizeof(host));
    host.size = sizeof(host);
    host.default_registry_host = "docker.io";
    WORKS(isula_storage_set_host(&host) == 0);
    memset(&conf, 0, sizeof(conf));
    conf.storage_root = argv[1];
    conf.storage_run_root = argv[2];
    conf.driver_name = argv[3];

    opening_and_closing();
    /* Beside the root, which is there by now. */
    path_below(dir, argv[1], "..");
    write_archives(dir);
    a_failed_opening_is_rolled_back();
    layers_come_from_files();
    who_is_whose_parent();
    an_image_is_made();
    containers_are_made_and_mounted();
    what_is_used_stays();
    everything_is_found_again();
    images_go_with_their_layers();
    broken_containers_lose_nothing();
    closing_waits_for_others();
    storage_module_exit();
    return DONE();
}
