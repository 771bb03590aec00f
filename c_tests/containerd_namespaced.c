/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Images in namespaces, from C. */

#include "test.h"

#include <stdint.h>
#include <time.h>

static char media_type[] = "application/vnd.oci.image.index.v1+json";
static char digest_a[] = "sha256:" ID_A, digest_b[] = "sha256:" ID_B;

typedef struct containerd_images_namespaced_image image_t;

static image_t an_image(char *name, char *digest, int64_t size)
{
    image_t image;

    memset(&image, 0, sizeof(image));
    image.name = name;
    image.target.media_type = media_type;
    image.target.digest = digest;
    image.target.size = size;
    return image;
}

#define NOT_FOUND(call)                                                  \
    do {                                                                 \
        FAILS(call, ENOENT);                                             \
        CHECK(containerd_images_error() == CONTAINERD_IMAGES_NOT_FOUND); \
        CHECK(containerd_images_is_not_found());                         \
    } while (0)

static void create_and_update(struct containerd_images_namespaced *images)
{
    char name[] = "docker.io/library/busybox:1", x[] = "x", y[] = "y", one[] = "1", empty[] = "";
    char *keys[] = { x, y }, *values[] = { one, empty };
    const char *fields[] = { "labels.x" }, *wrong[] = { "name" };
    json_map_string_string labels;
    image_t image = an_image(name, digest_a, 5), stored;
    int64_t created;

    memset(&labels, 0, sizeof(labels));
    labels.keys = keys;
    labels.values = values;
    labels.len = 2;
    image.labels = &labels;
    image.annotations = &labels;
    WORKS(containerd_images_namespaced_create(images, "default", &image, &stored) == 0);
    CHECK(test_same(stored.name, name) && test_same(stored.target.digest, digest_a) && stored.target.size == 5);
    CHECK(stored.labels != NULL && stored.labels->len == 1 && test_same(stored.labels->values[0], "1"));
    CHECK(stored.annotations != NULL && stored.annotations->len == 1);
    CHECK(stored.created_seconds > 1700000000 && stored.created_nanos < 1000000000);
    CHECK(stored.created_seconds == stored.updated_seconds && stored.created_nanos == stored.updated_nanos);
    created = stored.created_seconds;
    containerd_images_namespaced_clear_image(&stored);
    CHECK(stored.name == NULL && stored.labels == NULL);

    FAILS(containerd_images_namespaced_create(images, "default", &image, NULL) == -1, EEXIST);
    CHECK(containerd_images_error() == CONTAINERD_IMAGES_EXISTS);
    CHECK(containerd_images_is_exists() && !containerd_images_is_not_found());
    WORKS(containerd_images_namespaced_create(images, "k8s.io", &image, NULL) == 0);

    image = an_image(name, digest_b, 6);
    WORKS(containerd_images_namespaced_update(images, "default", &image, fields, 1, &stored) == 0);
    CHECK(stored.labels == NULL && stored.target.size == 5 && stored.annotations != NULL);
    CHECK(stored.created_seconds == created);
    containerd_images_namespaced_clear_image(&stored);
    FAILS(containerd_images_namespaced_update(images, "default", &image, wrong, 1, NULL) == -1, EINVAL);
    WORKS(containerd_images_namespaced_update(images, "default", &image, NULL, 0, NULL) == 0);
    WORKS(containerd_images_namespaced_get(images, "default", name, &stored) == 0);
    CHECK(test_same(stored.target.digest, digest_b) && stored.annotations == NULL);
    containerd_images_namespaced_clear_image(&stored);
    image.name = x;
    NOT_FOUND(containerd_images_namespaced_update(images, "default", &image, NULL, 0, NULL) == -1);
    NOT_FOUND(containerd_images_namespaced_get(images, "default", "x", &stored) == -1);
    NOT_FOUND(containerd_images_namespaced_get(images, "none", "x", &stored) == -1);

    image.target.size = 0;
    FAILS(containerd_images_namespaced_create(images, "default", &image, NULL) == -1, EINVAL);
    image.target.size = 1;
    FAILS(containerd_images_namespaced_create(images, "no/namespace", &image, NULL) == -1, EINVAL);
}

static size_t count(struct containerd_images_namespaced *images, const char *filter)
{
    struct containerd_images_namespaced_image_list list;
    size_t len;

    CHECK(containerd_images_namespaced_list(images, "list", &filter, filter == NULL ? 0 : 1, &list) == 0);
    CHECK(list.unreadable == 0);
    len = list.images_len;
    containerd_images_namespaced_clear_list(&list);
    CHECK(list.images == NULL);
    return len;
}

