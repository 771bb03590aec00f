/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Streams whose read function misbehaves, small ones and such as several threads unpack: the call fails with a clear errno, and
 * nothing is left of the layer, no file, no thread, no descriptor. And the limits that a program sets. */

#include "archive.h"
#include "test.h"

#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/stat.h>
#include <unistd.h>

static struct archive piece;
static struct storage_module_init_options conf;
static char *streams[2];
static size_t lengths[2];

/* What the read function does once `good` bytes have been given. */
enum trick { SAY_MINUS_ONE, SAY_ERRNO, SAY_MINUS_MANY, SAY_MORE, SAY_MOST, INTERRUPT, CALL_BACK, STOP };

struct tricky {
    struct memory_stream stream;
    size_t good;
    enum trick trick;
    int code;
    int calls;
};

static ssize_t tricky_read(void *context, void *buf, size_t len)
{
    struct tricky *tricky = context;

    if (tricky->stream.position < tricky->good) {
        size_t rest = tricky->good - tricky->stream.position;
        return memory_read(&tricky->stream, buf, len < rest ? len : rest);
    }
    tricky->calls++;
    switch (tricky->trick) {
    case SAY_MINUS_ONE:
        return -1;
    case SAY_ERRNO:
        errno = tricky->code;
        return -1;
    case SAY_MINUS_MANY:
        return -(ssize_t)len - 1;
    case SAY_MORE:
        memset(buf, 'x', len);
        return (ssize_t)len + 1;
    case SAY_MOST:
        return SSIZE_MAX;
    case INTERRUPT:
        errno = EINTR;
        return -1;
    case CALL_BACK: {
        /* The layer being made, another one, and a list. */
        struct layer *layer = layer_store_lookup(ID_B);
        struct layer_list list = { NULL, 0 };

        CHECK(layer == NULL);
        layer = layer_store_lookup(ID_A);
        CHECK(layer != NULL);
        free_layer(layer);
        CHECK(layer_store_list(&list) == 0 && list.layers_len == 1);
        isula_storage_clear_layer_list(&list);
        CHECK(layer_store_delete(ID_A) == -1);
        return memory_read(&tricky->stream, buf, len);
    }
    case STOP:
        break;
    }
    return 0;
}

static int count_entries(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int count = 0;

    if (dir == NULL) {
        return -1;
    }
    while ((entry = readdir(dir)) != NULL) {
        count++;
    }
    closedir(dir);
    return count;
}

/* Everything of this process that leaves no trace when it is closed. */
static int descriptors(void)
{
    return count_entries("/proc/self/fd");
}

static int threads(void)
{
    return count_entries("/proc/self/task");
}

/* Entries of the directories that know layers by name. */
static int traces(void)
{
    static const char *const dirs[] = { "vfs-layers", "vfs/dir", "overlay-layers", "overlay", "overlay/l" };
    char path[PATH_MAX];
    int count = 0;

    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", conf.storage_root, dirs[i]);
        count += count_entries(path);
    }
    return count;
}

static int create(struct tricky *tricky)
{
    struct io_read_wrapper content = { tricky, tricky_read, NULL, 0 };
    struct layer_opts opts;
    char parent[] = ID_A;

    memset(&opts, 0, sizeof(opts));
    opts.parent = parent;
    return layer_store_create(ID_B, &opts, &content, NULL);
}

static struct tricky tricky_of(int which, size_t good, enum trick trick, int code)
{
    struct tricky tricky;

    memset(&tricky, 0, sizeof(tricky));
    tricky.stream.bytes = streams[which];
    tricky.stream.len = lengths[which];
    tricky.good = good;
    tricky.trick = trick;
    tricky.code = code;
    return tricky;
}

