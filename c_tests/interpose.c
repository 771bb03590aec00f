/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A program that brings its own storage_layers_get_by_compress_digest and free_layer_list, as the reference's tests do:
 * the image store asks it for the layers of an image of schema 1, which is converted when the store is opened.
 */

#include "test.h"

#include <sys/stat.h>

#define OLD_ID "2aef2fee2aef2fee2aef2fee2aef2fee2aef2fee2aef2fee2aef2fee2aef2fee"
#define BASE_BLOB "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define TOP_BLOB "sha256:2222222222222222222222222222222222222222222222222222222222222222"
#define BASE_DIFF "sha256:643a3f3368bb6157351905a5d56cc5432917034473228bae895f0c77cd21e839"
#define TOP_DIFF "sha256:cabccd48ce5a59fd17425e39280c66953b2d3df9234064ad99d8fc9b5638b886"
/* Chain IDs of the two. */
#define BASE_ID "643a3f3368bb6157351905a5d56cc5432917034473228bae895f0c77cd21e839"
#define TOP_ID "8723d40f385ceb3b90cf5ea67be39d528b6539a80e551f4b19f27e44f2a4c348"

#define MANIFEST                                                                                               \
    "{\"schemaVersion\":1,\"name\":\"old\",\"tag\":\"1\",\"architecture\":\"amd64\","                          \
    "\"fsLayers\":[{\"blobSum\":\"" TOP_BLOB "\"},{\"blobSum\":\"" BASE_BLOB "\"}],\"history\":["              \
    "{\"v1Compatibility\":\"{\\\"architecture\\\":\\\"amd64\\\",\\\"os\\\":\\\"linux\\\","                     \
    "\\\"created\\\":\\\"2019-10-11T17:26:17.8Z\\\",\\\"config\\\":{\\\"Cmd\\\":[\\\"sh\\\"]}}\"},"            \
    "{\"v1Compatibility\":\"{\\\"id\\\":\\\"b\\\",\\\"created\\\":\\\"2019-10-10T17:26:17.8Z\\\"}\"}]}"

#define RECORD                                                              \
    "{\"id\":\"" OLD_ID "\",\"names\":[\"old:1\"],\"layer\":\"" TOP_ID "\"," \
    "\"big-data-names\":[\"manifest\"],\"created\":\"2019-10-11T17:26:17.800000000+00:00\"}"

static int asked, freed;

static struct layer *new_layer(const char *id, const char *parent, const char *diff)
{
    struct layer *layer = calloc(1, sizeof(*layer));

    layer->id = strdup(id);
    layer->parent = parent == NULL ? NULL : strdup(parent);
    layer->uncompressed_digest = strdup(diff);
    return layer;
}

struct layer_list *storage_layers_get_by_compress_digest(const char *digest)
{
    struct layer_list *list;

    asked++;
    if (strcmp(digest, BASE_BLOB) != 0 && strcmp(digest, TOP_BLOB) != 0) {
        return NULL;
    }
    list = calloc(1, sizeof(*list));
    list->layers = calloc(2, sizeof(*list->layers));
    if (strcmp(digest, BASE_BLOB) == 0) {
        list->layers[0] = new_layer(BASE_ID, NULL, BASE_DIFF);
        list->layers_len = 1;
    } else {
        /* The first has another parent: it is not the one. */
        list->layers[0] = new_layer(ID_A, ID_B, TOP_DIFF);
        list->layers[1] = new_layer(TOP_ID, BASE_ID, TOP_DIFF);
        list->layers_len = 2;
    }
    return list;
}

void free_layer_list(struct layer_list *list)
{
    freed++;
    if (list == NULL) {
        return;
    }
    for (size_t i = 0; i < list->layers_len; i++) {
        free_layer(list->layers[i]);
    }
    free(list->layers);
    free(list);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "w");
    CHECK(file != NULL);
    if (file != NULL) {
        CHECK(fputs(text, file) >= 0);
        CHECK(fclose(file) == 0);
    }
}

/* An image of schema 1 in the image store of this driver. */
static void make_old_image(const char *root, const char *driver)
{
    char dir[2048];

    CHECK(mkdir(root, 0700) == 0);
    snprintf(dir, sizeof(dir), "%s/%s-images", root, driver);
    CHECK(mkdir(dir, 0700) == 0);
    snprintf(dir, sizeof(dir), "%s/%s-images/" OLD_ID, root, driver);
    CHECK(mkdir(dir, 0700) == 0);
    write_file(dir, "manifest", MANIFEST);
    write_file(dir, "images.json", RECORD);
    asked = freed = 0;
}

static void the_image_store_asks_the_program(char *root)
{
    char driver[] = "overlay", dir[2048], *id;
    struct storage_module_init_options conf;
    struct stat status;
    imagetool_image *image;

    make_old_image(root, driver);
    memset(&conf, 0, sizeof(conf));
    conf.storage_root = root;
    conf.driver_name = driver;
    WORKS(image_store_init(&conf) == 0);
    CHECK(asked == 2);
    CHECK(freed == asked);

    WORKS((id = image_store_lookup("old:1")) != NULL);
    CHECK(id != NULL && strcmp(id, OLD_ID) != 0);
    snprintf(dir, sizeof(dir), "%s/%s-images/" OLD_ID, root, driver);
    CHECK(stat(dir, &status) == -1 && errno == ENOENT);
    WORKS((image = image_store_get_image("old:1")) != NULL);
    if (image != NULL) {
        CHECK(test_same(image->id, id) && test_same(image->top_layer, TOP_ID));
        CHECK(image->spec->rootfs->diff_ids_len == 2 && test_same(image->spec->rootfs->diff_ids[0], BASE_DIFF)
              && test_same(image->spec->rootfs->diff_ids[1], TOP_DIFF));
    }
    isula_storage_free_imagetool_image(image);
    free(id);
    image_store_free();
}

static void the_storage_asks_the_program(char *root)
{
    char driver[] = "vfs", run[2048];
    struct storage_module_init_options conf;

    make_old_image(root, driver);
    snprintf(run, sizeof(run), "%s-run", root);
    memset(&conf, 0, sizeof(conf));
    conf.storage_root = root;
    conf.storage_run_root = run;
    conf.driver_name = driver;
    WORKS(storage_module_init(&conf) == 0);
    CHECK(asked == 2);
    CHECK(freed == asked);
    storage_module_exit();
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s ROOT ANOTHER\n", argv[0]);
        return 2;
    }
    the_image_store_asks_the_program(argv[1]);
    the_storage_asks_the_program(argv[2]);
    return DONE();
}
