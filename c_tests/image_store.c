/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The flat image store: each function's results, what it fills, what is found again after a restart. */

#include "image.h"
#include "test.h"

#define DIGEST "sha256:" ID_B

static struct storage_module_init_options conf;

static int same_texts(char **texts, size_t len, const char *first, const char *second)
{
    size_t expected = first == NULL ? 0 : second == NULL ? 1 : 2;

    return len == expected && (len < 1 || test_same(texts[0], first)) && (len < 2 || test_same(texts[1], second));
}

static void has_names(const char *id, const char *first, const char *second)
{
    char **names = NULL;
    size_t len = 0;

    WORKS(image_store_get_names(id, &names, &len) == 0);
    CHECK(same_texts(names, len, first, second));
    CHECK(len != 0 || names == NULL);
    isula_storage_free_strings(names, len);
}

static void images_are_made(void)
{
    const char *names[] = { "b:1", "a:1", "b:1" }, *taken[] = { "c:1", "a:1" };
    types_timestamp_t time = { true, 1570814777, true, 5 };
    char *id;

    CHECK(image_store_get_images_number() == 0);
    WORKS((id = image_store_create(IMAGE_ID, names, 3, ID_A, "text", &time, DIGEST)) != NULL);
    CHECK(test_same(id, IMAGE_ID));
    free(id);
    has_names(IMAGE_ID, "a:1", "b:1");

    FAILS(image_store_create(IMAGE_ID, NULL, 0, NULL, NULL, NULL, NULL) == NULL, EEXIST);
    FAILS(image_store_create(ID_C, taken, 2, NULL, NULL, NULL, NULL) == NULL, EEXIST);
    WORKS(!image_store_exists(ID_C));
    WORKS(!image_store_exists("c:1"));

    time.has_seconds = time.has_nanos = false;
    WORKS((id = image_store_create(NULL, NULL, 0, NULL, NULL, &time, NULL)) != NULL);
    CHECK(id != NULL && strlen(id) == 64 && strspn(id, "0123456789abcdef") == 64);
    has_names(id, NULL, NULL);
    WORKS(image_store_top_layer(id) == NULL);
    WORKS(image_store_metadata(id) == NULL);
    CHECK(image_store_get_images_number() == 2);
    WORKS(image_store_delete(id) == 0);
    WORKS(image_store_delete(id) == 0);
    CHECK(image_store_get_images_number() == 1);
    free(id);
}

static void images_are_found(void)
{
    static const char *const keys[] = { IMAGE_ID, "a:1", "b:1", "a@" DIGEST };
    char start[16], *id;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        WORKS((id = image_store_lookup(keys[i])) != NULL);
        CHECK(test_same(id, IMAGE_ID));
        isula_storage_free_string(id);
        WORKS(image_store_exists(keys[i]));
    }
    snprintf(start, sizeof(start), "%.3s", IMAGE_ID);
    WORKS(image_store_exists(start));
    start[2] = '\0';
    WORKS(!image_store_exists(start));
    WORKS(!image_store_exists(""));
    FAILS(image_store_lookup("") == NULL, ENOENT);
    FAILS(image_store_lookup(ID_ABSENT) == NULL, ENOENT);
    FAILS(image_store_lookup("c@" DIGEST) == NULL, ENOENT);
}

static void big_data_are_kept(void)
{
    static const char *const bad_keys[] = { "", ".", "..", "images.json" };
    char *text, **names = NULL;
    size_t len = 77;

    WORKS(image_store_big_data_names(IMAGE_ID, &names, &len) == 0);
    CHECK(names == NULL && len == 0);
    FAILS(image_store_get_image(IMAGE_ID) == NULL, ENOENT);
    WORKS(image_store_set_big_data(IMAGE_ID, IMAGE_CONFIG_KEY, IMAGE_CONFIG) == 0);
    WORKS(image_store_set_big_data("a:1", "manifest", IMAGE_MANIFEST) == 0);
    WORKS(image_store_set_big_data("a:1", "manifest", IMAGE_MANIFEST) == 0);
    for (size_t i = 0; i < sizeof(bad_keys) / sizeof(bad_keys[0]); i++) {
        FAILS(image_store_set_big_data(IMAGE_ID, bad_keys[i], "x") == -1, EINVAL);
    }
    FAILS(image_store_set_big_data(ID_ABSENT, "manifest", "x") == -1, ENOENT);

    WORKS((text = image_store_big_data(IMAGE_ID, IMAGE_CONFIG_KEY)) != NULL);
    CHECK(test_same(text, IMAGE_CONFIG));
    free(text);
    WORKS((text = image_store_big_data_digest(IMAGE_ID, "manifest")) != NULL);
    CHECK(test_same(text, IMAGE_MANIFEST_DIGEST));
    free(text);
    WORKS(image_store_big_data_size(IMAGE_ID, "manifest") == (int64_t)strlen(IMAGE_MANIFEST));
    WORKS(image_store_big_data_names(IMAGE_ID, &names, &len) == 0);
    CHECK(same_texts(names, len, IMAGE_CONFIG_KEY, "manifest"));
    isula_storage_free_strings(names, len);

    FAILS(image_store_big_data(IMAGE_ID, "absent") == NULL, ENOENT);
    FAILS(image_store_big_data(IMAGE_ID, "") == NULL, EINVAL);
    FAILS(image_store_big_data_size(IMAGE_ID, "absent") == -1, ENOENT);
    FAILS(image_store_big_data_digest(IMAGE_ID, "absent") == NULL, ENOENT);
    FAILS(image_store_big_data(ID_ABSENT, "manifest") == NULL, ENOENT);
    FAILS(image_store_big_data_size(ID_ABSENT, "manifest") == -1, ENOENT);
    FAILS(image_store_big_data_digest(ID_ABSENT, "manifest") == NULL, ENOENT);
    names = NULL;
    FAILS(image_store_big_data_names(ID_ABSENT, &names, &len) == -1, ENOENT);
    CHECK(names == NULL);
}

