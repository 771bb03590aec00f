/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Docker's image store from C: its methods, the caller's layers, names, damage, and arguments of every wrong kind. */

#include "archive.h"
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_ROOM 4096

/* The base layer is the chain; the second stands on it. */
#define DIFF_1 "sha256:643a3f3368bb6157351905a5d56cc5432917034473228bae895f0c77cd21e839"
#define DIFF_2 "sha256:cabccd48ce5a59fd17425e39280c66953b2d3df9234064ad99d8fc9b5638b886"
#define CHAIN_2 "sha256:8723d40f385ceb3b90cf5ea67be39d528b6539a80e551f4b19f27e44f2a4c348"
#define ABSENT "sha256:" ID_ABSENT

/* A call fails, with these words. */
#define CHECK_TEXT_OF(failed, text)                                  \
    do {                                                             \
        CHECK(failed);                                               \
        CHECK(strstr(isula_storage_last_error(), text) != NULL);     \
    } while (0)

#define PLAIN_CONFIG "{\"comment\":\"plain\",\"rootfs\":{\"type\":\"layers\"}}"
#define NUL_CONFIG                                                                                                 \
    "{\"comment\":\"a\\u0000b\",\"rootfs\":{\"type\":\"layers\"},\"config\":{\"Env\":[\"A=\\u0000\"],"                  \
    "\"Labels\":{\"k\":\"\\u0000\"}}}"
#define CHILD_CONFIG                                                                                               \
    "{\"created\":\"2026-11-21T07:56:35.56416691Z\",\"author\":\"a\",\"architecture\":\"arm64\",\"os\":\"linux\"," \
    "\"config\":{\"User\":\"u\",\"Env\":[\"A=b\",\"C=d\"],\"Cmd\":[\"sh\"],\"WorkingDir\":\"/w\","                 \
    "\"ExposedPorts\":{\"80/tcp\":{}},\"Labels\":{\"k\":\"v\"}},"                                                  \
    "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIFF_1 "\",\"" DIFF_2 "\"]},"                               \
    "\"history\":[{\"created_by\":\"one\"},{\"created_by\":\"two\"},{\"empty_layer\":true}]}"

/* One layer and the references on it. */
struct layers {
    struct docker_image_store *store;
    const char *chain_id;
    int references;
    int forgotten;
    int fails_with;
    char *reentered;
};

static int retain(void *context, const char *chain_id)
{
    struct layers *layers = context;

    if (layers->fails_with != 0) {
        return layers->fails_with;
    }
    if (strcmp(layers->chain_id, chain_id) != 0) {
        return ENOENT;
    }
    layers->references++;
    /* No lock is held: the store may be used. */
    if (layers->store != NULL) {
        free(layers->reentered);
        layers->reentered = docker_image_store_create(layers->store, PLAIN_CONFIG, strlen(PLAIN_CONFIG));
        CHECK(layers->reentered != NULL);
    }
    return 0;
}

static int release(void *context, const char *chain_id, struct docker_image_removed_layers *removed)
{
    struct layers *layers = context;

    CHECK(strcmp(layers->chain_id, chain_id) == 0);
    if (layers->fails_with != 0) {
        return layers->fails_with;
    }
    if (--layers->references > 0) {
        return 0;
    }
    WORKS(docker_image_store_add_removed_layer(removed, CHAIN_2, DIFF_2, 30, 20) == 0);
    WORKS(docker_image_store_add_removed_layer(removed, DIFF_1, NULL, 10, 10) == 0);
    FAILS(docker_image_store_add_removed_layer(NULL, CHAIN_2, DIFF_2, 0, 0) == -1, EINVAL);
    FAILS(docker_image_store_add_removed_layer(removed, NULL, DIFF_2, 0, 0) == -1, EINVAL);
    FAILS(docker_image_store_add_removed_layer(removed, ID_A, DIFF_2, 0, 0) == -1, EINVAL);
    FAILS(docker_image_store_add_removed_layer(removed, NOT_UTF8, DIFF_2, 0, 0) == -1, EILSEQ);
    FAILS(docker_image_store_add_removed_layer(removed, CHAIN_2, "x", 0, 0) == -1, EINVAL);
    return 0;
}

static void forget(void *context, const char *chain_id)
{
    struct layers *layers = context;

    CHECK(strcmp(layers->chain_id, chain_id) == 0);
    layers->references--;
    layers->forgotten++;
}

static struct layers layers = { .chain_id = CHAIN_2 };
static const struct docker_image_layers callbacks = { sizeof(callbacks), &layers, retain, release, forget };
static const struct docker_image_store_options no_layers = {
    .size = sizeof(no_layers), .layers = DOCKER_IMAGE_LAYERS_NONE
};

