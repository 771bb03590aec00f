/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Many users of one daemon at once. Which command of two that contradict each other wins is open; that no image and no
 * container is ever seen in part, and what is left in the end, is not. */

#include "daemon.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MOST_THREADS 8
/* So often a container loses against those that remove its image before they are asked to wait. */
#define MOST_TRIES 20

static struct daemon_config config;
static int rounds;
/* Images that were there before and that nobody here knows. */
static size_t strangers;
static pthread_barrier_t start;
/* Shared by those that pull or remove an image that others make containers of: a pull that fails removes it, too. Who waits
 * for it alone is let in before new sharers: without that one scheduler or another lets a container lose for ever. */
static pthread_rwlock_t removers;
static struct bundle *base, *derived, *plain, *tar, *gz, *others[4];

#ifdef RACY
/* What one thread hands to the library while another writes to it: the checker of races has to see this through it. */
static types_timestamp_t shared_time = { true, 1, true, 1 };
#endif

/* The same image for all who have this job, and gone again and again. */
static void pull_and_remove(int number, int round)
{
    MUST(pthread_rwlock_rdlock(&removers) == 0);
    /* It may have been removed between two steps of this pull. */
    if (daemon_pull(derived, derived->name, FAIL_NOT) == 0) {
        daemon_tag(derived->id, number % 2 == 0 ? "derived:even" : "derived:odd");
    }
    if (round % 2 == 0) {
        daemon_clear_message();
        if (daemon_rmi("derived") != 0 && daemon_message() != NULL) {
            MUST(strncmp(daemon_message(), "Image used by c0", 16) == 0 ||
                 strncmp(daemon_message(), "Failed to tag image", 19) == 0);
        }
        daemon_rmi(derived->id);
    }
    MUST(pthread_rwlock_unlock(&removers) == 0);
}

/* A container of an image that others pull and remove. Once it is there its image stays whole. */
static void run_a_container(int number, int round, const struct bundle *bundle)
{
    char id[65], text[64], file[600];

    snprintf(id, sizeof(id), "c0%02x%02x%058d", (unsigned)number & 255, (unsigned)round & 255, 0);
    for (int tries = 0; daemon_create(id, bundle->name, NULL, NULL) != 0; tries++) {
        if (tries < MOST_TRIES) {
            MUST(pthread_rwlock_rdlock(&removers) == 0);
            daemon_pull(bundle, bundle->name, FAIL_NOT);
            MUST(pthread_rwlock_unlock(&removers) == 0);
            continue;
        }
        MUST(pthread_rwlock_wrlock(&removers) == 0);
        MUST(daemon_pull(bundle, bundle->name, FAIL_NOT) == 0);
        MUST(daemon_create(id, bundle->name, NULL, NULL) == 0);
        MUST(pthread_rwlock_unlock(&removers) == 0);
        break;
    }
    MUST(storage_image_exist(bundle->id));
    MUST(daemon_look(id, bundle) == 0);
    MUST(daemon_mount(id) == 0);
    snprintf(text, sizeof(text), "%d %d\n", number, round);
    MUST(daemon_exec_write(id, "root/own", text) == 0);
    MUST(daemon_exec_reads(id, "root/own", text));
    if (round % 4 == 0) {
        snprintf(file, sizeof(file), "%s/%s.tar", config.state, id);
        MUST(daemon_export(id, file) == 0);
    }
    MUST(daemon_usage(id) == 0);
    MUST(daemon_create(id, bundle->name, NULL, NULL) == -1);
    MUST(daemon_exec_reads(id, "root/own", text));
    MUST(daemon_umount(id, false) == 0);
    daemon_clear_message();
    MUST(daemon_rmi(bundle->id) == -1);
    MUST(daemon_message() != NULL && strncmp(daemon_message(), "Image used by ", 14) == 0);
    MUST(daemon_rm(id) == 0);
    MUST(daemon_merged(id) == NULL);
}