static void names_move(void)
{
    const char *names[] = { "x:1", "b:1" };
    char *id;

    WORKS((id = image_store_create(ID_C, names, 1, NULL, NULL, NULL, NULL)) != NULL);
    free(id);
    WORKS(image_store_add_name(ID_C, "b:1") == 0);
    has_names(ID_C, "b:1", "x:1");
    has_names(IMAGE_ID, "a:1", NULL);
    WORKS(image_store_set_names(IMAGE_ID, names, 2) == 0);
    has_names(IMAGE_ID, "b:1", "x:1");
    has_names(ID_C, NULL, NULL);
    WORKS(!image_store_exists("a:1"));
    names[0] = "a:1";
    WORKS(image_store_set_names(IMAGE_ID, names, 2) == 0);
    has_names(IMAGE_ID, "a:1", "b:1");
    FAILS(image_store_add_name(ID_ABSENT, "y:1") == -1, ENOENT);
    FAILS(image_store_set_names(ID_ABSENT, names, 2) == -1, ENOENT);
    WORKS(image_store_delete(ID_C) == 0);
}

static void facts_are_set(void)
{
    types_timestamp_t time = { true, 1600000000, false, 0 };
    char *text;

    WORKS((text = image_store_metadata(IMAGE_ID)) != NULL);
    CHECK(test_same(text, "text"));
    free(text);
    WORKS(image_store_set_metadata(IMAGE_ID, "other") == 0);
    text = image_store_metadata(IMAGE_ID);
    CHECK(test_same(text, "other"));
    free(text);
    WORKS((text = image_store_top_layer("b:1")) != NULL);
    CHECK(test_same(text, ID_A));
    free(text);
    WORKS(image_store_set_load_time(IMAGE_ID, &time) == 0);
    WORKS(image_store_set_image_size(IMAGE_ID, 12345678901) == 0);
    FAILS(image_store_set_metadata(ID_ABSENT, "x") == -1, ENOENT);
    FAILS(image_store_metadata(ID_ABSENT) == NULL, ENOENT);
    FAILS(image_store_top_layer(ID_ABSENT) == NULL, ENOENT);
    FAILS(image_store_set_load_time(ID_ABSENT, &time) == -1, ENOENT);
    FAILS(image_store_set_image_size(ID_ABSENT, 1) == -1, ENOENT);
}