static void lists_and_deletion(struct containerd_images_namespaced *images)
{
    char names[3][32] = { "docker.io/a", "docker.io/b", "quay.io/c" };
    struct containerd_images_namespaced_image_list list;
    const char *either[] = { "name==quay.io/c", "digest==sha256:" ID_A }, *wrong[] = { "size==1" };
    char **found;
    size_t len;

    for (int i = 0; i < 3; i++) {
        image_t image = an_image(names[i], i == 1 ? digest_b : digest_a, 1);

        WORKS(containerd_images_namespaced_create(images, "list", &image, NULL) == 0);
    }
    CHECK(count(images, NULL) == 3);
    CHECK(count(images, "name^=docker.io/") == 2);
    CHECK(count(images, "name^=docker.io/,digest==sha256:" ID_A) == 1);
    CHECK(count(images, "labels.x") == 0);
    WORKS(containerd_images_namespaced_list(images, "list", either, 2, &list) == 0);
    CHECK(list.images_len == 2 && test_same(list.images[0].name, "docker.io/a"));
    containerd_images_namespaced_clear_list(&list);
    FAILS(containerd_images_namespaced_list(images, "list", wrong, 1, &list) == -1, EINVAL);

    NOT_FOUND(containerd_images_namespaced_delete(images, "list", "docker.io/b", digest_a) == -1);
    CHECK(strstr(isula_storage_last_error(), "points to") != NULL);
    WORKS(containerd_images_namespaced_delete(images, "list", "docker.io/b", digest_b) == 0);
    NOT_FOUND(containerd_images_namespaced_delete(images, "list", "docker.io/b", NULL) == -1);
    WORKS(containerd_images_namespaced_delete(images, "list", "docker.io/a", NULL) == 0);
    CHECK(count(images, NULL) == 1);

    FAILS(containerd_images_namespaced_create_namespace(images, "list", NULL) == -1, EEXIST);
    CHECK(!containerd_images_is_exists());
    WORKS(containerd_images_namespaced_create_namespace(images, "empty", NULL) == 0);
    FAILS(containerd_images_namespaced_delete_namespace(images, "list") == -1, EBUSY);
    WORKS(containerd_images_namespaced_namespaces(images, &found, &len) == 0);
    CHECK(len == 4 && test_same(found[0], "default") && test_same(found[1], "empty") && test_same(found[3], "list"));
    isula_storage_free_strings(found, len);
    WORKS(containerd_images_namespaced_delete_namespace(images, "empty") == 0);
    FAILS(containerd_images_namespaced_delete_namespace(images, "empty") == -1, ENOENT);
    CHECK(!containerd_images_is_not_found());
}

static void other_files(struct containerd_images_namespaced *images, const char *own, const char *plain,
                        const char *copy)
{
    struct containerd_images *other = containerd_images_open(plain, NULL);
    struct containerd_images_namespaced *theirs = containerd_images_namespaced_open(copy, NULL);
    struct containerd_images_import_report report;
    char name[] = "theirs";
    image_t image = an_image(name, digest_a, 1);

    CHECK(other != NULL && containerd_images_init_db(other) == 0 && containerd_images_close(other) == 0);
    FAILS(containerd_images_namespaced_open(plain, NULL) == NULL, EBADMSG);
    CHECK(strstr(isula_storage_last_error(), "without namespaces") != NULL);
    FAILS(containerd_images_open(own, NULL) == NULL, EBUSY);

    WORKS(containerd_images_namespaced_create(theirs, "one", &image, NULL) == 0);
    WORKS(containerd_images_namespaced_create(theirs, "default", &image, NULL) == 0);
    FAILS(containerd_images_namespaced_import(images, copy, NULL, 1, &report) == -1, EBUSY);
    WORKS(containerd_images_namespaced_close(theirs) == 0);
    WORKS(containerd_images_namespaced_import(images, copy, "one", 0, &report) == 0);
    CHECK(report.imported == 1 && report.present == 0 && report.left_out == 0);
    WORKS(containerd_images_namespaced_import(images, copy, NULL, 0, &report) == 0);
    CHECK(report.imported == 1 && report.present == 1 && report.left_out == 0);
    WORKS(containerd_images_namespaced_import(images, copy, NULL, -1, NULL) == 0);
    FAILS(containerd_images_namespaced_import(images, plain, NULL, 0, NULL) == -1, EBADMSG);
    FAILS(containerd_images_namespaced_import(images, "/nonexistent", NULL, 0, NULL) == -1, ENOENT);
}

