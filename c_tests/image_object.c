/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The image store as an object: its functions, its three ways to be opened, structs that are not stores. */

#include "image.h"
#include "test.h"

#define DIGEST "sha256:" ID_B

static const timestamp no_time;
static const timestamp some_time = { true, 1570814777, true, 5 };

static int create(image_store_t *store, const char *id, const char *name)
{
    const char *names[] = { name };
    image_storage_images image;
    int result = store->create(id, names, name == NULL ? 0 : 1, ID_A, "text", some_time, DIGEST, store, &image);

    if (result == 0) {
        isula_storage_clear_image(&image);
    }
    return result;
}

static void the_functions_work(image_store_t *store)
{
    const char *names[] = { "b:1", "a:1" }, *more[] = { "z:1", "b:1" };
    char *text = NULL, **texts = NULL;
    int64_t size = 0;
    size_t len = 0;
    image_storage_images image, *images = NULL;

    WORKS(store->create(IMAGE_ID, names, 2, ID_A, "text", some_time, DIGEST, store, &image) == 0);
    CHECK(test_same(image.id, IMAGE_ID) && test_same(image.layer, ID_A) && test_same(image.metadata, "text"));
    CHECK(test_same(image.digest, DIGEST) && image.names_len == 2 && test_same(image.names[0], "a:1"));
    CHECK(image.created != NULL && strncmp(image.created, "2019-10-11T", 11) == 0 && image.loaded != NULL);
    isula_storage_clear_image(&image);
    CHECK(image.id == NULL && image.names == NULL && image.names_len == 0);
    FAILS(create(store, IMAGE_ID, NULL) == -1, EEXIST);
    FAILS(create(store, ID_C, "a:1") == -1, EEXIST);

    WORKS(store->set_big_data(store, IMAGE_ID, IMAGE_CONFIG_KEY, IMAGE_CONFIG) == 0);
    WORKS(store->set_big_data(store, IMAGE_ID, "manifest", IMAGE_MANIFEST) == 0);
    WORKS(store->big_data(store, "a:1", "manifest", &text) == 0);
    CHECK(test_same(text, IMAGE_MANIFEST));
    isula_storage_free_string(text);
    WORKS(store->big_data_size(store, "a:1", "manifest", &size) == 0);
    CHECK(size == (int64_t)strlen(IMAGE_MANIFEST));
    WORKS(store->big_data_digest(store, "a:1", "manifest", &text) == 0);
    CHECK(test_same(text, IMAGE_MANIFEST_DIGEST));
    isula_storage_free_string(text);
    WORKS(store->big_data_names(store, IMAGE_ID, &texts, &len) == 0);
    CHECK(len == 2 && test_same(texts[0], IMAGE_CONFIG_KEY) && test_same(texts[1], "manifest"));
    isula_storage_free_strings(texts, len);

    WORKS(store->exists("a:1", store));
    WORKS(!store->exists(ID_ABSENT, store));
    WORKS(store->lookup("b:1", store, &text) == 0);
    CHECK(test_same(text, IMAGE_ID));
    isula_storage_free_string(text);

    WORKS(create(store, ID_C, "z:1") == 0);
    WORKS(store->add_name(IMAGE_ID, "z:1", store) == 0);
    WORKS(store->get(ID_C, store, &image) == 0);
    CHECK(image.names_len == 0);
    isula_storage_clear_image(&image);
    WORKS(store->set_names(ID_C, more, 2, store) == 0);
    WORKS(store->get(IMAGE_ID, store, &image) == 0);
    CHECK(image.names_len == 1 && test_same(image.names[0], "a:1"));
    CHECK(image.big_data_names_len == 2 && image.big_data_sizes->len == 2 && image.big_data_digests->len == 2);
    CHECK(image.big_data_sizes->len == 2 && image.big_data_sizes->values[1] == size);
    isula_storage_clear_image(&image);

    WORKS(store->images(store, &images, &len) == 0);
    CHECK(len == 2 && test_same(images[0].id, IMAGE_ID) && test_same(images[1].id, ID_C));
    isula_storage_free_images(images, len);
    WORKS(store->by_digest(store, DIGEST, &images, &len) == 0);
    CHECK(len == 2 && test_same(images[0].id, IMAGE_ID) && test_same(images[1].id, ID_C));
    isula_storage_free_images(images, len);

    WORKS(store->set_metadata(store, IMAGE_ID, "other") == 0);
    WORKS(store->metadata(store, IMAGE_ID, &text) == 0);
    CHECK(test_same(text, "other"));
    isula_storage_free_string(text);
    WORKS(store->set_loaded_time(IMAGE_ID, some_time, store) == 0);
    FAILS(store->set_loaded_time(IMAGE_ID, no_time, store) == -1, EINVAL);
    WORKS(store->save(store) == 0);
    WORKS(store->delete(ID_C, store) == 0);
    WORKS(store->delete(ID_C, store) == 0);
    WORKS(store->load(store) == 0);
    WORKS(store->exists("a:1", store));
    WORKS(!store->exists(ID_C, store));
}