static void load_and_remove(int number)
{
    const char *names[] = { "plain:1", "plain:2" };

    MUST(daemon_load(plain, names, 2) == 0 || errno == ENOENT);
    daemon_tag("plain:1", number % 2 == 0 ? "plain:3" : "plain:4");
    daemon_rmi("plain:2");
    daemon_rmi(plain->id);
}

static void import_and_remove(int round)
{
    const struct bundle *bundle = round % 2 == 0 ? tar : gz;

    daemon_import(bundle, bundle->name);
    daemon_rmi(round % 2 == 0 ? "imported-tar" : "imported-gz");
}

/* Layers that fail while others use those below them. */
static void fail_to_pull(int number, int round)
{
    const struct bundle *bundle = others[number % 4];

    MUST(daemon_pull(bundle, bundle->name, round % 2 == 0 ? FAIL_AFTER_LAYERS : FAIL_AFTER_CONFIG) == -1 ||
         storage_image_exist(bundle->id));
    daemon_pull(bundle, bundle->name, FAIL_NOT);
    daemon_rmi(bundle->id);
}

static void *work(void *argument)
{
    int number = *(int *)argument;

    pthread_barrier_wait(&start);
    for (int round = 0; round < rounds; round++) {
#ifdef RACY
        if (number == 0) {
            shared_time.seconds++;
        } else {
            storage_img_set_loaded_time(base->id, &shared_time);
        }
#endif
        switch (number % 8) {
        case 0:
        case 3:
            pull_and_remove(number, round);
            break;
        case 1:
            run_a_container(number, round, derived);
            break;
        case 2:
            run_a_container(number, round, others[3]);
            break;
        case 4:
            load_and_remove(number);
            break;
        case 5:
            import_and_remove(round);
            break;
        case 6:
            fail_to_pull(number, round);
            break;
        default:
            MUST(daemon_ask() == 0);
            run_a_container(number, round, derived);
        }
        MUST(daemon_inspect("base", base->id) == 0);
    }
    return NULL;
}

#define ASKED "a5c0000000000000000000000000000000000000000000000000000000000000"

static atomic_bool ended;

static void *ask(void *argument)
{
    (void)argument;
    while (!atomic_load(&ended)) {
        imagetool_images_list *list = calloc(1, sizeof(*list));

        /* Answers, or says that there is no storage: both are right here. */
        if (list != NULL) {
            storage_get_all_images(list);
        }
        isula_storage_free_imagetool_images_list(list);
        free_graphdriver_status(graphdriver_get_status());
        if (storage_rootfs_create(ASKED, base->name, NULL, NULL, NULL) == 0) {
            free(storage_rootfs_mount(ASKED));
            storage_rootfs_umount(ASKED, true);
        }
        storage_rootfs_delete(ASKED);
        isula_storage_free_imagetool_image(storage_img_get(base->name));
    }
    return NULL;
}

/* The daemon ends and starts while requests are under way. */
static void ends_under_requests(void)
{
    pthread_t threads[2];

    for (int i = 0; i < 2; i++) {
        MUST(pthread_create(&threads[i], NULL, ask, NULL) == 0);
    }
    for (int i = 0; i < rounds; i++) {
        daemon_stop();
        MUST(daemon_start(&config) == 0);
        MUST(daemon_inspect(base->id, base->id) == 0);
    }
    atomic_store(&ended, true);
    for (int i = 0; i < 2; i++) {
        MUST(pthread_join(threads[i], NULL) == 0);
    }
    /* An end may have come between its creation and its removal. */
    MUST(daemon_umount(ASKED, true) == 0 && daemon_rm(ASKED) == 0);
}