static void arguments(struct containerd_images_namespaced *images)
{
    char bad[] = NOT_UTF8, name[] = "a";
    image_t image = an_image(name, digest_a, 1), out;
    struct containerd_images_namespaced_image_list list;
    const char *texts[] = { NULL };
    char **names;
    size_t len;

    FAILS(containerd_images_namespaced_open(NULL, NULL) == NULL, EINVAL);
    FAILS(containerd_images_namespaced_open(NOT_UTF8, NULL) == NULL, EILSEQ);
    FAILS(containerd_images_namespaced_create(NULL, "ns", &image, &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_create(images, NULL, &image, &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_create(images, NOT_UTF8, &image, &out) == -1, EILSEQ);
    FAILS(containerd_images_namespaced_create(images, "ns", NULL, &out) == -1, EINVAL);
    image.name = bad;
    FAILS(containerd_images_namespaced_create(images, "ns", &image, &out) == -1, EILSEQ);
    image.name = NULL;
    FAILS(containerd_images_namespaced_update(images, "ns", &image, NULL, 0, &out) == -1, EINVAL);
    CHECK(test_same(isula_storage_last_error(), "containerd_images_namespaced_update: image->name is NULL"));
    image.name = name;
    FAILS(containerd_images_namespaced_update(NULL, "ns", &image, NULL, 0, &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_update(images, NULL, &image, NULL, 0, &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_update(images, "ns", NULL, NULL, 0, &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_update(images, "ns", &image, NULL, 1, &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_update(images, "ns", &image, texts, 1, &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_delete(NULL, "ns", "a", NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_delete(images, NULL, "a", NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_delete(images, "ns", NULL, NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_delete(images, "ns", "a", NOT_UTF8) == -1, EILSEQ);
    FAILS(containerd_images_namespaced_get(NULL, "ns", "a", &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_get(images, NULL, "a", &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_get(images, "ns", NULL, &out) == -1, EINVAL);
    FAILS(containerd_images_namespaced_get(images, "ns", "a", NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_list(NULL, "ns", NULL, 0, &list) == -1, EINVAL);
    FAILS(containerd_images_namespaced_list(images, NULL, NULL, 0, &list) == -1, EINVAL);
    FAILS(containerd_images_namespaced_list(images, "ns", NULL, 1, &list) == -1, EINVAL);
    FAILS(containerd_images_namespaced_list(images, "ns", texts, 1, &list) == -1, EINVAL);
    FAILS(containerd_images_namespaced_list(images, "ns", NULL, 0, NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_namespaces(NULL, &names, &len) == -1, EINVAL);
    FAILS(containerd_images_namespaced_namespaces(images, NULL, &len) == -1, EINVAL);
    FAILS(containerd_images_namespaced_namespaces(images, &names, NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_create_namespace(NULL, "ns", NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_create_namespace(images, NULL, NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_delete_namespace(NULL, "ns") == -1, EINVAL);
    FAILS(containerd_images_namespaced_delete_namespace(images, NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_import(NULL, "/x", NULL, 0, NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_import(images, NULL, NULL, 0, NULL) == -1, EINVAL);
    FAILS(containerd_images_namespaced_import(images, "/x", NOT_UTF8, 0, NULL) == -1, EILSEQ);
    WORKS(containerd_images_namespaced_close(NULL) == 0);
    WORKS((containerd_images_namespaced_clear_image(NULL), true));
    WORKS((containerd_images_namespaced_clear_list(NULL), true));
}

int main(int argc, char **argv)
{
    static const struct containerd_images_options read_only = { .read_only = true };
    struct containerd_images_namespaced *images;
    struct containerd_images_namespaced_image_list list;

    if (argc != 4) {
        fprintf(stderr, "usage: %s FILE PLAIN_FILE OTHER_FILE\n", argv[0]);
        return 2;
    }
    FAILS(containerd_images_namespaced_open(argv[1], &read_only) == NULL, ENOENT);
    CHECK(!containerd_images_is_not_found());
    images = containerd_images_namespaced_open(argv[1], NULL);
    CHECK(images != NULL);
    create_and_update(images);
    lists_and_deletion(images);
    other_files(images, argv[1], argv[2], argv[3]);
    arguments(images);
    WORKS(containerd_images_namespaced_close(images) == 0);
    FAILS(containerd_images_namespaced_close(images) == -1, EINVAL);
    FAILS(containerd_images_namespaced_list(images, "ns", NULL, 0, &list) == -1, EINVAL);
    /* A handle of one kind is none of the other. */
    FAILS(containerd_images_init_db((struct containerd_images *)images) == -1, EINVAL);
    FAILS(containerd_images_open(argv[1], NULL) == NULL, EBADMSG);
    CHECK(strstr(isula_storage_last_error(), "it has namespaces") != NULL);

    images = containerd_images_namespaced_open(argv[1], &read_only);
    WORKS(containerd_images_namespaced_list(images, "one", NULL, 0, &list) == 0);
    CHECK(list.images_len == 1 && test_same(list.images[0].name, "theirs"));
    containerd_images_namespaced_clear_list(&list);
    FAILS(containerd_images_namespaced_create_namespace(images, "new", NULL) == -1, EROFS);
    WORKS(containerd_images_namespaced_close(images) == 0);
    return DONE();
}