static void absent_images_fail(image_store_t *store)
{
    const char *names[] = { "q:1" };
    char *text = NULL, **texts = NULL;
    int64_t size = 77;
    size_t len = 77;
    image_storage_images image, *images = NULL;

    memset(&image, 0, sizeof(image));
    FAILS(store->get(ID_ABSENT, store, &image) == -1, ENOENT);
    FAILS(store->lookup("absent:1", store, &text) == -1, ENOENT);
    FAILS(store->by_digest(store, "sha256:" ID_ABSENT, &images, &len) == -1, ENOENT);
    FAILS(store->metadata(store, ID_ABSENT, &text) == -1, ENOENT);
    FAILS(store->big_data(store, ID_ABSENT, "manifest", &text) == -1, ENOENT);
    FAILS(store->big_data(store, IMAGE_ID, "absent", &text) == -1, ENOENT);
    FAILS(store->big_data_size(store, IMAGE_ID, "absent", &size) == -1, ENOENT);
    FAILS(store->big_data_digest(store, IMAGE_ID, "absent", &text) == -1, ENOENT);
    FAILS(store->big_data_names(store, ID_ABSENT, &texts, &len) == -1, ENOENT);
    FAILS(store->set_names(ID_ABSENT, names, 1, store) == -1, ENOENT);
    FAILS(store->add_name(ID_ABSENT, "q:1", store) == -1, ENOENT);
    FAILS(store->set_metadata(store, ID_ABSENT, "x") == -1, ENOENT);
    FAILS(store->set_loaded_time(ID_ABSENT, some_time, store) == -1, ENOENT);
    FAILS(store->set_big_data(store, ID_ABSENT, "k", "x") == -1, ENOENT);
    CHECK(text == NULL && texts == NULL && images == NULL && image.id == NULL && size == 77 && len == 77);
}

