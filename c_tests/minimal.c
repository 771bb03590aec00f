/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What the rest of iSulad needs of its storage module, and nothing else: the 38 functions, declared here once more, each
 * called on a small image and its containers. Results are the C library's to free; libisula would do that.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "archive.h"
#include "isula_storage.h"

/* driver.h */
struct graphdriver_status *graphdriver_get_status(void);
void free_graphdriver_status(struct graphdriver_status *status);

/* storage.h: the module */
int storage_module_init(struct storage_module_init_options *opts);
void storage_module_exit(void);
void free_storage_module_init_options(struct storage_module_init_options *opts);

/* storage.h: images */
int storage_img_create(const char *id, const char *parent_id, const char *metadata,
                       struct storage_img_create_options *opts);
imagetool_image *storage_img_get(const char *img_id);
imagetool_image_summary *storage_img_get_summary(const char *img_id);
int storage_img_set_big_data(const char *img_id, const char *key, const char *val);
int storage_img_add_name(const char *img_id, const char *img_name);
int storage_img_delete(const char *img_id, bool commit);
int storage_img_set_loaded_time(const char *img_id, types_timestamp_t *loaded_time);
int storage_img_get_names(const char *img_id, char ***names, size_t *names_len);
int storage_img_set_names(const char *img_id, const char **names, size_t names_len);
int storage_img_set_image_size(const char *image_id);
char *storage_img_get_image_id(const char *img_name);
bool storage_image_exist(const char *image_or_id);
char *storage_get_img_top_layer(const char *id);
size_t storage_get_img_count(void);
int storage_get_all_images(imagetool_images_list *images);
int storage_get_images_fs_usage(imagetool_fs_info *fs_info);

/* storage.h: layers */
int storage_layer_create(const char *layer_id, storage_layer_create_opts_t *opts);
struct layer *storage_layer_get(const char *layer_id);
int storage_layer_chain_delete(const char *layer_id);
int storage_layer_try_repair_lowers(const char *layer_id, const char *last_layer_id);
struct layer_list *storage_layers_get_by_compress_digest(const char *digest);
int storage_inc_hold_refs(const char *layer_id);
int storage_dec_hold_refs(const char *layer_id);
int storage_broken_rw_layer_delete(const char *layer_id);
void free_layer(struct layer *ptr);
void free_layer_list(struct layer_list *ptr);

/* storage.h: containers */
int storage_rootfs_create(const char *container_id, const char *image, const char *mount_label,
                          json_map_string_string *storage_opts, char **mountpoint);
int storage_rootfs_delete(const char *container_id);
char *storage_rootfs_mount(const char *container_id);
int storage_rootfs_umount(const char *container_id, bool force);
int storage_rootfs_fs_usgae(const char *container_id, imagetool_fs_info *fs_info);
char *storage_rootfs_get_dir(void);
container_inspect_graph_driver *storage_get_metadata_by_container_id(const char *id);

#define LAYER "ec8180d7e2b6709a092e5b2b08f1606bcd8e16d2411f1c44ca2bf143c5bb9fd9"
#define DIGEST "sha256:" LAYER
#define IMAGE "f77963891cdf29a0b282e522ab10cdefb9ade7468cfd8ba3e45fd829f5b8344e"
#define CONFIG                                                                        \
    "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"sh\"]},"      \
    "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIGEST "\"]}}"
#define MANIFEST                                                                                              \
    "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":" \
    "\"sha256:" IMAGE "\",\"size\":175},\"layers\":[{\"mediaType\":"                                          \
    "\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"" DIGEST "\",\"size\":2560}]}"
#define MANIFEST_DIGEST "sha256:82001b00773a23d5c338c1569cf0e44f5498a2c5de338619ccb122aab889721a"
#define NAME "docker.io/library/minimal:1"
#define OTHER_NAME "docker.io/library/minimal:2"
#define CONTAINER "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define BROKEN "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static int failures;

