/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Names of images as containerd kept them in April 2017, from C. */

#include "test.h"

#include <pthread.h>
#include <stdint.h>

#define DIGEST "sha256:" ID_A
#define TEXT CONTAINERD_IMAGES_TEXT

static const char *path;

static struct containerd_images_descriptor descriptor(int64_t size)
{
    static char media_type[] = "application/vnd.oci.image.index.v1+json", digest[] = DIGEST;
    struct containerd_images_descriptor target = { media_type, digest, size };

    return target;
}

static bool is(const struct containerd_images_image *image, const char *name, size_t len, int64_t size)
{
    struct containerd_images_descriptor target = descriptor(size);

    return image->name_len == len && memcmp(image->name, name, len) == 0 && image->name[len] == '\0' &&
           test_same(image->target.media_type, target.media_type) && test_same(image->target.digest, target.digest) &&
           image->target.size == size;
}

#define NOT_FOUND(call)                                                     \
    do {                                                                    \
        FAILS(call, ENOENT);                                                \
        CHECK(containerd_images_error() == CONTAINERD_IMAGES_NOT_FOUND);    \
        CHECK(containerd_images_is_not_found());                            \
        CHECK(!containerd_images_is_exists());                              \
        CHECK(strstr(isula_storage_last_error(), "images: not found") != NULL); \
    } while (0)