static void pointer_arguments_are_checked(image_store_t *store)
{
    const char *names[] = { "q:1" }, *null_names[] = { NULL }, *bad_names[] = { NOT_UTF8 };
    char *text = NULL, **texts = NULL;
    int64_t size = 77;
    size_t len = 77;
    image_storage_images image, *images = NULL;

    memset(&image, 0, sizeof(image));
    FAILS(store->create(ID_C, names, 1, NULL, NULL, no_time, NULL, store, NULL) == -1, EINVAL);
    FAILS(store->create(ID_C, NULL, 1, NULL, NULL, no_time, NULL, store, &image) == -1, EINVAL);
    FAILS(store->create(ID_C, null_names, 1, NULL, NULL, no_time, NULL, store, &image) == -1, EINVAL);
    FAILS(store->create(ID_C, bad_names, 1, NULL, NULL, no_time, NULL, store, &image) == -1, EILSEQ);
    FAILS(store->create(NOT_UTF8, names, 1, NULL, NULL, no_time, NULL, store, &image) == -1, EILSEQ);
    FAILS(store->create(ID_C, names, 1, NOT_UTF8, NULL, no_time, NULL, store, &image) == -1, EILSEQ);
    FAILS(store->create(ID_C, names, 1, NULL, NOT_UTF8, no_time, NULL, store, &image) == -1, EILSEQ);
    FAILS(store->create(ID_C, names, 1, NULL, NULL, no_time, NOT_UTF8, store, &image) == -1, EILSEQ);
    CHECK(!store->exists(ID_C, store));
    FAILS(store->set_names(NULL, names, 1, store) == -1, EINVAL);
    FAILS(store->set_names(NOT_UTF8, names, 1, store) == -1, EILSEQ);
    FAILS(store->set_names(IMAGE_ID, NULL, 1, store) == -1, EINVAL);
    FAILS(store->set_names(IMAGE_ID, names, 0, store) == -1, EINVAL);
    FAILS(store->set_names(IMAGE_ID, null_names, 1, store) == -1, EINVAL);
    FAILS(store->set_names(IMAGE_ID, bad_names, 1, store) == -1, EILSEQ);
    FAILS(store->delete(NULL, store) == -1, EINVAL);
    FAILS(store->delete(NOT_UTF8, store) == -1, EILSEQ);
    FAILS(store->set_loaded_time(NULL, some_time, store) == -1, EINVAL);
    FAILS(store->set_loaded_time(NOT_UTF8, some_time, store) == -1, EILSEQ);
    FAILS(store->add_name(NULL, "q:1", store) == -1, EINVAL);
    FAILS(store->add_name(NOT_UTF8, "q:1", store) == -1, EILSEQ);
    FAILS(store->add_name(IMAGE_ID, NULL, store) == -1, EINVAL);
    FAILS(store->add_name(IMAGE_ID, NOT_UTF8, store) == -1, EILSEQ);
    FAILS(store->set_metadata(store, NULL, "x") == -1, EINVAL);
    FAILS(store->set_metadata(store, NOT_UTF8, "x") == -1, EILSEQ);
    FAILS(store->set_metadata(store, IMAGE_ID, NULL) == -1, EINVAL);
    FAILS(store->set_metadata(store, IMAGE_ID, NOT_UTF8) == -1, EILSEQ);
    FAILS(store->set_big_data(store, NULL, "k", "x") == -1, EINVAL);
    FAILS(store->set_big_data(store, NOT_UTF8, "k", "x") == -1, EILSEQ);
    FAILS(store->set_big_data(store, IMAGE_ID, NULL, "x") == -1, EINVAL);
    FAILS(store->set_big_data(store, IMAGE_ID, NOT_UTF8, "x") == -1, EILSEQ);
    FAILS(store->set_big_data(store, IMAGE_ID, "", "x") == -1, EINVAL);
    FAILS(store->set_big_data(store, IMAGE_ID, "k", NULL) == -1, EINVAL);
    FAILS(!store->exists(NULL, store), EINVAL);
    FAILS(!store->exists(NOT_UTF8, store), EILSEQ);
    FAILS(store->get(NULL, store, &image) == -1, EINVAL);
    FAILS(store->get(NOT_UTF8, store, &image) == -1, EILSEQ);
    FAILS(store->get(IMAGE_ID, store, NULL) == -1, EINVAL);
    FAILS(store->lookup(NULL, store, &text) == -1, EINVAL);
    FAILS(store->lookup(NOT_UTF8, store, &text) == -1, EILSEQ);
    FAILS(store->lookup(IMAGE_ID, store, NULL) == -1, EINVAL);
    FAILS(store->images(store, NULL, &len) == -1, EINVAL);
    FAILS(store->images(store, &images, NULL) == -1, EINVAL);
    FAILS(store->by_digest(store, NULL, &images, &len) == -1, EINVAL);
    FAILS(store->by_digest(store, NOT_UTF8, &images, &len) == -1, EILSEQ);
    FAILS(store->by_digest(store, DIGEST, NULL, &len) == -1, EINVAL);
    FAILS(store->by_digest(store, DIGEST, &images, NULL) == -1, EINVAL);
    FAILS(store->metadata(store, NULL, &text) == -1, EINVAL);
    FAILS(store->metadata(store, NOT_UTF8, &text) == -1, EILSEQ);
    FAILS(store->metadata(store, IMAGE_ID, NULL) == -1, EINVAL);
    FAILS(store->big_data(store, NULL, "k", &text) == -1, EINVAL);
    FAILS(store->big_data(store, NOT_UTF8, "k", &text) == -1, EILSEQ);
    FAILS(store->big_data(store, IMAGE_ID, NULL, &text) == -1, EINVAL);
    FAILS(store->big_data(store, IMAGE_ID, NOT_UTF8, &text) == -1, EILSEQ);
    FAILS(store->big_data(store, IMAGE_ID, "manifest", NULL) == -1, EINVAL);
    FAILS(store->big_data_size(store, NULL, "k", &size) == -1, EINVAL);
    FAILS(store->big_data_size(store, NOT_UTF8, "k", &size) == -1, EILSEQ);
    FAILS(store->big_data_size(store, IMAGE_ID, NULL, &size) == -1, EINVAL);
    FAILS(store->big_data_size(store, IMAGE_ID, NOT_UTF8, &size) == -1, EILSEQ);
    FAILS(store->big_data_size(store, IMAGE_ID, "manifest", NULL) == -1, EINVAL);
    FAILS(store->big_data_digest(store, NULL, "k", &text) == -1, EINVAL);
    FAILS(store->big_data_digest(store, NOT_UTF8, "k", &text) == -1, EILSEQ);
    FAILS(store->big_data_digest(store, IMAGE_ID, NULL, &text) == -1, EINVAL);
    FAILS(store->big_data_digest(store, IMAGE_ID, NOT_UTF8, &text) == -1, EILSEQ);
    FAILS(store->big_data_digest(store, IMAGE_ID, "manifest", NULL) == -1, EINVAL);
    FAILS(store->big_data_names(store, NULL, &texts, &len) == -1, EINVAL);
    FAILS(store->big_data_names(store, NOT_UTF8, &texts, &len) == -1, EILSEQ);
    FAILS(store->big_data_names(store, IMAGE_ID, NULL, &len) == -1, EINVAL);
    FAILS(store->big_data_names(store, IMAGE_ID, &texts, NULL) == -1, EINVAL);
    CHECK(text == NULL && texts == NULL && images == NULL && image.id == NULL && size == 77 && len == 77);
}

