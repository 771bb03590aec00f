/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Times a library with the interface of iSulad's storage module on making layers: each layer of an image, lookups, lists, a
 * container's mounts, the same while two large layers are made, and removal. The library is loaded with dlopen, so that
 * another implementation can be put beside this one:
 *
 *     cc -O2 -Iinclude -o layers benches/layers.c -ldl -lpthread
 *     layers libisula_storage.so ROOT RUN_ROOT LIST [DRIVER]
 *
 * ROOT and RUN_ROOT must be empty or not exist; the file LIST has a line for each layer, the lowest first: digest of the
 * packed layer, digest of the plain one, path of the packed one. Prints one "name value unit" a line; what the library
 * does not have is left out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "isula_storage.h"

enum { MOST_LAYERS = 128, MOST_TIMES = 2000000 };

static int (*init)(struct storage_module_init_options *);
static void (*leave)(void);
static int (*create)(const char *, storage_layer_create_opts_t *);
static struct layer *(*get)(const char *);
static void (*free_layer_of)(struct layer *);
static int (*release)(const char *);
static int (*remove_chain)(const char *);
static bool (*exists)(const char *);
static int (*list)(struct layer_list *);
static void (*free_list)(struct layer_list *);
static char *(*mount_layer)(const char *);
static int (*umount_layer)(const char *, bool);

static struct {
    char packed[80], plain[80], path[512], id[65];
    off_t size;
} layers[MOST_LAYERS];
static size_t count;
static char container[65];
static const char *root;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct rusage used;
    double sum = 0;
    /* Some unpack in a child. */
    for (int who = 0; who < 2; who++) {
        getrusage(who == 0 ? RUSAGE_SELF : RUSAGE_CHILDREN, &used);
        sum += (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    }
    return sum;
}

