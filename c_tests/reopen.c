/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Loads the library with dlopen, opens a store, closes the library while the store is open, and loads it again: its code
 * and its store are still there, because the library has threads. A thread that has used it ends after that.
 */

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isula_storage.h"

static int failures;

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            failures++;                                                              \
        }                                                                            \
    } while (0)

static void *find(void *library, const char *name)
{
    void *symbol = dlsym(library, name);

    if (symbol == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(EXIT_FAILURE);
    }
    return symbol;
}

static pthread_barrier_t used, closed;

static void *outlive(void *library)
{
    int (*delete_layer)(const char *);

    *(void **)&delete_layer = find(library, "layer_store_delete");
    CHECK(delete_layer(NULL) == -1 && errno == EINVAL);
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&closed);
    return NULL;
}

int main(int argc, char **argv)
{
    char driver[] = "vfs";
    struct storage_module_init_options conf;
    int (*init)(const struct storage_module_init_options *);
    void (*leave)(void);
    pthread_t thread;
    char run[4096];

    if (argc != 3) {
        fprintf(stderr, "usage: %s LIBRARY ROOT\n", argv[0]);
        return 2;
    }
    snprintf(run, sizeof(run), "%s-run", argv[2]);
    memset(&conf, 0, sizeof(conf));
    conf.storage_root = argv[2];
    conf.storage_run_root = run;
    conf.driver_name = driver;
    CHECK(pthread_barrier_init(&used, NULL, 2) == 0 && pthread_barrier_init(&closed, NULL, 2) == 0);

    for (int round = 0; round < 3; round++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);

        if (library == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return EXIT_FAILURE;
        }
        *(void **)&init = find(library, "layer_store_init");
        *(void **)&leave = find(library, "layer_store_exit");
        if (round == 0) {
            CHECK(init(&conf) == 0);
        } else {
            CHECK(init(&conf) == -1 && errno == EEXIST);
            leave();
            CHECK(init(&conf) == 0);
        }
        CHECK(pthread_create(&thread, NULL, outlive, library) == 0);
        pthread_barrier_wait(&used);
        CHECK(dlclose(library) == 0);
        pthread_barrier_wait(&closed);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