static char *create(struct docker_image_store *store, const char *config)
{
    return docker_image_store_create(store, config, strlen(config));
}

static void path_of(char *path, const char *root, const char *part, const char *id)
{
    snprintf(path, PATH_ROOM, "%s/%s/%s", root, part, id + strlen("sha256:"));
}

static void overwrite(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    CHECK(file != NULL && fputs(text, file) >= 0);
    if (file != NULL) {
        fclose(file);
    }
}

static void the_methods_work(const char *root)
{
    struct docker_image_store *store = docker_image_store_open(root, NULL, &callbacks);
    struct docker_image_removed_layer *removed = NULL;
    struct docker_image *image = NULL, *images = NULL;
    char *plain, *child, *again, *text, **ids = NULL;
    types_timestamp_t time;
    size_t len = 77;

    CHECK(store != NULL && docker_image_store_len(store) == 0);
    WORKS((plain = create(store, PLAIN_CONFIG)) != NULL);
    layers.store = store;
    WORKS((child = create(store, CHILD_CONFIG)) != NULL);
    layers.store = NULL;
    CHECK(test_same(layers.reentered, plain));
    WORKS((again = create(store, CHILD_CONFIG)) != NULL);
    CHECK(test_same(child, again) && layers.references == 1 && docker_image_store_len(store) == 2);
    isula_storage_free_string(again);

    WORKS(docker_image_store_set_parent(store, child, plain) == 0);
    FAILS(docker_image_store_set_parent(store, plain, child) == -1, EINVAL);
    FAILS(docker_image_store_set_parent(store, plain, plain) == -1, EINVAL);
    FAILS(docker_image_store_set_parent(store, plain, ABSENT) == -1, ENOENT);
    FAILS(docker_image_store_set_parent(store, ABSENT, plain) == -1, ENOENT);
    WORKS((text = docker_image_store_get_parent(store, child)) != NULL);
    CHECK(test_same(text, plain));
    isula_storage_free_string(text);
    FAILS(docker_image_store_get_parent(store, plain) == NULL, ENOENT);
    CHECK(strstr(isula_storage_last_error(), "failed to read metadata") != NULL);

    WORKS((image = docker_image_store_get(store, child)) != NULL);
    CHECK(test_same(image->id, child) && test_same(image->parent, plain) && test_same(image->chain_id, CHAIN_2));
    CHECK(image->json_len == strlen(CHILD_CONFIG) && test_same(image->json, CHILD_CONFIG));
    CHECK(test_same(image->created, "2026-11-21T07:56:35.56416691Z") && test_same(image->author, "a"));
    CHECK(test_same(image->architecture, "arm64") && test_same(image->os, "linux") && image->comment == NULL);
    CHECK(image->diff_ids_len == 2 && test_same(image->diff_ids[0], DIFF_1) && test_same(image->diff_ids[1], DIFF_2));
    CHECK(image->history_len == 3 && test_same(image->history[1].created_by, "two") && image->history[2].empty_layer);
    CHECK(test_same(image->config->user, "u") && image->config->env_len == 2 && test_same(image->config->env[1], "C=d"));
    CHECK(image->config->cmd_len == 1 && image->config->entrypoint == NULL && image->config->volumes_len == 0);
    CHECK(image->config->labels->len == 1 && test_same(image->config->labels->values[0], "v"));
    docker_image_store_free_image(image);
    FAILS(docker_image_store_get(store, ABSENT) == NULL, ENOENT);
    CHECK(strstr(isula_storage_last_error(), "failed to get digest " ABSENT) != NULL);
    /* A NUL does not cut a text. */
    WORKS((text = docker_image_store_create(store, NUL_CONFIG, strlen(NUL_CONFIG))) != NULL);
    WORKS((image = docker_image_store_get(store, text)) != NULL);
    CHECK(test_same(image->comment, "a\xef\xbf\xbd" "b") && test_same(image->config->env[0], "A=\xef\xbf\xbd"));
    CHECK(test_same(image->config->labels->values[0], "\xef\xbf\xbd"));
    docker_image_store_free_image(image);
    WORKS(docker_image_store_delete(store, text, NULL, NULL) == 0);
    isula_storage_free_string(text);
    CHECK_TEXT_OF(docker_image_store_get(store, "foobar:abc") == NULL, "failed to get digest foobar:abc");
    CHECK_TEXT_OF(docker_image_store_get(store, "sha256:abc") == NULL, "failed to get digest sha256:abc");
    CHECK_TEXT_OF(docker_image_store_get(store, ABSENT "0") == NULL, "failed to get digest " ABSENT "0");
    CHECK_TEXT_OF(docker_image_store_get_parent(store, "nocolon") == NULL, "failed to get digest nocolon");
    CHECK_TEXT_OF(docker_image_store_delete(store, ABSENT, NULL, NULL) != 0, "unrecognized image ID " ABSENT);
    CHECK_TEXT_OF(docker_image_store_delete(store, "nocolon", NULL, NULL) != 0, "unrecognized image ID nocolon");
    CHECK_TEXT_OF(docker_image_store_set_parent(store, "nocolon", ABSENT) != 0, "unknown image ID nocolon");
    CHECK_TEXT_OF(docker_image_store_set_parent(store, ABSENT, "nocolon") != 0, "unknown parent image ID nocolon");

    WORKS((text = docker_image_store_search(store, child + 7)) != NULL);
    CHECK(test_same(text, child));
    isula_storage_free_string(text);
    child[20] = '\0';
    WORKS((text = docker_image_store_search(store, child)) != NULL);
    isula_storage_free_string(child);
    child = text;
    FAILS(docker_image_store_search(store, "") == NULL, EINVAL);
    FAILS(docker_image_store_search(store, "sha256:") == NULL, ENOENT);
    CHECK(strstr(isula_storage_last_error(), "No such image: sha256:") != NULL);

    WORKS(docker_image_store_children(store, plain, &ids, &len) == 0);
    CHECK(len == 1 && test_same(ids[0], child));
    isula_storage_free_strings(ids, len);
    WORKS(docker_image_store_children(store, ABSENT, &ids, &len) == 0);
    CHECK(len == 0 && ids == NULL);
    WORKS(docker_image_store_map(store, &images, &len) == 0);
    CHECK(len == 2 && strcmp(images[0].id, images[1].id) < 0);
    CHECK(images[0].json == NULL && images[0].history == NULL && images[0].config == NULL);
    docker_image_store_free_images(images, len);
    WORKS(docker_image_store_heads(store, &images, &len) == 0);
    CHECK(len == 1 && test_same(images[0].id, child) && images[0].diff_ids_len == 2);
    docker_image_store_free_images(images, len);

    WORKS(docker_image_store_get_last_updated(store, child, &time) == 0);
    CHECK(!time.has_seconds && !time.has_nanos);
    WORKS(docker_image_store_set_last_updated(store, child) == 0);
    WORKS(docker_image_store_get_last_updated(store, child, &time) == 0);
    CHECK(time.has_seconds && time.has_nanos && time.seconds > 1600000000);
    WORKS(docker_image_store_is_built_locally(store, child) == 0);
    WORKS(docker_image_store_set_built_locally(store, child) == 0);
    WORKS(docker_image_store_is_built_locally(store, child) == 1);
    FAILS(docker_image_store_set_last_updated(store, ABSENT) == -1, ENOENT);
    FAILS(docker_image_store_set_built_locally(store, ABSENT) == -1, ENOENT);

    /* Closing gives the reference back, opening takes it again. */
    docker_image_store_close(store);
    CHECK(layers.references == 0 && layers.forgotten == 1);
    FAILS(docker_image_store_len(store) == (size_t)-1, EINVAL);
    docker_image_store_close(store);
    WORKS((store = docker_image_store_open(root, NULL, &callbacks)) != NULL);
    CHECK(layers.references == 1 && docker_image_store_len(store) == 2);
    FAILS(docker_image_store_open(root, NULL, &callbacks) == NULL, EBUSY);

    WORKS(docker_image_store_delete(store, plain, NULL, NULL) == 0);
    FAILS(docker_image_store_delete(store, plain, NULL, NULL) == -1, ENOENT);
    FAILS(docker_image_store_get_parent(store, child) == NULL, ENOENT);
    WORKS(docker_image_store_delete(store, child, &removed, &len) == 0);
    CHECK(len == 2 && test_same(removed[0].chain_id, CHAIN_2) && test_same(removed[0].diff_id, DIFF_2));
    CHECK(removed[0].size == 30 && removed[0].diff_size == 20 && removed[1].diff_id == NULL);
    docker_image_store_free_removed_layers(removed, len);
    CHECK(docker_image_store_len(store) == 0 && layers.references == 0);
    docker_image_store_close(store);
    isula_storage_free_string(plain);
    isula_storage_free_string(child);
    isula_storage_free_string(layers.reentered);
    layers.reentered = NULL;
}