static void read_functions_that_fail(void)
{
    static const struct {
        enum trick trick;
        int code, expected;
    } table[] = {
        { SAY_MINUS_ONE, 0, EIO },
        { SAY_ERRNO, ECONNRESET, ECONNRESET },
        { SAY_ERRNO, ENOSPC, ENOSPC },
        { SAY_MINUS_MANY, 0, EIO },
        { SAY_MORE, 0, EIO },
        { SAY_MOST, 0, EIO },
        { INTERRUPT, 0, EIO },
    };
    int before = descriptors(), left = traces(), alone = threads();

    for (int which = 0; which < 2; which++) {
        const size_t cuts[] = { 0, 1, 511, 512, lengths[which] / 2, lengths[which] - 1, lengths[which] };

        for (size_t cut = 0; cut < sizeof(cuts) / sizeof(cuts[0]); cut++) {
            if (which == 1 && cut != 0 && cut != 4 && cut != 6) {
                continue;
            }
            for (size_t row = 0; row < sizeof(table) / sizeof(table[0]); row++) {
                struct tricky tricky = tricky_of(which, cuts[cut], table[row].trick, table[row].code);

                FAILS(create(&tricky) == -1, table[row].expected);
                CHECK(layer_store_lookup(ID_B) == NULL);
                /* Asked again after an interruption, never after an error. */
                CHECK(table[row].trick == INTERRUPT || tricky.calls == 1);
            }
        }
    }
    CHECK(traces() == left);
    /* One more at most: the thread that removes data in the background. */
    CHECK(threads() <= alone + 1);
    CHECK(layer_store_check(ID_A) == 0);
    CHECK(descriptors() <= before + 8);
}

static void streams_that_end_anywhere(void)
{
    for (int which = 0; which < 2; which++) {
        for (size_t good = 512; good < lengths[which]; good += which == 0 ? 512 : 512 * 331) {
            struct tricky tricky = tricky_of(which, good - 1, STOP, 0);

            FAILS(create(&tricky) == -1, EBADMSG);
            CHECK(layer_store_lookup(ID_B) == NULL);
        }
    }
}

static void short_reads_and_calls_back(void)
{
    for (int which = 0; which < 2; which++) {
        static const size_t steps[] = { 1, 513, 70000 };

        for (size_t i = which == 0 ? 0 : 1; i < 3; i++) {
            struct tricky tricky = tricky_of(which, lengths[which], STOP, 0);

            tricky.stream.step = steps[i];
            WORKS(create(&tricky) == 0);
            CHECK(layer_store_check(ID_B) == 0);
            CHECK(layer_store_delete(ID_B) == 0);
        }
        {
            struct tricky tricky = tricky_of(which, lengths[which] / 2, CALL_BACK, 0);

            CHECK(create(&tricky) == 0);
            CHECK(layer_store_check(ID_B) == 0);
            CHECK(layer_store_delete(ID_B) == 0);
        }
    }
}

/* A read function that waits for another thread. */
struct blocking {
    struct memory_stream stream;
    sem_t blocked, go_on;
};

static ssize_t blocking_read(void *context, void *buf, size_t len)
{
    struct blocking *blocking = context;

    sem_post(&blocking->blocked);
    sem_wait(&blocking->go_on);
    return memory_read(&blocking->stream, buf, len);
}

static void *create_blocking(void *context)
{
    struct io_read_wrapper content = { context, blocking_read, NULL, 0 };
    struct layer_opts opts;
    static char made;

    memset(&opts, 0, sizeof(opts));
    return layer_store_create(ID_B, &opts, &content, NULL) == 0 ? &made : NULL;
}