/* Whole, unused, and then removed with all that stood on it alone. */
static void ends_well(const struct bundle *bundle, bool imported)
{
    const char *id = "e0d0000000000000000000000000000000000000000000000000000000000000";

    MUST((imported ? daemon_import(bundle, bundle->name) : daemon_pull(bundle, bundle->name, FAIL_NOT)) == 0);
    MUST(daemon_inspect(bundle->id, bundle->id) == 0);
    MUST(daemon_create(id, bundle->name, NULL, NULL) == 0);
    MUST(daemon_look(id, bundle) == 0);
    MUST(daemon_rm(id) == 0);
    for (size_t i = 0; i < bundle->layers_len; i++) {
        int holds = -1;

        MUST(layer_get_hold_refs(bundle->layers[i].id, &holds) == 0 && holds == 0);
    }
    MUST(daemon_rmi(bundle->id) == 0);
    MUST(!storage_image_exist(bundle->id));
}

/* Says what is left, by the ids. */
static void list_layers(void)
{
    struct layer_list list = { NULL, 0 };

    MUST(layer_store_list(&list) == 0);
    for (size_t i = 0; i < list.layers_len; i++) {
        fprintf(stderr, "layer %s on %s\n", list.layers[i]->id,
                list.layers[i]->parent == NULL ? "nothing" : list.layers[i]->parent);
    }
    isula_storage_clear_layer_list(&list);
}

static bool has_a_layer(const struct bundle *bundle)
{
    for (size_t i = 0; i < bundle->layers_len; i++) {
        struct layer *layer = storage_layer_get(bundle->layers[i].id);

        free_layer(layer);
        if (layer != NULL) {
            return true;
        }
    }
    return false;
}

static void all_ends_well(void)
{
    struct bundle *all[] = { derived, plain, tar, gz, others[0], others[1], others[2], others[3], base };
    const size_t len = sizeof(all) / sizeof(all[0]);

    for (size_t i = 0; i < len; i++) {
        ends_well(all[i], all[i] == tar || all[i] == gz);
    }
    MUST(storage_get_img_count() == strangers);
    for (size_t i = 0; i < len; i++) {
        MUST(!has_a_layer(all[i]));
        bundle_free(all[i]);
    }
    if (daemon_failures() > 0) {
        list_layers();
    }
}

int main(int argc, char **argv)
{
    pthread_t threads[MOST_THREADS];
    pthread_rwlockattr_t alone_first;
    int numbers[MOST_THREADS], count;

    if (argc != 7) {
        fprintf(stderr, "usage: %s GRAPH STATE DRIVER BUNDLES THREADS ROUNDS\n", argv[0]);
        return 2;
    }
    config.graph = argv[1];
    config.state = argv[2];
    config.driver = argv[3];
    count = atoi(argv[5]);
    rounds = atoi(argv[6]);
    mkdir(config.graph, 0700);
    mkdir(config.state, 0700);
    base = bundle_read(argv[4], "base");
    derived = bundle_read(argv[4], "derived");
    plain = bundle_read(argv[4], "plain");
    tar = bundle_read(argv[4], "imported-tar");
    gz = bundle_read(argv[4], "imported-gz");
    for (int i = 0; i < 4; i++) {
        char name[] = "other1";

        name[5] = (char)('1' + i);
        others[i] = bundle_read(argv[4], name);
    }
    MUST(daemon_start(&config) == 0);
    strangers = storage_get_img_count();
    MUST(daemon_pull(base, base->name, FAIL_NOT) == 0);

    MUST(count >= 2 && count <= MOST_THREADS);
    pthread_barrier_init(&start, NULL, (unsigned)count);
    MUST(pthread_rwlockattr_init(&alone_first) == 0);
    MUST(pthread_rwlockattr_setkind_np(&alone_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
    MUST(pthread_rwlock_init(&removers, &alone_first) == 0);
    for (int i = 0; i < count; i++) {
        numbers[i] = i;
        MUST(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0);
    }
    for (int i = 0; i < count; i++) {
        MUST(pthread_join(threads[i], NULL) == 0);
    }
    pthread_barrier_destroy(&start);
    pthread_rwlock_destroy(&removers);
    pthread_rwlockattr_destroy(&alone_first);
    ends_under_requests();
    daemon_stop();
    MUST(daemon_start(&config) == 0);
    all_ends_well();
    daemon_stop();
    return daemon_failures() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