static void layers_that_fail_leave_nothing(const char *root)
{
    static const int codes[] = { ENOENT, EIO, -1, ENOSPC };
    struct docker_image_store *store = docker_image_store_open(root, NULL, &callbacks);
    struct docker_image_problem *problems = NULL;
    char *id;
    size_t len = 0;

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        layers.fails_with = codes[i];
        FAILS(create(store, CHILD_CONFIG) == NULL, codes[i] < 0 ? EIO : codes[i]);
        CHECK(docker_image_store_len(store) == 0);
    }
    layers.fails_with = 0;
    CHECK((id = create(store, CHILD_CONFIG)) != NULL);
    docker_image_store_close(store);

    /* Found without its layer: reported, not listed, and made again once the layer is there. */
    layers.fails_with = EIO;
    WORKS((store = docker_image_store_open(root, NULL, &callbacks)) != NULL);
    CHECK(docker_image_store_len(store) == 0);
    WORKS(docker_image_store_problems(store, &problems, &len) == 0);
    CHECK(len == 1 && strstr(problems[0].subject, id) != NULL && !problems[0].put_aside);
    CHECK(strstr(problems[0].reason, "failed to get layer " CHAIN_2) != NULL);
    docker_image_store_free_problems(problems, len);
    layers.fails_with = 0;
    isula_storage_free_string(id);
    CHECK((id = create(store, CHILD_CONFIG)) != NULL && docker_image_store_len(store) == 1);

    /* The image is gone even if its layer stays. */
    layers.fails_with = EBUSY;
    FAILS(docker_image_store_delete(store, id, NULL, NULL) == -1, EBUSY);
    CHECK(docker_image_store_len(store) == 0);
    layers.fails_with = 0;
    layers.references = 0;
    docker_image_store_close(store);
    isula_storage_free_string(id);
}