static bool ends_with(const char *end)
{
    const char *text = isula_storage_last_error();

    return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

static void before_anything(const char *dir)
{
    static const struct containerd_images_options read_only = { .read_only = true };
    char absent[4096];

    CHECK(containerd_images_error() == 0);
    CHECK(!containerd_images_is_not_found());
    CHECK(!containerd_images_is_exists());
    FAILS(containerd_images_open(NULL, NULL) == NULL, EINVAL);
    FAILS(containerd_images_open("", NULL) == NULL, EINVAL);
    FAILS(containerd_images_open(NOT_UTF8, NULL) == NULL, EILSEQ);
    /* A missing file is no missing image. */
    FAILS(containerd_images_open(path, &read_only) == NULL, ENOENT);
    CHECK(containerd_images_error() == CONTAINERD_IMAGES_OTHER);
    CHECK(!containerd_images_is_not_found());
    snprintf(absent, sizeof(absent), "%s/absent/db", dir);
    FAILS(containerd_images_open(absent, NULL) == NULL, ENOENT);
    WORKS(containerd_images_close(NULL) == 0);
    WORKS((containerd_images_clear_image(NULL), true));
    WORKS((containerd_images_clear_list(NULL), true));
}

static void before_init(struct containerd_images *images)
{
    struct containerd_images_descriptor target = descriptor(1);
    struct containerd_images_image image = { NULL, 77, { NULL, NULL, 0 } };
    struct containerd_images_image_list list = { NULL, 77 };

    NOT_FOUND(containerd_images_get(images, "a", TEXT, &image) == -1);
    NOT_FOUND(containerd_images_list(images, &list) == -1);
    NOT_FOUND(containerd_images_put(images, "a", TEXT, &target) == -1);
    NOT_FOUND(containerd_images_delete(images, "a", TEXT) == -1);
    CHECK(image.name == NULL && image.name_len == 77 && list.images == NULL && list.images_len == 77);
    WORKS(containerd_images_init_db(images) == 0);
    WORKS(containerd_images_init_db(images) == 0);
    WORKS(containerd_images_list(images, &list) == 0);
    CHECK(list.images != NULL && list.images_len == 0);
    containerd_images_clear_list(&list);
    CHECK(list.images == NULL);
}

static void one_call_forms(struct containerd_images *images)
{
    static const char *const sorted[] = { "Z", "a", "docker.io/library/busybox:1", "\xc3\xa9", "\xff" };
    struct containerd_images_descriptor target = descriptor(1);
    struct containerd_images_image image;
    struct containerd_images_image_list list;
    char *longest = malloc(40000);

    WORKS(containerd_images_put(images, "a", TEXT, &target) == 0);
    target.size = INT64_MIN;
    WORKS(containerd_images_put(images, "a", 1, &target) == 0);
    WORKS(containerd_images_get(images, "a", TEXT, &image) == 0);
    CHECK(is(&image, "a", 1, INT64_MIN));
    containerd_images_clear_image(&image);
    CHECK(image.name == NULL && image.target.digest == NULL);

    FAILS(containerd_images_put(images, "", TEXT, &target) == -1, EINVAL);
    CHECK(ends_with(": bucket name required"));
    FAILS(containerd_images_put(images, "a", 0, &target) == -1, EINVAL);
    NOT_FOUND(containerd_images_get(images, "", TEXT, &image) == -1);
    NOT_FOUND(containerd_images_get(images, "missing", TEXT, &image) == -1);
    NOT_FOUND(containerd_images_delete(images, "missing", TEXT) == -1);
    NOT_FOUND(containerd_images_delete(images, "", TEXT) == -1);

    /* Any bytes. */
    target.size = 7;
    memset(longest, 'x', 40000);
    WORKS(containerd_images_put(images, "a\0b", 3, &target) == 0);
    WORKS(containerd_images_put(images, longest, 40000, &target) == 0);
    WORKS(containerd_images_get(images, "a\0b", 3, &image) == 0);
    CHECK(is(&image, "a\0b", 3, 7));
    containerd_images_clear_image(&image);
    WORKS(containerd_images_get(images, longest, 40000, &image) == 0);
    CHECK(is(&image, longest, 40000, 7));
    containerd_images_clear_image(&image);
    WORKS(containerd_images_delete(images, "a\0b", 3) == 0);
    WORKS(containerd_images_delete(images, longest, 40000) == 0);
    free(longest);

    for (size_t i = sizeof(sorted) / sizeof(sorted[0]); i > 0; i--) {
        WORKS(containerd_images_put(images, sorted[i - 1], TEXT, &target) == 0);
    }
    WORKS(containerd_images_list(images, &list) == 0);
    CHECK(list.images_len == sizeof(sorted) / sizeof(sorted[0]));
    for (size_t i = 0; i < list.images_len; i++) {
        CHECK(is(&list.images[i], sorted[i], strlen(sorted[i]), 7));
    }
    containerd_images_clear_list(&list);

    target.media_type = target.digest = (char[]) { "" };
    target.size = 0;
    WORKS(containerd_images_put(images, "empty", TEXT, &target) == 0);
    WORKS(containerd_images_get(images, "empty", TEXT, &image) == 0);
    CHECK(test_same(image.target.media_type, "") && test_same(image.target.digest, "") && image.target.size == 0);
    containerd_images_clear_image(&image);
    WORKS(containerd_images_delete(images, "empty", TEXT) == 0);
}

/* Each call with a transaction that is none fails, and does no harm. */
static void has_ended(struct containerd_images_transaction *transaction)
{
    struct containerd_images_descriptor target = descriptor(1);
    struct containerd_images_image image;
    struct containerd_images_image_list list;

    FAILS(containerd_images_tx_put(transaction, "a", TEXT, &target) == -1, EINVAL);
    FAILS(containerd_images_tx_get(transaction, "a", TEXT, &image) == -1, EINVAL);
    FAILS(containerd_images_tx_list(transaction, &list) == -1, EINVAL);
    FAILS(containerd_images_tx_delete(transaction, "a", TEXT) == -1, EINVAL);
    FAILS(containerd_images_rollback(transaction) == -1, EINVAL);
    FAILS(containerd_images_commit(transaction) == -1, EINVAL);
    CHECK(transaction == NULL || strstr(isula_storage_last_error(), "transaction has ended") != NULL);
}

static size_t count(struct containerd_images_transaction *transaction)
{
    struct containerd_images_image_list list;
    size_t len;

    CHECK(containerd_images_tx_list(transaction, &list) == 0);
    len = list.images_len;
    containerd_images_clear_list(&list);
    return len;
}

static void transactions(struct containerd_images *images)
{
    struct containerd_images_descriptor target = descriptor(9);
    struct containerd_images_image image;
    struct containerd_images_transaction *writing, *reading, *before = containerd_images_begin(images, false);
    size_t len = count(before);

    /* It sees its own changes, others do not, and after a rollback nobody does. */
    writing = containerd_images_begin(images, true);
    CHECK(writing != NULL && writing != before);
    WORKS(containerd_images_tx_put(writing, "new", TEXT, &target) == 0);
    WORKS(containerd_images_tx_get(writing, "new", TEXT, &image) == 0);
    CHECK(is(&image, "new", 3, 9));
    containerd_images_clear_image(&image);
    WORKS(containerd_images_tx_delete(writing, "a", TEXT) == 0);
    NOT_FOUND(containerd_images_tx_get(writing, "a", TEXT, &image) == -1);
    NOT_FOUND(containerd_images_tx_delete(writing, "a", TEXT) == -1);
    CHECK(count(writing) == len && count(before) == len);
    NOT_FOUND(containerd_images_get(images, "new", TEXT, &image) == -1);
    FAILS(containerd_images_begin(images, true) == NULL, EBUSY);
    FAILS(containerd_images_put(images, "b", TEXT, &target) == -1, EBUSY);
    CHECK(ends_with(": another transaction writes"));
    WORKS(containerd_images_rollback(writing) == 0);
    has_ended(writing);
    NOT_FOUND(containerd_images_get(images, "new", TEXT, &image) == -1);

    writing = containerd_images_begin(images, true);
    WORKS(containerd_images_tx_put(writing, "new", TEXT, &target) == 0);
    WORKS(containerd_images_commit(writing) == 0);
    has_ended(writing);
    NOT_FOUND(containerd_images_tx_get(before, "new", TEXT, &image) == -1);
    WORKS(containerd_images_rollback(before) == 0);
    has_ended(before);

    reading = containerd_images_begin(images, false);
    CHECK(count(reading) == len + 1);
    FAILS(containerd_images_tx_put(reading, "b", TEXT, &target) == -1, EROFS);
    CHECK(ends_with(": tx not writable"));
    FAILS(containerd_images_tx_delete(reading, "a", TEXT) == -1, EROFS);
    FAILS(containerd_images_commit(reading) == -1, EROFS);
    has_ended(reading);
    has_ended(NULL);
    has_ended((struct containerd_images_transaction *)images);
}

static void arguments(struct containerd_images *images)
{
    char bad[] = NOT_UTF8;
    struct containerd_images_descriptor target = descriptor(1);
    struct containerd_images_image image = { NULL, 77, { NULL, NULL, 0 } };
    struct containerd_images_transaction *writing = containerd_images_begin(images, true);

    FAILS(containerd_images_init_db(NULL) == -1, EINVAL);
    FAILS(containerd_images_begin(NULL, true) == NULL, EINVAL);
    FAILS(containerd_images_put(NULL, "a", TEXT, &target) == -1, EINVAL);
    FAILS(containerd_images_get(NULL, "a", TEXT, &image) == -1, EINVAL);
    FAILS(containerd_images_delete(NULL, "a", TEXT) == -1, EINVAL);
    FAILS(containerd_images_list(NULL, NULL) == -1, EINVAL);
    FAILS(containerd_images_put(images, NULL, TEXT, &target) == -1, EINVAL);
    FAILS(containerd_images_put(images, NULL, 3, &target) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "containerd_images_put: name is NULL"));
    FAILS(containerd_images_get(images, NULL, TEXT, &image) == -1, EINVAL);
    FAILS(containerd_images_get(images, "a", TEXT, NULL) == -1, EINVAL);
    FAILS(containerd_images_list(images, NULL) == -1, EINVAL);
    FAILS(containerd_images_delete(images, NULL, TEXT) == -1, EINVAL);
    FAILS(containerd_images_tx_put(writing, NULL, TEXT, &target) == -1, EINVAL);
    FAILS(containerd_images_tx_put(writing, "a", TEXT, NULL) == -1, EINVAL);
    FAILS(containerd_images_tx_get(writing, NULL, TEXT, &image) == -1, EINVAL);
    FAILS(containerd_images_tx_get(writing, "a", TEXT, NULL) == -1, EINVAL);
    FAILS(containerd_images_tx_list(writing, NULL) == -1, EINVAL);
    FAILS(containerd_images_tx_delete(writing, NULL, TEXT) == -1, EINVAL);
    target.digest = NULL;
    FAILS(containerd_images_tx_put(writing, "a", TEXT, &target) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "containerd_images_tx_put: target->digest is NULL"));
    target.digest = bad;
    FAILS(containerd_images_tx_put(writing, "a", TEXT, &target) == -1, EILSEQ);
    target = descriptor(1);
    target.media_type = NULL;
    FAILS(containerd_images_tx_put(writing, "a", TEXT, &target) == -1, EINVAL);
    target.media_type = bad;
    FAILS(containerd_images_tx_put(writing, "a", TEXT, &target) == -1, EILSEQ);
    CHECK(image.name == NULL && image.name_len == 77);
    WORKS(containerd_images_rollback(writing) == 0);
}

