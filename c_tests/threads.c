/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Eight threads on one layer store, one image store and one rootfs store. What must hold afterwards holds whatever the order was. */

#include "archive.h"
#include "test.h"

#include <pthread.h>

#define THREADS 8
#define ROUNDS 12

static struct archive archive;
static pthread_barrier_t start;
static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;
static int failures;

/* CHECK for threads. */
#define MUST(condition)                                                                          \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            pthread_mutex_lock(&output);                                                         \
            fprintf(stderr, "%s:%d: failed: %s (errno %d; last error: %s)\n", __FILE__, __LINE__, \
                    #condition, errno, isula_storage_last_error());                              \
            failures++;                                                                          \
            pthread_mutex_unlock(&output);                                                       \
        }                                                                                        \
    } while (0)

static int create_layer(const char *id)
{
    struct memory_stream stream = { archive.bytes, archive.len, 300, 0, 0, 0 };
    struct io_read_wrapper content = { &stream, memory_read, memory_close, 0 };
    struct layer_opts opts;

    memset(&opts, 0, sizeof(opts));
    return layer_store_create(id, &opts, &content, NULL);
}

/* The same for all threads: one of them makes it, each gains a reference. */
static void use_the_common_layer(int number)
{
    struct layer *layer;
    char *path;

    MUST(create_layer(ID_A) == 0);
    layer = layer_store_lookup(ID_A);
    MUST(layer != NULL && strcmp(layer->id, ID_A) == 0);
    free_layer(layer);
    path = layer_store_mount(ID_A);
    MUST(path != NULL);
    free(path);
    MUST(layer_store_umount(ID_A, false) == 0);
    if (number % 2 == 0) {
        MUST(layer_inc_hold_refs(ID_A) == 0);
        MUST(layer_dec_hold_refs(ID_A) == 0);
    }
}

/* Each thread's own: no other may disturb it. */
static void use_an_own_layer(int number, int round)
{
    char id[80], own[128];
    struct layer_list list = { NULL, 0 };

    snprintf(id, sizeof(id), "%02d%02d%.60s", number, round, ID_B);
    MUST(create_layer(id) == 0);
    MUST(layer_store_exists(id));
    MUST(layer_store_list(&list) == 0 && list.layers_len >= 1);
    isula_storage_clear_layer_list(&list);
    if (round % 2 == 0) {
        MUST(layer_store_delete(id) == 0);
        MUST(!layer_store_exists(id));
    }
    snprintf(own, sizeof(own), "absent-%d-%d", number, round);
    MUST(layer_store_lookup(own) == NULL && errno == ENOENT);
    MUST(strstr(isula_storage_last_error(), own) != NULL);
}

static void use_images(int number, int round)
{
    char id[80], name[80];
    const char *names[] = { name };
    imagetool_images_list list = { NULL, 0, NULL };
    char *made;

    snprintf(id, sizeof(id), "%02d%02d%.60s", number, round, ID_C);
    snprintf(name, sizeof(name), "own:%d-%d", number, round);
    made = image_store_create(id, names, 1, ID_A, NULL, NULL, NULL);
    MUST(made != NULL);
    free(made);
    MUST(image_store_add_name(id, "common:1") == 0);
    MUST(image_store_exists(name));
    MUST(image_store_set_big_data(id, "data", name) == 0);
    made = image_store_big_data(id, "data");
    MUST(made != NULL && strcmp(made, name) == 0);
    free(made);
    MUST(image_store_get_all_images(&list) == 0);
    isula_storage_clear_imagetool_images_list(&list);
    if (round % 2 == 0) {
        MUST(image_store_delete(name) == 0);
        MUST(!image_store_exists(id));
    }
}

/* Records of the same few containers come and go: each call has a whole one, or none. */
static void use_containers(int number, int round)
{
    char id[80], *made;
    storage_rootfs *record;
    struct rootfs_list list = { NULL, 0 };

    snprintf(id, sizeof(id), "%02d%.62s", (number + round) % 3, ID_A);
    made = rootfs_store_create(id, NULL, 0, ID_C, id, NULL, NULL);
    MUST(made != NULL || errno == EEXIST);
    free(made);
    MUST(rootfs_store_set_metadata(id, "text") == 0 || errno == ENOENT);
    record = rootfs_store_get_rootfs(id);
    MUST(record == NULL || (strcmp(record->id, id) == 0 && strcmp(record->layer, id) == 0));
    isula_storage_free_storage_rootfs(record);
    MUST(rootfs_store_get_all_rootfs(&list) == 0 && list.rootfs_len <= 3);
    isula_storage_clear_rootfs_list(&list);
    made = rootfs_store_lookup(id);
    MUST(made == NULL || strcmp(made, id) == 0);
    free(made);
    MUST(rootfs_store_delete(id) == 0);
}

static void *work(void *argument)
{
    int number = *(int *)argument;

    pthread_barrier_wait(&start);
    for (int round = 0; round < ROUNDS; round++) {
        use_the_common_layer(number);
        use_an_own_layer(number, round);
        use_images(number, round);
        use_containers(number, round);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    char driver[] = "vfs";
    struct storage_module_init_options conf;
    struct layer_list list = { NULL, 0 };
    pthread_t threads[THREADS];
    int numbers[THREADS], holds = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: %s ROOT RUN_ROOT\n", argv[0]);
        return 2;
    }
    memset(&conf, 0, sizeof(conf));
    conf.storage_root = argv[1];
    conf.storage_run_root = argv[2];
    conf.driver_name = driver;
    archive_add(&archive, "file", "content\n");
    archive_end(&archive);
    CHECK(layer_store_init(&conf) == 0);
    CHECK(image_store_init(&conf) == 0);
    CHECK(rootfs_store_init(&conf) == 0);

    CHECK(pthread_barrier_init(&start, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    pthread_barrier_destroy(&start);

    CHECK(failures == 0);
    CHECK(layer_get_hold_refs(ID_A, &holds) == 0 && holds == THREADS * ROUNDS);
    CHECK(layer_store_list(&list) == 0 && list.layers_len == 1 + THREADS * ROUNDS / 2);
    isula_storage_clear_layer_list(&list);
    CHECK(image_store_get_images_number() == THREADS * ROUNDS / 2);
    CHECK(rootfs_store_wipe() == 0);
    layer_store_exit();
    image_store_free();
    rootfs_store_free();
    return DONE();
}