static void names_work(const char *root)
{
    struct docker_image_store *store = docker_image_store_open(root, &no_layers, NULL);
    struct docker_image_name *names = NULL;
    struct docker_image_problem *problems = NULL;
    char *id = create(store, PLAIN_CONFIG), *text, **texts = NULL, path[PATH_ROOM];
    size_t len = 77;

    WORKS(docker_image_store_add_name(store, "docker.io/library/busybox", id, false) == 0);
    WORKS(docker_image_store_add_name(store, "localhost/app:v1", id, false) == 0);
    WORKS(docker_image_store_add_name(store, "localhost/app:v1", id, false) == 0);
    FAILS(docker_image_store_add_name(store, "localhost/app:v1", ABSENT, false) == -1, EEXIST);
    WORKS(docker_image_store_add_name(store, "localhost/app@" ABSENT, ABSENT, false) == 0);
    FAILS(docker_image_store_add_name(store, "localhost/app@" ABSENT, id, true) == -1, EEXIST);
    FAILS(docker_image_store_add_name(store, "sha256:x", id, true) == -1, EINVAL);
    FAILS(docker_image_store_add_name(store, "../x", id, true) == -1, EINVAL);
    WORKS((text = docker_image_store_by_name(store, "busybox:latest")) != NULL);
    CHECK(test_same(text, id));
    isula_storage_free_string(text);
    FAILS(docker_image_store_by_name(store, "busybox:other") == NULL, ENOENT);
    WORKS(docker_image_store_names(store, id, &texts, &len) == 0);
    CHECK(len == 2 && test_same(texts[0], "busybox:latest") && test_same(texts[1], "localhost/app:v1"));
    isula_storage_free_strings(texts, len);
    WORKS(docker_image_store_list_names(store, "localhost/app", &names, &len) == 0);
    CHECK(len == 2 && test_same(names[1].name, "localhost/app@" ABSENT) && test_same(names[1].image, ABSENT));
    docker_image_store_free_names(names, len);
    WORKS(docker_image_store_list_names(store, NULL, &names, &len) == 0);
    CHECK(len == 3);
    docker_image_store_free_names(names, len);
    WORKS(docker_image_store_delete_name(store, "busybox") == 0);
    FAILS(docker_image_store_delete_name(store, "busybox") == -1, ENOENT);
    docker_image_store_close(store);

    snprintf(path, sizeof(path), "%s/repositories.json", root);
    overwrite(path, "");
    WORKS((store = docker_image_store_open(root, &no_layers, NULL)) != NULL);
    WORKS(docker_image_store_problems(store, &problems, &len) == 0);
    CHECK(len == 1 && test_same(problems[0].subject, "repositories.json") && problems[0].put_aside);
    docker_image_store_free_problems(problems, len);
    CHECK(docker_image_store_len(store) == 1);
    WORKS(docker_image_store_delete(store, id, NULL, NULL) == 0);
    docker_image_store_close(store);
    isula_storage_free_string(id);
}