static void an_image_shows_its_config(void)
{
    imagetool_image *image;
    oci_image_spec_config *config;

    FAILS(image_store_get_image(ID_ABSENT) == NULL, ENOENT);
    WORKS((image = image_store_get_image("a:1")) != NULL);
    if (image == NULL) {
        return;
    }
    CHECK(test_same(image->id, IMAGE_ID) && test_same(image->top_layer, ID_A) && image->size == 12345678901);
    CHECK(same_texts(image->repo_tags, image->repo_tags_len, "a:1", "b:1"));
    CHECK(same_texts(image->repo_digests, image->repo_digests_len, "a@" DIGEST, "b@" DIGEST));
    CHECK(image->created != NULL && strncmp(image->created, "2019-10-11T", 11) == 0);
    CHECK(image->loaded != NULL && strncmp(image->loaded, "2020-09-13T", 11) == 0);
    CHECK(image->uid != NULL && image->uid->value == 1000 && image->username == NULL);
    CHECK(image->healthcheck != NULL && image->healthcheck->retries == 3);
    CHECK(image->healthcheck != NULL && same_texts(image->healthcheck->test, image->healthcheck->test_len, "CMD", "true"));
    CHECK(image->_residual == NULL);

    CHECK(test_same(image->spec->architecture, "amd64") && test_same(image->spec->os, "linux"));
    CHECK(test_same(image->spec->author, "somebody") && test_same(image->spec->created, "2019-10-11T17:26:17.8Z"));
    CHECK(test_same(image->spec->rootfs->type, "layers") && image->spec->rootfs->diff_ids_len == 1);
    CHECK(image->spec->history_len == 2 && test_same(image->spec->history[0]->created_by, "make"));
    CHECK(image->spec->history_len == 2 && image->spec->history[1]->empty_layer && !image->spec->history[0]->empty_layer);
    config = image->spec->config;
    CHECK(test_same(config->user, "1000:100") && test_same(config->working_dir, "/w"));
    CHECK(test_same(config->stop_signal, "SIGTERM"));
    CHECK(same_texts(config->env, config->env_len, "A=1", "B=2"));
    CHECK(same_texts(config->entrypoint, config->entrypoint_len, "/bin/sh", NULL));
    CHECK(same_texts(config->cmd, config->cmd_len, "-c", "true"));
    CHECK(same_texts(config->exposed_ports->keys, config->exposed_ports->len, "80/tcp", "443/tcp"));
    CHECK(config->exposed_ports->values[0] != NULL && config->exposed_ports->values[1] != NULL);
    CHECK(same_texts(config->volumes->keys, config->volumes->len, "/data", NULL));
    CHECK(same_texts(config->labels->keys, config->labels->len, "k", "l"));
    CHECK(same_texts(config->labels->values, config->labels->len, "v", ""));
    CHECK(config->healthcheck != NULL && config->healthcheck->interval == 5000000000);
    isula_storage_free_imagetool_image(image);
}

static void images_are_listed(void)
{
    imagetool_image_summary *summary;
    imagetool_images_list list;
    imagetool_fs_info info;

    FAILS(image_store_get_image_summary(ID_ABSENT) == NULL, ENOENT);
    WORKS((summary = image_store_get_image_summary(IMAGE_ID)) != NULL);
    if (summary != NULL) {
        CHECK(test_same(summary->id, IMAGE_ID) && summary->uid != NULL && summary->uid->value == 1000);
        CHECK(same_texts(summary->repo_tags, summary->repo_tags_len, "a:1", "b:1"));
        CHECK(summary->labels != NULL && same_texts(summary->labels->values, summary->labels->len, "v", ""));
    }
    isula_storage_free_imagetool_image_summary(summary);

    memset(&list, 0, sizeof(list));
    WORKS(image_store_get_all_images(&list) == 0);
    CHECK(list.images_len == 1 && test_same(list.images[0]->id, IMAGE_ID));
    isula_storage_clear_imagetool_images_list(&list);
    CHECK(list.images == NULL && list.images_len == 0);

    memset(&info, 0, sizeof(info));
    WORKS(image_store_get_fs_info(&info) == 0);
    CHECK(info.image_filesystems_len == 1);
    if (info.image_filesystems_len == 1) {
        imagetool_fs_info_image_filesystems_element *element = info.image_filesystems[0];

        CHECK(strstr(element->fs_id->mountpoint, "/overlay-images") != NULL);
        CHECK(element->timestamp > 0 && element->used_bytes->value > strlen(IMAGE_CONFIG));
        CHECK(element->inodes_used->value >= 5);
    }
    isula_storage_clear_imagetool_fs_info(&info);
}

static void everything_is_deleted(void)
{
    imagetool_images_list list = { NULL, 77, NULL };

    WORKS(image_store_delete("b:1") == 0);
    WORKS(!image_store_exists(IMAGE_ID));
    CHECK(image_store_get_images_number() == 0);
    WORKS(image_store_get_all_images(&list) == 0);
    CHECK(list.images == NULL && list.images_len == 77);
}

int main(int argc, char **argv)
{
    char driver[] = "overlay2";

    if (argc != 2) {
        fprintf(stderr, "usage: %s ROOT\n", argv[0]);
        return 2;
    }
    conf.storage_root = argv[1];
    conf.driver_name = driver;
    WORKS(image_store_init(&conf) == 0);
    FAILS(image_store_init(&conf) == -1, EEXIST);
    images_are_made();
    images_are_found();
    big_data_are_kept();
    names_move();
    facts_are_set();
    for (int restart = 0; restart < 2; restart++) {
        images_are_found();
        an_image_shows_its_config();
        images_are_listed();
        image_store_free();
        FAILS(image_store_lookup(IMAGE_ID) == NULL, ENODEV);
        WORKS(image_store_init(&conf) == 0);
    }
    everything_is_deleted();
    image_store_free();
    image_store_free();
    return DONE();
}