static void a_read_function_that_blocks(void)
{
    struct blocking blocking;
    pthread_t thread;
    void *made;

    memset(&blocking, 0, sizeof(blocking));
    blocking.stream.bytes = streams[1];
    blocking.stream.len = lengths[1];
    blocking.stream.step = lengths[1] / 3 + 1;
    sem_init(&blocking.blocked, 0, 0);
    sem_init(&blocking.go_on, 0, 0);
    CHECK(pthread_create(&thread, NULL, create_blocking, &blocking) == 0);
    for (int round = 0; round < 3; round++) {
        struct memory_stream stream = { streams[0], lengths[0], 0, 0, 0, 0 };
        struct io_read_wrapper content = { &stream, memory_read, memory_close, 0 };
        struct layer_opts opts;
        char *path;

        sem_wait(&blocking.blocked);
        /* All of this would hang if anything were held. */
        memset(&opts, 0, sizeof(opts));
        WORKS(layer_store_create(ID_C, &opts, &content, NULL) == 0);
        path = layer_store_mount(ID_C);
        CHECK(path != NULL);
        free(path);
        CHECK(layer_store_umount(ID_C, true) == 0);
        CHECK(layer_store_delete(ID_C) == 0);
        CHECK(layer_store_lookup(ID_B) == NULL);
        sem_post(&blocking.go_on);
    }
    for (int rest = 0; rest < 64; rest++) {
        sem_post(&blocking.go_on);
    }
    CHECK(pthread_join(thread, &made) == 0);
    CHECK(made != NULL);
    CHECK(layer_store_check(ID_B) == 0);
    CHECK(layer_store_delete(ID_B) == 0);
    sem_destroy(&blocking.blocked);
    sem_destroy(&blocking.go_on);
}

static void limits_are_options(void)
{
    static const struct {
        const char *option;
        int expected;
    } table[] = {
        { "layer.max_entries=3", EFBIG }, { "layer.max_size=4K", EFBIG }, { "layer.max_entries=100000", 0 }, { "layer.max_size=1G", 0 },
    };

    for (size_t row = 0; row < sizeof(table) / sizeof(table[0]); row++) {
        for (int which = 0; which < 2; which++) {
            struct tricky tricky = tricky_of(which, lengths[which], STOP, 0);
            char option[64], *options[] = { option };

            strcpy(option, table[row].option);
            conf.driver_opts = options;
            conf.driver_opts_len = 1;
            CHECK(layer_store_init(&conf) == 0);
            if (table[row].expected == 0) {
                CHECK(create(&tricky) == 0);
                CHECK(layer_store_delete(ID_B) == 0);
            } else {
                FAILS(create(&tricky) == -1, table[row].expected);
                CHECK(layer_store_lookup(ID_B) == NULL);
            }
            layer_store_exit();
            conf.driver_opts = NULL;
            conf.driver_opts_len = 0;
        }
    }
    {
        char option[] = "layer.max_size=none", *options[] = { option };

        conf.driver_opts = options;
        conf.driver_opts_len = 1;
        FAILS(layer_store_init(&conf) == -1, EINVAL);
        conf.driver_opts = NULL;
        conf.driver_opts_len = 0;
    }
}

int main(int argc, char **argv)
{
    int before;

    if (argc != 4) {
        return EXIT_FAILURE;
    }
    conf.storage_root = argv[1];
    conf.storage_run_root = argv[2];
    conf.driver_name = argv[3];
    for (int i = 0; i < 12; i++) {
        char name[32];

        snprintf(name, sizeof(name), "d%d/file", i);
        archive_add(&piece, name, "some content of a file");
    }
    for (int which = 0; which < 2; which++) {
        size_t times = which == 0 ? 1 : 50;

        /* The same files again and again: the last ones count. */
        lengths[which] = times * piece.len + 2 * ARCHIVE_BLOCK;
        streams[which] = calloc(1, lengths[which]);
        for (size_t i = 0; streams[which] != NULL && i < times; i++) {
            memcpy(streams[which] + i * piece.len, piece.bytes, piece.len);
        }
    }

    before = descriptors();
    CHECK(layer_store_init(&conf) == 0);
    {
        struct memory_stream stream = { streams[0], lengths[0], 0, 0, 0, 0 };
        struct io_read_wrapper content = { &stream, memory_read, memory_close, 0 };
        struct layer_opts opts;

        memset(&opts, 0, sizeof(opts));
        CHECK(layer_store_create(ID_A, &opts, &content, NULL) == 0);
    }
    read_functions_that_fail();
    streams_that_end_anywhere();
    short_reads_and_calls_back();
    a_read_function_that_blocks();
    layer_store_exit();
    /* Everything is closed, of all that was begun. */
    CHECK(descriptors() == before);
    limits_are_options();
    CHECK(descriptors() == before);
    free(streams[0]);
    free(streams[1]);
    return DONE();
}