static void bad_configs_are_refused(const char *root)
{
    static const char *const bad[] = {
        "{}", "null", "{\"rootfs\":null}", "[]", "x", "{", "{\"rootfs\":{}} x", "{\"rootfs\":5}",
        "{\"rootfs\":{\"diff_ids\":[\"../../x\"]}}", "{\"rootfs\":{},\"created\":\"" NOT_UTF8 "\"}",
        "{\"rootfs\":{},\"history\":[{}]}",
    };
    struct docker_image_store *store = docker_image_store_open(root, &no_layers, NULL);
    size_t large = (size_t)100 << 20, deep = (size_t)1 << 20;
    char *bytes = malloc(large);
    char *id;

    CHECK(bytes != NULL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        FAILS(create(store, bad[i]) == NULL, EBADMSG);
    }
    FAILS(docker_image_store_create(store, "{\"rootfs\":{}}\0", 14) == NULL, EBADMSG);
    FAILS(docker_image_store_create(store, "", 0) == NULL, EINVAL);
    FAILS(docker_image_store_create(store, NULL, 0) == NULL, EINVAL);
    FAILS(docker_image_store_create(store, NULL, 5) == NULL, EINVAL);
    FAILS(docker_image_store_create(store, bytes, (size_t)-1) == NULL, EINVAL);
    FAILS(create(store, "{\"os\":\"windows\",\"rootfs\":{}}") == NULL, EOPNOTSUPP);
    FAILS(create(store, CHILD_CONFIG) == NULL, ENOENT);
    if (bytes != NULL) {
        memset(bytes, ' ', large);
        memcpy(bytes, PLAIN_CONFIG, strlen(PLAIN_CONFIG));
        FAILS(docker_image_store_create(store, bytes, large) == NULL, EFBIG);
        memset(bytes, '[', deep);
        FAILS(docker_image_store_create(store, bytes, deep) == NULL, EBADMSG);
        memset(bytes, 0, deep);
        FAILS(docker_image_store_create(store, bytes, deep) == NULL, EBADMSG);
    }
    free(bytes);
    CHECK(docker_image_store_len(store) == 0);
    /* Bytes behind the length are not looked at. */
    WORKS((id = docker_image_store_create(store, PLAIN_CONFIG "garbage", strlen(PLAIN_CONFIG))) != NULL);
    WORKS(docker_image_store_delete(store, id, NULL, NULL) == 0);
    isula_storage_free_string(id);
    docker_image_store_close(store);
}

static void damage_is_found_and_healed(const char *root)
{
    struct docker_image_store *store = docker_image_store_open(root, &no_layers, NULL);
    char *id = create(store, PLAIN_CONFIG), path[PATH_ROOM];
    struct docker_image *images = NULL;
    size_t len = 77;

    path_of(path, root, "imagedb/content/sha256", id);
    overwrite(path, "damaged");
    FAILS(docker_image_store_get(store, id) == NULL, EBADMSG);
    CHECK(strstr(isula_storage_last_error(), "failed to verify") != NULL);
    WORKS(docker_image_store_map(store, &images, &len) == 0);
    CHECK(len == 0 && docker_image_store_len(store) == 1);
    docker_image_store_free_images(images, len);
    isula_storage_free_string(id);
    WORKS((id = create(store, PLAIN_CONFIG)) != NULL);
    WORKS(docker_image_store_map(store, &images, &len) == 0);
    CHECK(len == 1);
    docker_image_store_free_images(images, len);
    overwrite(path, "");
    WORKS(docker_image_store_delete(store, id, NULL, NULL) == 0);
    isula_storage_free_string(id);
    docker_image_store_close(store);
}

/* What the daemon writes of a layer. */
static void layers_of_a_daemon_are_read(const char *root)
{
    static const char *const files[][2] = {
        { "diff", DIFF_1 }, { "size", "1234" }, { "cache-id", ID_A },
    };
    struct docker_image_store_options options = { .size = sizeof(options), .layers = DOCKER_IMAGE_LAYERS_LAYERDB };
    static const char config[] = "{\"rootfs\":{\"diff_ids\":[\"" DIFF_1 "\"]}}";
    struct docker_image_store *store;
    struct docker_image_layer *layer;
    char path[2 * PATH_ROOM], dir[PATH_ROOM], *id;

    snprintf(path, sizeof(path), "%s/layerdb", root);
    CHECK(mkdir(path, 0700) == 0);
    snprintf(path, sizeof(path), "%s/layerdb/sha256", root);
    CHECK(mkdir(path, 0700) == 0);
    path_of(dir, root, "layerdb/sha256", DIFF_1);
    CHECK(mkdir(dir, 0700) == 0);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, files[i][0]);
        overwrite(path, files[i][1]);
    }
    WORKS((store = docker_image_store_open(root, &options, NULL)) != NULL);
    WORKS((id = create(store, config)) != NULL);
    FAILS(create(store, CHILD_CONFIG) == NULL, ENOENT);
    WORKS((layer = docker_image_store_layer(store, DIFF_1)) != NULL);
    CHECK(test_same(layer->chain_id, DIFF_1) && test_same(layer->diff_id, DIFF_1) && layer->parent == NULL);
    CHECK(test_same(layer->cache_id, ID_A) && layer->size == 1234 && layer->diff_size == 1234);
    docker_image_store_free_layer(layer);
    FAILS(docker_image_store_layer(store, CHAIN_2) == NULL, ENOENT);
    docker_image_store_close(store);

    options.read_only = true;
    WORKS((store = docker_image_store_open(root, &options, NULL)) != NULL);
    CHECK(docker_image_store_len(store) == 1);
    FAILS(create(store, PLAIN_CONFIG) == NULL, EROFS);
    FAILS(docker_image_store_delete(store, id, NULL, NULL) == -1, EROFS);
    FAILS(docker_image_store_add_name(store, "x", id, false) == -1, EROFS);
    docker_image_store_close(store);
    options.read_only = false;
    WORKS((store = docker_image_store_open(root, &options, NULL)) != NULL);
    WORKS(docker_image_store_delete(store, id, NULL, NULL) == 0);
    docker_image_store_close(store);
    CHECK(access(path, F_OK) == 0);
    isula_storage_free_string(id);
}