/* Calls every function of `functions` with `store`, which is none: all fail, none crashes. */
static void no_store_fails(const image_store_t *functions, image_store_t *store)
{
    const char *names[] = { "q:1" };
    char *text = NULL, **texts = NULL;
    int64_t size = 0;
    size_t len = 0;
    image_storage_images image, *images = NULL;

    FAILS(functions->create(ID_C, names, 1, NULL, NULL, no_time, NULL, store, &image) == -1, EINVAL);
    FAILS(functions->set_names(IMAGE_ID, names, 1, store) == -1, EINVAL);
    FAILS(functions->delete(IMAGE_ID, store) == -1, EINVAL);
    FAILS(functions->wipe(store) == -1, EINVAL);
    FAILS(functions->set_loaded_time(IMAGE_ID, some_time, store) == -1, EINVAL);
    FAILS(functions->add_name(IMAGE_ID, "q:1", store) == -1, EINVAL);
    FAILS(functions->save(store) == -1, EINVAL);
    FAILS(functions->set_metadata(store, IMAGE_ID, "x") == -1, EINVAL);
    FAILS(functions->set_big_data(store, IMAGE_ID, "k", "x") == -1, EINVAL);
    FAILS(!functions->exists(IMAGE_ID, store), EINVAL);
    FAILS(functions->get(IMAGE_ID, store, &image) == -1, EINVAL);
    FAILS(functions->lookup("a:1", store, &text) == -1, EINVAL);
    FAILS(functions->images(store, &images, &len) == -1, EINVAL);
    FAILS(functions->by_digest(store, DIGEST, &images, &len) == -1, EINVAL);
    FAILS(functions->load(store) == -1, EINVAL);
    FAILS(functions->metadata(store, IMAGE_ID, &text) == -1, EINVAL);
    FAILS(functions->big_data(store, IMAGE_ID, "manifest", &text) == -1, EINVAL);
    FAILS(functions->big_data_size(store, IMAGE_ID, "manifest", &size) == -1, EINVAL);
    FAILS(functions->big_data_digest(store, IMAGE_ID, "manifest", &text) == -1, EINVAL);
    FAILS(functions->big_data_names(store, IMAGE_ID, &texts, &len) == -1, EINVAL);
}

static void what_is_no_store_is_refused(image_store_t *store)
{
    const image_store_t copy = *store;
    image_store_t other, mutable_copy = copy;

    no_store_fails(&copy, NULL);
    memset(&other, 0, sizeof(other));
    no_store_fails(&copy, &other);
    free_image_store(&other);
    memset(&other, 0xa5, sizeof(other));
    no_store_fails(&copy, &other);
    free_image_store(&other);
    other = copy;
    other.magic++;
    no_store_fails(&copy, &other);
    other = copy;
    other.handle = &other;
    no_store_fails(&copy, &other);

    /* A copy is the same store; when one is freed, both are. */
    WORKS(copy.exists("a:1", &mutable_copy));
    free_image_store(store);
    CHECK(store->create == NULL && store->magic == 0 && store->handle == NULL);
    no_store_fails(&copy, &mutable_copy);
    no_store_fails(&copy, store);
    free_image_store(store);
    free_image_store(&mutable_copy);
}