static void must(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "layers: %s failed: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void make(const char *id, const char *parent, size_t at)
{
    storage_layer_create_opts_t options = {.parent = parent,
                                           .uncompress_digest = layers[at].plain,
                                           .compressed_digest = layers[at].packed,
                                           .layer_data_path = layers[at].path,
                                           .writable = false};
    must(create(id, &options) == 0, layers[at].path);
}

/* A layer that was made is held once for the image that is to come. */
static int remove_layer(const char *id, bool held)
{
    must(!held || release == NULL || release(id) == 0, "releasing a layer");
    return remove_chain(id);
}

static void look_up(void)
{
    static size_t turn;
    const char *id = layers[turn++ % count].id;
    if (exists != NULL) {
        must(exists(id), id);
    } else {
        struct layer *got = get(id);
        must(got != NULL, id);
        free_layer_of(got);
    }
}

static void list_all(void)
{
    struct layer_list *all = calloc(1, sizeof(*all));
    must(all != NULL && list(all) == 0, "layer_store_list");
    free_list(all);
}

static void mount_cycle(void)
{
    char *at = mount_layer(container);
    must(at != NULL, "layer_store_mount");
    free(at);
    must(umount_layer(container, false) == 0, "layer_store_umount");
}

static char bare_options[4096], bare_target[512];

/* The same lower directories, mounted with the bare system calls: what waits for the disk and the processors only. */
static void bare_mount_cycle(void)
{
    must(mount("overlay", bare_target, "overlay", 0, bare_options) == 0, bare_target);
    must(umount2(bare_target, UMOUNT_NOFOLLOW) == 0, bare_target);
}

static bool prepare_bare_mount(void)
{
    char path[512], lowers[1024] = "", *rest = NULL;
    snprintf(path, sizeof(path), "%s/overlay/%s/lower", root, container);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    bool read = fgets(lowers, sizeof(lowers), file) != NULL;
    fclose(file);
    must(read, path);
    size_t at = (size_t)snprintf(bare_options, sizeof(bare_options), "lowerdir=");
    for (char *lower = strtok_r(lowers, ":\n", &rest); lower != NULL; lower = strtok_r(NULL, ":\n", &rest)) {
        at += (size_t)snprintf(bare_options + at, sizeof(bare_options) - at, "%s%s/overlay/%s",
                               bare_options[at - 1] == '=' ? "" : ":", root, lower);
        must(at < sizeof(bare_options), "listing lower directories");
    }
    const char *const names[] = {"", "/upper", "/work", "/merged"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(bare_target, sizeof(bare_target), "%s.bare%s", root, names[i]);
        must(mkdir(bare_target, 0700) == 0, bare_target);
    }
    snprintf(bare_options + at, sizeof(bare_options) - at, ",upperdir=%s.bare/upper,workdir=%s.bare/work", root, root);
    return true;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static atomic_int running;

static void *import(void *number)
{
    /* The two largest layers, each once more as an image of its own. */
    size_t which = (size_t)number, best = 0;
    for (size_t i = 0; i < count; i++) {
        best = layers[i].size > layers[best].size ? i : best;
    }
    if (which % 2 == 1) {
        size_t second = best == 0 ? 1 : 0;
        for (size_t i = 0; i < count; i++) {
            second = i != best && layers[i].size > layers[second].size ? i : second;
        }
        best = second < count ? second : best;
    }
    char id[65];
    snprintf(id, sizeof(id), "%064zx", 0xb0000000 + which);
    make(id, NULL, best);
    atomic_fetch_sub(&running, 1);
    /* Else the disk would have to be larger by each of them. */
    must(remove_chain == NULL || remove_layer(id, true) == 0, "removing a layer");
    return NULL;
}

static double *times;

/* Repeats a call `most` times, or while both imports run; prints its median and its 99th percentile. */
static void repeat(const char *what, const char *when, void (*call)(void), size_t most)
{
    size_t made = 0;
    bool imports = most == 0;
    while (imports ? made < MOST_TIMES && atomic_load(&running) == 2 : made < most) {
        double start = now();
        call();
        times[made++] = (now() - start) * 1e6;
        /* Called without a pause, it would take a core from the imports. */
        if (imports) {
            struct timespec pause = {.tv_nsec = 200000};
            nanosleep(&pause, NULL);
        }
    }
    must(made > 0, "measuring beside imports: they ended too soon");
    qsort(times, made, sizeof(*times), by_value);
    printf("%s-%s-p50 %.2f us\n", what, when, times[made / 2]);
    printf("%s-%s-p99 %.2f us\n", what, when, times[made * 99 / 100]);
    fflush(stdout);
}

static unsigned long long free_bytes(void)
{
    struct statvfs disk;
    must(statvfs(root, &disk) == 0, root);
    return (unsigned long long)disk.f_bavail * disk.f_frsize;
}

static void beside(const char *what, void (*call)(void), size_t most)
{
    static size_t started;
    unsigned long long before = free_bytes();
    repeat(what, "idle", call, most);
    pthread_t threads[2];
    atomic_store(&running, 2);
    for (size_t i = 0; i < 2; i++) {
        must(pthread_create(&threads[i], NULL, import, (void *)started++) == 0, "pthread_create");
    }
    repeat(what, "two-imports", call, 0);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    /* A library may give the space back some time after it has said that a layer is removed. */
    double start = now();
    while (remove_chain != NULL && free_bytes() + (64 << 20) < before && now() - start < 120) {
        struct timespec pause = {.tv_nsec = 20000000};
        nanosleep(&pause, NULL);
    }
}

static void find(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL) {
        fprintf(stderr, "layers: %s\n", dlerror());
        exit(1);
    }
/* dlsym gives an object pointer; POSIX wants this way of making it a function. */
#define FIND(function, name) (*(void **)(&(function)) = dlsym(library, (name)))
    FIND(init, "storage_module_init");
    FIND(leave, "storage_module_exit");
    FIND(create, "storage_layer_create");
    FIND(get, "storage_layer_get");
    FIND(free_layer_of, "free_layer");
    FIND(remove_chain, "storage_layer_chain_delete");
    FIND(release, "storage_dec_hold_refs");
    FIND(exists, "layer_store_exists");
    FIND(list, "layer_store_list");
    FIND(free_list, "free_layer_list");
    FIND(mount_layer, "layer_store_mount");
    FIND(umount_layer, "layer_store_umount");
    must(init != NULL && create != NULL && (exists != NULL || (get != NULL && free_layer_of != NULL)),
         "finding storage_module_init, storage_layer_create, storage_layer_get");
}

static void read_list(const char *path)
{
    FILE *file = fopen(path, "re");
    must(file != NULL, path);
    while (count < MOST_LAYERS &&
           fscanf(file, "%79s %79s %511s", layers[count].packed, layers[count].plain, layers[count].path) == 3) {
        struct stat stat_of;
        must(stat(layers[count].path, &stat_of) == 0, layers[count].path);
        layers[count].size = stat_of.st_size;
        snprintf(layers[count].id, sizeof(layers[count].id), "%064zx", 0xa0000000 + count);
        count++;
    }
    fclose(file);
    must(count > 0, "reading the list");
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: layers LIBRARY ROOT RUN_ROOT LIST [DRIVER]\n");
        return 2;
    }
    find(argv[1]);
    root = argv[2];
    read_list(argv[4]);
    times = calloc(MOST_TIMES, sizeof(*times));
    must(times != NULL, "calloc");
    struct storage_module_init_options options;
    memset(&options, 0, sizeof(options));
    options.storage_root = argv[2];
    options.storage_run_root = argv[3];
    options.driver_name = argc > 5 ? argv[5] : "overlay";
    must(init(&options) == 0, "storage_module_init");

    double start = now(), used = cpu();
    for (size_t i = 0; i < count; i++) {
        double one = now();
        make(layers[i].id, i > 0 ? layers[i - 1].id : NULL, i);
        printf("create-layer-%zu %.3f s\n", i + 1, now() - one);
    }
    printf("create-all %.3f s\n", now() - start);
    printf("create-all-cpu %.3f s\n", cpu() - used);
    struct rusage peak;
    getrusage(RUSAGE_SELF, &peak);
    printf("peak %ld KiB\n", peak.ru_maxrss);

    beside("lookup", look_up, 20000);
    if (list != NULL && free_list != NULL) {
        beside("list", list_all, 2000);
    }
    if (mount_layer != NULL && umount_layer != NULL) {
        snprintf(container, sizeof(container), "%064x", 0xc0000000);
        storage_layer_create_opts_t writable = {.parent = layers[count - 1].id, .writable = true};
        must(create(container, &writable) == 0, "making a container's layer");
        if (prepare_bare_mount()) {
            beside("bare-mount-cycle", bare_mount_cycle, 500);
        }
        beside("mount-cycle", mount_cycle, 500);
        must(remove_chain == NULL || remove_layer(container, true) == 0, "removing a container's layer");
    }
    if (remove_chain != NULL) {
        for (size_t i = 0; i < count && release != NULL; i++) {
            must(release(layers[i].id) == 0, "releasing a layer");
        }
        start = now();
        must(remove_chain(layers[count - 1].id) == 0, "removing the layers");
        printf("remove-all %.3f s\n", now() - start);
    }
    if (leave != NULL) {
        leave();
    }
    return 0;
}