static void arguments_are_checked(const char *root)
{
    struct docker_image_store_options options = no_layers;
    struct docker_image_layers wrong = callbacks;
    int none = 0;
    struct docker_image_store *bad[] = { NULL, (struct docker_image_store *)&none, NULL }, *store;
    struct docker_image_removed_layer *removed = NULL;
    struct docker_image_problem *problems = NULL;
    struct docker_image_name *names = NULL;
    struct docker_image *images = NULL;
    char **texts = NULL;
    types_timestamp_t time;
    size_t len = 77;

    FAILS(docker_image_store_open(NULL, &no_layers, NULL) == NULL, EINVAL);
    FAILS(docker_image_store_open("", &no_layers, NULL) == NULL, EINVAL);
    FAILS(docker_image_store_open(NOT_UTF8, &no_layers, NULL) == NULL, EILSEQ);
    FAILS(docker_image_store_open(root, NULL, NULL) == NULL, EINVAL);
    CHECK(strstr(isula_storage_last_error(), "layers is NULL") != NULL);
    options.size = 3;
    FAILS(docker_image_store_open(root, &options, NULL) == NULL, EINVAL);
    options = no_layers;
    options.layers = 77;
    FAILS(docker_image_store_open(root, &options, NULL) == NULL, EINVAL);
    wrong.retain = NULL;
    FAILS(docker_image_store_open(root, NULL, &wrong) == NULL, EINVAL);
    wrong = callbacks;
    wrong.release = NULL;
    FAILS(docker_image_store_open(root, NULL, &wrong) == NULL, EINVAL);
    wrong = callbacks;
    wrong.size = 0;
    FAILS(docker_image_store_open(root, NULL, &wrong) == NULL, EINVAL);
    options = no_layers;
    options.read_only = true;
    FAILS(docker_image_store_open("/nonexistent/store", &options, NULL) == NULL, ENOENT);

    store = docker_image_store_open(root, &no_layers, NULL);
    docker_image_store_close(store);
    bad[2] = store;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        FAILS(create(bad[i], PLAIN_CONFIG) == NULL, EINVAL);
        FAILS(docker_image_store_get(bad[i], ABSENT) == NULL, EINVAL);
        FAILS(docker_image_store_delete(bad[i], ABSENT, NULL, NULL) == -1, EINVAL);
        FAILS(docker_image_store_search(bad[i], "a") == NULL, EINVAL);
        FAILS(docker_image_store_set_parent(bad[i], ABSENT, ABSENT) == -1, EINVAL);
        FAILS(docker_image_store_get_parent(bad[i], ABSENT) == NULL, EINVAL);
        FAILS(docker_image_store_children(bad[i], ABSENT, &texts, &len) == -1, EINVAL);
        FAILS(docker_image_store_map(bad[i], &images, &len) == -1, EINVAL);
        FAILS(docker_image_store_heads(bad[i], &images, &len) == -1, EINVAL);
        FAILS(docker_image_store_len(bad[i]) == (size_t)-1, EINVAL);
        FAILS(docker_image_store_set_last_updated(bad[i], ABSENT) == -1, EINVAL);
        FAILS(docker_image_store_get_last_updated(bad[i], ABSENT, &time) == -1, EINVAL);
        FAILS(docker_image_store_set_built_locally(bad[i], ABSENT) == -1, EINVAL);
        FAILS(docker_image_store_is_built_locally(bad[i], ABSENT) == -1, EINVAL);
        FAILS(docker_image_store_problems(bad[i], &problems, &len) == -1, EINVAL);
        FAILS(docker_image_store_add_name(bad[i], "a", ABSENT, false) == -1, EINVAL);
        FAILS(docker_image_store_delete_name(bad[i], "a") == -1, EINVAL);
        FAILS(docker_image_store_by_name(bad[i], "a") == NULL, EINVAL);
        FAILS(docker_image_store_names(bad[i], ABSENT, &texts, &len) == -1, EINVAL);
        FAILS(docker_image_store_list_names(bad[i], NULL, &names, &len) == -1, EINVAL);
        FAILS(docker_image_store_layer(bad[i], ABSENT) == NULL, EINVAL);
        docker_image_store_close(bad[i]);
    }

    store = docker_image_store_open(root, &no_layers, NULL);
    static const struct {
        const char *id;
        int code;
    } ids[] = {
        { NULL, EINVAL }, { NOT_UTF8, EILSEQ }, { "", ENOENT }, { "abc", ENOENT }, { ID_A, ENOENT },
        { "sha256:abc", ENOENT }, { "sha512:" ID_A, ENOENT }, { "sha256:" ID_A "a", ENOENT }, { "../../x", ENOENT },
    };
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        const char *id = ids[i].id;
        int code = ids[i].code;

        FAILS(docker_image_store_get(store, id) == NULL, code);
        FAILS(docker_image_store_delete(store, id, NULL, NULL) == -1, code);
        FAILS(docker_image_store_search(store, id) == NULL, id != NULL && *id == '\0' ? EINVAL : code);
        FAILS(docker_image_store_set_parent(store, id, ABSENT) == -1, code);
        FAILS(docker_image_store_set_parent(store, ABSENT, id) == -1, code);
        FAILS(docker_image_store_get_parent(store, id) == NULL, code);
        FAILS(docker_image_store_children(store, id, &texts, &len) == -1, code);
        FAILS(docker_image_store_set_last_updated(store, id) == -1, code);
        FAILS(docker_image_store_get_last_updated(store, id, &time) == -1, code);
        FAILS(docker_image_store_set_built_locally(store, id) == -1, code);
        FAILS(docker_image_store_is_built_locally(store, id) == -1, code);
        FAILS(docker_image_store_add_name(store, "a", id, false) == -1, code);
        FAILS(docker_image_store_names(store, id, &texts, &len) == -1, code);
        FAILS(docker_image_store_layer(store, id) == NULL, code);
    }
    FAILS(docker_image_store_add_name(store, NULL, ABSENT, false) == -1, EINVAL);
    FAILS(docker_image_store_add_name(store, NOT_UTF8, ABSENT, false) == -1, EILSEQ);
    FAILS(docker_image_store_delete_name(store, NULL) == -1, EINVAL);
    FAILS(docker_image_store_by_name(store, NULL) == NULL, EINVAL);
    FAILS(docker_image_store_list_names(store, NOT_UTF8, &names, &len) == -1, EILSEQ);
    FAILS(docker_image_store_list_names(store, "", &names, &len) == -1, EINVAL);
    FAILS(docker_image_store_delete(store, ABSENT, &removed, NULL) == -1, EINVAL);
    FAILS(docker_image_store_children(store, ABSENT, NULL, &len) == -1, EINVAL);
    FAILS(docker_image_store_children(store, ABSENT, &texts, NULL) == -1, EINVAL);
    FAILS(docker_image_store_map(store, NULL, &len) == -1, EINVAL);
    FAILS(docker_image_store_map(store, &images, NULL) == -1, EINVAL);
    FAILS(docker_image_store_heads(store, NULL, &len) == -1, EINVAL);
    FAILS(docker_image_store_heads(store, &images, NULL) == -1, EINVAL);
    FAILS(docker_image_store_get_last_updated(store, ABSENT, NULL) == -1, EINVAL);
    FAILS(docker_image_store_problems(store, NULL, &len) == -1, EINVAL);
    FAILS(docker_image_store_problems(store, &problems, NULL) == -1, EINVAL);
    FAILS(docker_image_store_names(store, ABSENT, NULL, &len) == -1, EINVAL);
    FAILS(docker_image_store_names(store, ABSENT, &texts, NULL) == -1, EINVAL);
    FAILS(docker_image_store_list_names(store, NULL, NULL, &len) == -1, EINVAL);
    FAILS(docker_image_store_list_names(store, NULL, &names, NULL) == -1, EINVAL);
    /* What is written on success only is as it was. */
    CHECK(len == 77 && texts == NULL && images == NULL && removed == NULL && problems == NULL && names == NULL);
    docker_image_store_close(store);

    docker_image_store_free_image(NULL);
    docker_image_store_free_images(NULL, 0);
    docker_image_store_free_removed_layers(NULL, 0);
    docker_image_store_free_names(NULL, 0);
    docker_image_store_free_problems(NULL, 0);
    docker_image_store_free_layer(NULL);
    docker_image_store_close(NULL);
}