#define CHECK(condition)                                                                                    \
    do {                                                                                                    \
        if (!(condition)) {                                                                                 \
            fprintf(stderr, "%s:%d: failed: %s (%s)\n", __FILE__, __LINE__, #condition, strerror(errno)); \
            failures++;                                                                                     \
        }                                                                                                   \
    } while (0)

static int same(const char *left, const char *right)
{
    return left != NULL && right != NULL && strcmp(left, right) == 0;
}

/* What libisula's function of this purpose frees, of one file system. */
static void free_usage(imagetool_fs_info *usage)
{
    for (size_t i = 0; i < usage->image_filesystems_len; i++) {
        imagetool_fs_info_image_filesystems_element *element = usage->image_filesystems[i];

        free(element->fs_id->mountpoint);
        free(element->fs_id);
        free(element->used_bytes);
        free(element->inodes_used);
        free(element);
    }
    free(usage->image_filesystems);
    memset(usage, 0, sizeof(*usage));
}

static void open_module(const char *root, const char *driver)
{
    struct storage_module_init_options *conf = calloc(1, sizeof(*conf));
    struct graphdriver_status *status;
    char run[2048], *dir;

    snprintf(run, sizeof(run), "%s-run", root);
    conf->storage_root = strdup(root);
    conf->storage_run_root = strdup(run);
    conf->driver_name = strdup(driver);
    CHECK(storage_module_init(conf) == 0);
    free_storage_module_init_options(conf);

    status = graphdriver_get_status();
    CHECK(status != NULL && status->driver_name != NULL && status->backing_fs != NULL);
    free_graphdriver_status(status);
    dir = storage_rootfs_get_dir();
    CHECK(dir != NULL && strncmp(dir, root, strlen(root)) == 0 && strstr(dir, "-containers") != NULL);
    free(dir);
}

static void make_layer(const char *archive)
{
    storage_layer_create_opts_t opts;
    struct layer_list *list;
    struct layer *layer;

    memset(&opts, 0, sizeof(opts));
    opts.uncompress_digest = DIGEST;
    opts.compressed_digest = DIGEST;
    opts.layer_data_path = archive;
    CHECK(storage_layer_create(LAYER, &opts) == 0);
    layer = storage_layer_get(LAYER);
    CHECK(layer != NULL && same(layer->uncompressed_digest, DIGEST) && !layer->writable);
    free_layer(layer);
    list = storage_layers_get_by_compress_digest(DIGEST);
    CHECK(list != NULL && list->layers_len == 1 && same(list->layers[0]->id, LAYER));
    free_layer_list(list);
    CHECK(storage_layer_try_repair_lowers(LAYER, NULL) == 0);
    /* As a pull does: one more for as long as it uses the layer. */
    CHECK(storage_inc_hold_refs(LAYER) == 0);
    CHECK(storage_dec_hold_refs(LAYER) == 0);
}

static void make_image(void)
{
    types_timestamp_t now = { true, 1600000000, true, 5 };
    char digest[] = MANIFEST_DIGEST, **names = NULL, *text;
    struct storage_img_create_options opts = { &now, digest };
    const char *new_names[] = { NAME, OTHER_NAME };
    imagetool_images_list images;
    imagetool_image_summary *summary;
    imagetool_image *image;
    imagetool_fs_info usage;
    size_t len = 0;

    CHECK(storage_img_create(IMAGE, LAYER, NULL, &opts) == 0);
    CHECK(storage_img_add_name(IMAGE, NAME) == 0);
    CHECK(storage_img_set_big_data(IMAGE, "sha256:" IMAGE, CONFIG) == 0);
    CHECK(storage_img_set_big_data(IMAGE, "manifest", MANIFEST) == 0);
    CHECK(storage_img_set_loaded_time(IMAGE, &now) == 0);
    CHECK(storage_img_set_image_size(IMAGE) == 0);
    CHECK(storage_dec_hold_refs(LAYER) == 0);

    image = storage_img_get(NAME);
    CHECK(image != NULL && same(image->id, IMAGE) && image->spec != NULL && image->size > 0);
    summary = storage_img_get_summary(NAME);
    CHECK(summary != NULL && same(summary->top_layer, LAYER));
    CHECK(storage_img_set_names(IMAGE, new_names, 2) == 0);
    CHECK(storage_img_get_names(IMAGE, &names, &len) == 0 && len == 2);
    for (size_t i = 0; i < len; i++) {
        free(names[i]);
    }
    free(names);
    text = storage_img_get_image_id(OTHER_NAME);
    CHECK(same(text, IMAGE));
    free(text);
    text = storage_get_img_top_layer(IMAGE);
    CHECK(same(text, LAYER));
    free(text);
    CHECK(storage_image_exist(IMAGE));
    CHECK(storage_get_img_count() == 1);
    memset(&images, 0, sizeof(images));
    CHECK(storage_get_all_images(&images) == 0 && images.images_len == 1 && same(images.images[0]->id, IMAGE));
    memset(&usage, 0, sizeof(usage));
    CHECK(storage_get_images_fs_usage(&usage) == 0 && usage.image_filesystems_len == 1);
    free_usage(&usage);
}

static void run_container(void)
{
    container_inspect_graph_driver *inspect;
    storage_layer_create_opts_t opts;
    imagetool_fs_info usage;
    struct stat status;
    char path[4096], *mountpoint = NULL;

    CHECK(storage_rootfs_create(CONTAINER, OTHER_NAME, NULL, NULL, &mountpoint) == 0);
    free(mountpoint);
    inspect = storage_get_metadata_by_container_id(CONTAINER);
    CHECK(inspect != NULL && inspect->name != NULL);
    mountpoint = storage_rootfs_mount(CONTAINER);
    CHECK(mountpoint != NULL);
    snprintf(path, sizeof(path), "%s/etc/hostname", mountpoint == NULL ? "" : mountpoint);
    CHECK(stat(path, &status) == 0 && status.st_size == 8);
    free(mountpoint);
    memset(&usage, 0, sizeof(usage));
    CHECK(storage_rootfs_fs_usgae(CONTAINER, &usage) == 0 && usage.image_filesystems_len == 1);
    free_usage(&usage);
    CHECK(storage_rootfs_umount(CONTAINER, false) == 0);

    CHECK(storage_img_delete(IMAGE, true) == -1);
    CHECK(storage_rootfs_delete(CONTAINER) == 0);

    /* A container's layer of which no container is known. */
    memset(&opts, 0, sizeof(opts));
    opts.parent = LAYER;
    opts.writable = true;
    CHECK(storage_layer_create(BROKEN, &opts) == 0);
    CHECK(storage_broken_rw_layer_delete(LAYER) == -1);
    CHECK(storage_broken_rw_layer_delete(BROKEN) == 0);
    CHECK(storage_layer_get(BROKEN) == NULL);
}

static int write_archive(const char *path)
{
    static struct archive archive;
    FILE *file = fopen(path, "w");

    archive_add(&archive, "etc/", NULL);
    archive_add(&archive, "etc/hostname", "minimal\n");
    archive_end(&archive);
    return file != NULL && fwrite(archive.bytes, 1, archive.len, file) == archive.len && fclose(file) == 0;
}

static bool layer_is_there(void)
{
    struct layer *layer = storage_layer_get(LAYER);

    free_layer(layer);
    return layer != NULL;
}

int main(int argc, char **argv)
{
    char archive[2048];

    if (argc != 3) {
        fprintf(stderr, "usage: %s ROOT DRIVER\n", argv[0]);
        return 2;
    }
    snprintf(archive, sizeof(archive), "%s.tar", argv[1]);
    CHECK(write_archive(archive));
    open_module(argv[1], argv[2]);
    make_layer(archive);
    make_image();
    run_container();
    storage_module_exit();

    /* The next start of the daemon. */
    open_module(argv[1], argv[2]);
    CHECK(storage_image_exist(OTHER_NAME));
    CHECK(storage_img_delete(IMAGE, true) == 0);
    CHECK(storage_get_img_count() == 0);
    /* What was put aside of the broken container stands on it: it stays until that is given up. */
    CHECK(layer_is_there());
    make_layer(archive);
    CHECK(storage_dec_hold_refs(LAYER) == 0);
    CHECK(storage_layer_chain_delete(LAYER) == 0);
    CHECK(layer_is_there());
    storage_module_exit();
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
