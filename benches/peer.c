/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Times a library with the interface of iSulad's storage module on a storage that exists already: opening it, lookups,
 * lists, summaries. The library is loaded with dlopen, so that another implementation can be put beside this one:
 *
 *     cc -O2 -Iinclude -o peer benches/peer.c -ldl
 *     peer libisula_storage.so /path/of/root /path/of/run-root [driver [rounds]]
 *
 * Prints one "name value unit" a line. Calls are made in batches of 200, and of each batch the fastest round counts: a
 * busy machine adds to the others. With 0 rounds it only opens. What the library does not have is left out. It writes
 * into the storage what opening it writes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "isula_storage.h"

static void *library;
static int rounds = 7;

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* dlsym gives an object pointer; POSIX wants this way of making it a function. */
#define FIND(function, name) (*(void **)(&(function)) = dlsym(library, (name)))

static long resident_kib(const char *key)
{
    char line[256];
    long kib = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0) {
            kib = atol(line + strlen(key) + 1);
        }
    }
    if (status != NULL) {
        fclose(status);
    }
    return kib;
}

static void must(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "peer: %s failed: %s\n", what, strerror(errno));
        exit(1);
    }
}

typedef void (*call_fn)(const char *text);

static char *(*lookup)(const char *);
static bool (*exists)(const char *);
static imagetool_image_summary *(*summary)(char *);
static void (*free_summary)(imagetool_image_summary *);

static void call_lookup(const char *text)
{
    free(lookup(text));
}

static void call_exists(const char *text)
{
    volatile bool answer = exists(text);
    (void)answer;
}

static void call_summary(const char *text)
{
    imagetool_image_summary *got = summary((char *)text);
    must(got != NULL, text);
    free_summary(got);
}

/* In an order that caches cannot guess, the same for every library. */
static void shuffle(char **texts, size_t len)
{
    unsigned long long state = 88172645463325252ULL;
    for (size_t i = len; i > 1; i--) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        size_t j = (size_t)(state % i);
        char *kept = texts[i - 1];
        texts[i - 1] = texts[j];
        texts[j] = kept;
    }
}

enum { BATCH = 200, MOST_BATCHES = 100 };

static void measure(const char *what, call_fn call, char **texts, size_t len)
{
    double best[MOST_BATCHES] = {0}, sum = 0;
    size_t batches = len / BATCH < MOST_BATCHES ? len / BATCH : MOST_BATCHES;
    size_t each = batches > 0 ? BATCH : len;
    batches = batches > 0 ? batches : 1;
    for (int round = 0; round <= rounds; round++) {
        for (size_t batch = 0; batch < batches; batch++) {
            double start = now(CLOCK_MONOTONIC);
            for (size_t i = batch * each; i < (batch + 1) * each; i++) {
                call(texts[i]);
            }
            double took = now(CLOCK_MONOTONIC) - start;
            /* The first round is to warm up. */
            if (round == 1 || took < best[batch] || best[batch] == 0) {
                best[batch] = took;
            }
        }
    }
    for (size_t batch = 0; batch < batches; batch++) {
        sum += best[batch];
    }
    printf("%s %.3f us\n", what, sum / (double)(batches * each) * 1e6);
    fflush(stdout);
}