/* Layers of this process's storage: an image holds them. */
static void layers_of_the_storage_are_held(const char *root, char *storage, char *run)
{
    static struct archive archive;
    struct docker_image_store_options options = { .size = sizeof(options), .layers = DOCKER_IMAGE_LAYERS_STORAGE };
    struct storage_module_init_options conf;
    struct io_read_wrapper content;
    struct memory_stream stream;
    struct layer_opts opts;
    struct docker_image_removed_layer *removed = NULL;
    struct docker_image_store *store;
    char driver[] = "vfs", config[256], *made = NULL, *id;
    /* Of the archive. */
    char digest[] = "sha256:90551357a8c0261ce8fb29332f765cb017e99fbc697e47e18e914959ec41f259";
    int holds = 0;
    size_t len = 77;

    archive_add(&archive, "file", "content");
    archive_end(&archive);
    memset(&conf, 0, sizeof(conf));
    conf.storage_root = storage;
    conf.storage_run_root = run;
    conf.driver_name = driver;
    WORKS(storage_module_init(&conf) == 0);
    /* An image layer's id is the hexadecimal part of its chain ID; another layer stands beside it. */
    for (int round = 0; round < 2; round++) {
        memset(&stream, 0, sizeof(stream));
        memset(&opts, 0, sizeof(opts));
        memset(&content, 0, sizeof(content));
        stream.bytes = archive.bytes;
        stream.len = archive.len;
        content.context = &stream;
        content.read = memory_read;
        opts.uncompressed_digest = digest;
        WORKS(layer_store_create(round == 0 ? ID_A : digest + 7, &opts, &content, &made) == 0);
        WORKS(layer_dec_hold_refs(made) == 0);
        isula_storage_free_string(made);
    }
    snprintf(config, sizeof(config), "{\"rootfs\":{\"diff_ids\":[\"%s\"]}}", digest);

    WORKS((store = docker_image_store_open(root, &options, NULL)) != NULL);
    FAILS(create(store, CHILD_CONFIG) == NULL, ENOENT);
    WORKS((id = create(store, config)) != NULL);
    WORKS(layer_get_hold_refs(digest + 7, &holds) == 0);
    CHECK(holds == 1);
    docker_image_store_close(store);
    WORKS(layer_get_hold_refs(digest + 7, &holds) == 0);
    CHECK(holds == 0 && layer_store_exists(digest + 7));
    WORKS((store = docker_image_store_open(root, &options, NULL)) != NULL);
    WORKS(docker_image_store_delete(store, id, &removed, &len) == 0);
    CHECK(len == 1 && test_same(removed[0].chain_id, digest) && test_same(removed[0].diff_id, digest));
    CHECK(removed[0].size == 7 && removed[0].diff_size == 7);
    docker_image_store_free_removed_layers(removed, len);
    CHECK(!layer_store_exists(digest + 7) && layer_store_exists(ID_A));
    storage_module_exit();
    FAILS(create(store, config) == NULL, ENODEV);
    docker_image_store_close(store);
    isula_storage_free_string(id);
}