static void readers_change_nothing(const char *dir)
{
    const char *names[] = { "q:1" };
    image_store_t reader;

    WORKS(new_image_store(false, true, dir, &reader) == 0);
    WORKS(reader.exists("a:1", &reader));
    FAILS(create(&reader, ID_C, "c:1") == -1, EROFS);
    FAILS(reader.set_names(IMAGE_ID, names, 1, &reader) == -1, EROFS);
    FAILS(reader.delete(IMAGE_ID, &reader) == -1, EROFS);
    FAILS(reader.wipe(&reader) == -1, EROFS);
    FAILS(reader.set_loaded_time(IMAGE_ID, some_time, &reader) == -1, EROFS);
    FAILS(reader.add_name(IMAGE_ID, "q:1", &reader) == -1, EROFS);
    FAILS(reader.set_metadata(&reader, IMAGE_ID, "x") == -1, EROFS);
    FAILS(reader.set_big_data(&reader, IMAGE_ID, "k", "x") == -1, EROFS);
    WORKS(reader.load(&reader) == 0);
    WORKS(reader.exists("a:1", &reader));
    free_image_store(&reader);
}

/* Two stores that share a directory: what one changes, the other sees at its next call. */
static void shared_stores_see_each_other(const char *dir)
{
    image_store_t one, two;
    image_storage_images *images = NULL;
    size_t len = 77;

    WORKS(new_image_store(false, false, dir, &one) == 0);
    WORKS(new_image_store(false, false, dir, &two) == 0);
    WORKS(two.exists("a:1", &two));
    WORKS(one.add_name(IMAGE_ID, "shared:1", &one) == 0);
    WORKS(two.exists("shared:1", &two));
    WORKS(two.delete("shared:1", &two) == 0);
    WORKS(!one.exists("a:1", &one));
    WORKS(create(&one, ID_C, NULL) == 0);
    WORKS(one.wipe(&one) == 0);
    WORKS(two.images(&two, &images, &len) == 0);
    CHECK(images == NULL && len == 0);
    isula_storage_free_images(images, len);
    free_image_store(&one);
    free_image_store(&two);
}

int main(int argc, char **argv)
{
    image_store_t store, second, untouched;
    const char *dir;

    if (argc != 3) {
        fprintf(stderr, "usage: %s DIR OTHER_DIR\n", argv[0]);
        return 2;
    }
    dir = argv[1];
    memset(&second, 0x55, sizeof(second));
    untouched = second;
    FAILS(new_image_store(true, false, NULL, &second) == -1, EINVAL);
    FAILS(new_image_store(true, false, NOT_UTF8, &second) == -1, EILSEQ);
    FAILS(new_image_store(true, false, "", &second) == -1, EINVAL);
    FAILS(new_image_store(true, false, dir, NULL) == -1, EINVAL);
    FAILS(new_image_store(false, true, dir, &second) == -1, ENOENT);

    WORKS(new_image_store(true, false, dir, &store) == 0);
    FAILS(new_image_store(true, false, dir, &second) == -1, EBUSY);
    CHECK(strstr(isula_storage_last_error(), "in use by pid") != NULL);
    CHECK(memcmp(&second, &untouched, sizeof(second)) == 0);
    the_functions_work(&store);
    absent_images_fail(&store);
    pointer_arguments_are_checked(&store);
    readers_change_nothing(dir);

    /* Another directory is another store. */
    WORKS(new_image_store(true, false, argv[2], &second) == 0);
    WORKS(!second.exists(IMAGE_ID, &second));
    WORKS(create(&second, ID_B, "a:1") == 0);
    WORKS(store.exists(IMAGE_ID, &store) && !store.exists(ID_B, &store));
    free_image_store(&second);

    what_is_no_store_is_refused(&store);
    WORKS(new_image_store(true, false, dir, &store) == 0);
    WORKS(store.exists("a:1", &store));
    free_image_store(&store);
    shared_stores_see_each_other(dir);
    return DONE();
}