/* Each text with its end cut off after `len` bytes, or with one byte changed. */
static char **derived(char **texts, size_t count, size_t len, int miss)
{
    char **made = calloc(count, sizeof(char *));
    must(made != NULL, "calloc");
    for (size_t i = 0; i < count; i++) {
        made[i] = strndup(texts[i], len != 0 ? len : strlen(texts[i]));
        must(made[i] != NULL, "strndup");
        if (miss) {
            size_t last = strlen(made[i]) - 1;
            made[i][last] = made[i][last] == '0' ? '1' : '0';
        }
    }
    return made;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: peer LIBRARY ROOT RUN_ROOT [DRIVER [ROUNDS]]\n");
        return 2;
    }
    library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL) {
        fprintf(stderr, "peer: %s\n", dlerror());
        return 1;
    }
    if (argc > 5) {
        rounds = atoi(argv[5]);
    }
    int (*init)(struct storage_module_init_options *);
    void (*leave)(void);
    int (*list)(imagetool_images_list *);
    void (*clear)(imagetool_images_list *);
    FIND(init, "storage_module_init");
    FIND(leave, "storage_module_exit");
    FIND(list, "storage_get_all_images");
    must(init != NULL && list != NULL, "finding storage_module_init and storage_get_all_images");
    if (FIND(clear, "isula_storage_clear_imagetool_images_list") == NULL) {
        /* libisula's frees the struct as well. */
        clear = NULL;
    }
    void (*free_list)(imagetool_images_list *);
    FIND(free_list, "free_imagetool_images_list");
    if (FIND(free_summary, "isula_storage_free_imagetool_image_summary") == NULL) {
        FIND(free_summary, "free_imagetool_image_summary");
    }
    must((clear != NULL || free_list != NULL) && free_summary != NULL, "finding what frees lists and summaries");

    struct storage_module_init_options options;
    memset(&options, 0, sizeof options);
    options.storage_root = argv[2];
    options.storage_run_root = argv[3];
    options.driver_name = argc > 4 ? argv[4] : "overlay";
    long before = resident_kib("VmRSS:");
    double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    must(init(&options) == 0, "storage_module_init");
    printf("init %.1f ms\n", (now(CLOCK_MONOTONIC) - wall) * 1e3);
    printf("init-cpu %.1f ms\n", (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) * 1e3);
    printf("init-memory %ld KiB\n", resident_kib("VmRSS:") - before);
    printf("init-peak %ld KiB\n", resident_kib("VmHWM:"));

    if (rounds == 0) {
        /* Only opening was asked for, as for a profile. */
        if (leave != NULL) {
            leave();
        }
        return 0;
    }
    double best = 0, best_free = 0;
    char **ids = NULL, **names = NULL, **layers = NULL;
    size_t images = 0, named = 0, layered = 0;
    for (int round = 0; round <= rounds; round++) {
        imagetool_images_list *all = calloc(1, sizeof *all);
        must(all != NULL, "calloc");
        double start = now(CLOCK_MONOTONIC);
        must(list(all) == 0, "storage_get_all_images");
        double took = now(CLOCK_MONOTONIC) - start;
        if (round == 0) {
            images = all->images_len;
            ids = calloc(images + 1, sizeof(char *));
            names = calloc(images + 1, sizeof(char *));
            layers = calloc(images + 1, sizeof(char *));
            must(ids != NULL && names != NULL && layers != NULL && images > 0, "listing images");
            for (size_t i = 0; i < images; i++) {
                const imagetool_image_summary *image = all->images[i];
                ids[i] = strdup(image->id);
                if (image->repo_tags_len > 0) {
                    names[named++] = strdup(image->repo_tags[0]);
                }
                if (image->top_layer != NULL) {
                    layers[layered++] = strdup(image->top_layer);
                }
            }
        }
        start = now(CLOCK_MONOTONIC);
        if (clear != NULL) {
            clear(all);
            free(all);
        } else {
            free_list(all);
        }
        double freed = now(CLOCK_MONOTONIC) - start;
        best = round <= 1 || took < best ? took : best;
        best_free = round <= 1 || freed < best_free ? freed : best_free;
    }
    printf("images %zu\n", images);
    printf("list %.2f ms\n", best * 1e3);
    printf("list-free %.2f ms\n", best_free * 1e3);
    shuffle(ids, images);
    shuffle(names, named);
    shuffle(layers, layered);
    char **prefixes = derived(ids, images, 12, 0);
    char **misses = derived(ids, images, 0, 1);
    char **no_names = derived(names, named, 0, 1);

    const char *lookups[] = {"image_store_lookup", "storage_img_get_image_id"};
    for (size_t i = 0; i < sizeof lookups / sizeof *lookups; i++) {
        char what[100];
        if (FIND(lookup, lookups[i]) == NULL) {
            continue;
        }
        snprintf(what, sizeof what, "%s-id", lookups[i]);
        measure(what, call_lookup, ids, images);
        snprintf(what, sizeof what, "%s-name", lookups[i]);
        measure(what, call_lookup, names, named);
        snprintf(what, sizeof what, "%s-prefix", lookups[i]);
        measure(what, call_lookup, prefixes, images);
        snprintf(what, sizeof what, "%s-miss", lookups[i]);
        measure(what, call_lookup, misses, images);
    }
    const char *questions[] = {"image_store_exists", "storage_image_exist"};
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        char what[100];
        if (FIND(exists, questions[i]) == NULL) {
            continue;
        }
        snprintf(what, sizeof what, "%s-id", questions[i]);
        measure(what, call_exists, ids, images);
        snprintf(what, sizeof what, "%s-name", questions[i]);
        measure(what, call_exists, names, named);
        snprintf(what, sizeof what, "%s-prefix", questions[i]);
        measure(what, call_exists, prefixes, images);
        snprintf(what, sizeof what, "%s-miss", questions[i]);
        measure(what, call_exists, misses, images);
        snprintf(what, sizeof what, "%s-miss-name", questions[i]);
        measure(what, call_exists, no_names, named);
    }
    if (FIND(exists, "layer_store_exists") != NULL) {
        measure("layer_store_exists-id", call_exists, layers, layered);
        measure("layer_store_exists-miss", call_exists, misses, images);
    }
    if (FIND(summary, "storage_img_get_summary") != NULL) {
        measure("storage_img_get_summary-id", call_summary, ids, images);
        measure("storage_img_get_summary-name", call_summary, names, named);
    }
    if (leave != NULL) {
        double start = now(CLOCK_MONOTONIC);
        leave();
        printf("exit %.1f ms\n", (now(CLOCK_MONOTONIC) - start) * 1e3);
    }
    return 0;
}