static void *user(void *argument)
{
    struct docker_image_store *store = argument;
    char config[128], *id;

    for (int i = 0; i < 20; i++) {
        snprintf(config, sizeof(config), "{\"comment\":\"%d\",\"rootfs\":{}}", i % 5);
        id = create(store, config);
        if (id != NULL) {
            docker_image_store_free_image(docker_image_store_get(store, id));
            docker_image_store_delete(store, id, NULL, NULL);
        }
        isula_storage_free_string(id);
    }
    return NULL;
}

static void threads_may_use_it_until_it_is_closed(const char *root)
{
    struct docker_image_store *store = docker_image_store_open(root, &no_layers, NULL);
    pthread_t threads[4];

    for (size_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, user, store) == 0);
    }
    docker_image_store_close(store);
    for (size_t i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    WORKS((store = docker_image_store_open(root, &no_layers, NULL)) != NULL);
    docker_image_store_close(store);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s ROOT STORAGE RUN\n", argv[0]);
        return 2;
    }
    the_methods_work(argv[1]);
    layers_that_fail_leave_nothing(argv[1]);
    names_work(argv[1]);
    bad_configs_are_refused(argv[1]);
    damage_is_found_and_healed(argv[1]);
    layers_of_a_daemon_are_read(argv[1]);
    arguments_are_checked(argv[1]);
    layers_of_the_storage_are_held(argv[1], argv[2], argv[3]);
    threads_may_use_it_until_it_is_closed(argv[1]);
    return DONE();
}