static void *put_many(void *images)
{
    struct containerd_images_descriptor target = descriptor(3);
    struct containerd_images_image image;
    char name[32];

    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "thread-%p-%d", (void *)&target, i);
        CHECK(containerd_images_put(images, name, TEXT, &target) == 0);
        CHECK(containerd_images_get(images, name, TEXT, &image) == 0);
        containerd_images_clear_image(&image);
    }
    return NULL;
}

static void threads(void)
{
    static const struct containerd_images_options waiting = { .no_sync = true, .timeout_ms = -1 };
    struct containerd_images *images = containerd_images_open(path, &waiting);
    struct containerd_images_transaction *reading = containerd_images_begin(images, false);
    pthread_t running[4];
    size_t before = count(reading);

    for (int i = 0; i < 4; i++) {
        CHECK(pthread_create(&running[i], NULL, put_many, images) == 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_join(running[i], NULL) == 0);
    }
    CHECK(count(reading) == before);
    WORKS(containerd_images_rollback(reading) == 0);
    reading = containerd_images_begin(images, false);
    CHECK(count(reading) == before + 80);
    WORKS(containerd_images_close(images) == 0);
    has_ended(reading);
}

static void closed(struct containerd_images *images)
{
    static const struct containerd_images_options read_only = { .read_only = true, .timeout_ms = 1 };
    struct containerd_images_descriptor target = descriptor(1);
    struct containerd_images_image image;
    struct containerd_images *first, *second;
    struct containerd_images_transaction *writing = containerd_images_begin(images, true);
    struct containerd_images_transaction *reading = containerd_images_begin(images, false);

    WORKS(containerd_images_tx_put(writing, "lost", TEXT, &target) == 0);
    FAILS(containerd_images_open(path, NULL) == NULL, EBUSY);
    CHECK(strstr(isula_storage_last_error(), "in use by pid ") != NULL);
    FAILS(containerd_images_open(path, &read_only) == NULL, EBUSY);
    WORKS(containerd_images_close(images) == 0);
    has_ended(writing);
    has_ended(reading);
    FAILS(containerd_images_close(images) == -1, EINVAL);
    FAILS(containerd_images_init_db(images) == -1, EINVAL);
    FAILS(containerd_images_begin(images, false) == NULL, EINVAL);
    FAILS(containerd_images_put(images, "a", TEXT, &target) == -1, EINVAL);

    /* Nothing keeps the lock; readers share it. */
    first = containerd_images_open(path, &read_only);
    second = containerd_images_open(path, &read_only);
    CHECK(first != NULL && second != NULL);
    NOT_FOUND(containerd_images_get(first, "lost", TEXT, &image) == -1);
    FAILS(containerd_images_put(first, "a", TEXT, &target) == -1, EROFS);
    FAILS(containerd_images_begin(first, true) == NULL, EROFS);
    FAILS(containerd_images_init_db(first) == -1, EROFS);
    FAILS(containerd_images_open(path, NULL) == NULL, EBUSY);
    WORKS(containerd_images_close(first) == 0);
    WORKS(containerd_images_close(second) == 0);
}

int main(int argc, char **argv)
{
    struct containerd_images *images;
    char file[4096];

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    snprintf(file, sizeof(file), "%s-images.db", argv[1]);
    path = file;
    before_anything(argv[1]);
    images = containerd_images_open(path, NULL);
    CHECK(images != NULL);
    before_init(images);
    one_call_forms(images);
    transactions(images);
    arguments(images);
    closed(images);
    threads();
    return DONE();
}
