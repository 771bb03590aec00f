/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The flat rootfs store: each function's results, what it fills, what is found again after a restart. */

#include "test.h"

#include <sys/stat.h>
#include <unistd.h>

static struct storage_module_init_options conf;
static const char *root;

/* Path below the directory of the records. */
static const char *below(const char *id, const char *file)
{
    static char path[4096];

    snprintf(path, sizeof(path), "%s/overlay-containers/%s%s%s", root, id, file == NULL ? "" : "/", file == NULL ? "" : file);
    return path;
}

static char *content(const char *path)
{
    static char text[4096];
    FILE *file = fopen(path, "r");
    size_t len;

    CHECK(file != NULL);
    if (file == NULL) {
        return NULL;
    }
    len = fread(text, 1, sizeof(text) - 1, file);
    text[len] = '\0';
    fclose(file);
    return text;
}

static void put(const char *id, const char *text)
{
    FILE *file;

    CHECK(mkdir(below(id, NULL), 0700) == 0);
    file = fopen(below(id, "container.json"), "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void expect_id(char *id, const char *expected)
{
    CHECK(test_same(id, expected));
    free(id);
}

/* Two user ranges and one group range: the reference stores the first user range once. */
static void containers_are_made_with_their_own_ranges(void)
{
    const char *names[] = { "b", "a", "b" }, *taken[] = { "c", "a" };
    struct id_map uids[] = { { 0, 100000, 1000 }, { 1000, 0, 1 } }, gids[] = { { 5, 6, 7 } };
    struct storage_rootfs_options opts;
    storage_rootfs *record;
    const char *text;
    char *id;

    /* Only the ranges are read. */
    memset(&opts, 0x55, sizeof(opts));
    opts.id_mapping_opts.uid_map = uids;
    opts.id_mapping_opts.uid_map_len = 2;
    opts.id_mapping_opts.gid_map = gids;
    opts.id_mapping_opts.gid_map_len = 1;
    WORKS((id = rootfs_store_create(ID_A, names, 3, ID_C, "layer-a", "text", &opts)) != NULL);
    expect_id(id, ID_A);
    uids[0].host_id = 1;

    WORKS((record = rootfs_store_get_rootfs("layer-a")) != NULL);
    CHECK(test_same(record->id, ID_A) && test_same(record->layer, "layer-a"));
    CHECK(test_same(record->image, ID_C) && test_same(record->metadata, "text"));
    CHECK(record->names_len == 2 && test_same(record->names[0], "a") && test_same(record->names[1], "b"));
    CHECK(record->created != NULL && strlen(record->created) == 35);
    CHECK(record->uidmap_len == 2 && record->gidmap_len == 1 && record->_residual == NULL);
    CHECK(record->uidmap[0]->container_id == 0 && record->uidmap[0]->host_id == 100000 && record->uidmap[0]->size == 1000);
    CHECK(record->uidmap[1]->container_id == 1000 && record->uidmap[1]->host_id == 0 && record->uidmap[1]->size == 1);
    CHECK(record->gidmap[0]->container_id == 5 && record->gidmap[0]->host_id == 6 && record->gidmap[0]->size == 7);
    isula_storage_free_storage_rootfs(record);
    text = content(below(ID_A, "container.json"));
    CHECK(text != NULL && strstr(text, "\"host_id\": 100000,\n            \"size\": 1000\n") != NULL);

    /* What is taken is refused, and no name or layer stays behind. */
    FAILS(rootfs_store_create(ID_A, NULL, 0, NULL, "other", NULL, NULL) == NULL, EEXIST);
    FAILS(rootfs_store_create(ID_B, NULL, 0, NULL, "layer-a", NULL, NULL) == NULL, EEXIST);
    FAILS(rootfs_store_create(ID_B, taken, 2, NULL, "layer-b", NULL, NULL) == NULL, EEXIST);
    WORKS(!rootfs_store_exists(ID_B));
    WORKS(!rootfs_store_exists("layer-b"));
    WORKS((id = rootfs_store_create(ID_B, taken, 1, NULL, "layer-b", NULL, NULL)) != NULL);
    expect_id(id, ID_B);

    WORKS((id = rootfs_store_create(NULL, NULL, 0, NULL, "layer-c", NULL, NULL)) != NULL);
    CHECK(id != NULL && strlen(id) == 64 && strspn(id, "0123456789abcdef") == 64);
    WORKS(rootfs_store_delete(id) == 0);
    WORKS(rootfs_store_delete(id) == 0);
    WORKS(!rootfs_store_exists(id));
    free(id);
}

static void containers_are_found(void)
{
    char *id;
    static const char *const unknown[] = { "", "a", "aa", "AAA", "name", "b", ID_ABSENT };

    WORKS((id = rootfs_store_lookup(ID_A)) != NULL);
    expect_id(id, ID_A);
    WORKS((id = rootfs_store_lookup("aaa")) != NULL);
    expect_id(id, ID_A);
    WORKS((id = rootfs_store_lookup("layer-b")) != NULL);
    expect_id(id, ID_B);
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        FAILS(rootfs_store_lookup(unknown[i]) == NULL, ENOENT);
        FAILS(rootfs_store_get_rootfs(unknown[i]) == NULL, ENOENT);
        FAILS(rootfs_store_set_metadata(unknown[i], "m") == -1, ENOENT);
        WORKS(!rootfs_store_exists(unknown[i]));
        WORKS(rootfs_store_delete(unknown[i]) == 0);
    }
    /* A lookup that finds nothing keeps no writer out, and nothing that means nothing was deleted. */
    WORKS(rootfs_store_set_metadata("layer-b", "new") == 0);
    WORKS(rootfs_store_exists(ID_A) && rootfs_store_exists(ID_B));
}

static void lists_are_whole(void)
{
    struct rootfs_list list;

    memset(&list, 0x55, sizeof(list));
    WORKS(rootfs_store_get_all_rootfs(&list) == 0);
    CHECK(list.rootfs_len == 2 && test_same(list.rootfs[0]->id, ID_A) && test_same(list.rootfs[1]->id, ID_B));
    CHECK(test_same(list.rootfs[1]->metadata, "new") && list.rootfs[1]->image == NULL);
    isula_storage_clear_rootfs_list(&list);
    CHECK(list.rootfs == NULL && list.rootfs_len == 0);
}

static void records_are_saved_and_counted(void)
{
    storage_rootfs *record;
    cntrootfs_t *counted;

    WORKS((record = rootfs_store_get_rootfs(ID_A)) != NULL);
    WORKS((counted = new_rootfs(record)) != NULL);
    CHECK(counted->srootfs == record && counted->refcnt == 1);
    WORKS((rootfs_ref_inc(counted), true));
    CHECK(counted->refcnt == 2);
    WORKS((rootfs_ref_dec(counted), true));
    CHECK(counted->refcnt == 1);

    free(record->metadata);
    record->metadata = strdup("saved");
    WORKS(rootfs_store_save(counted) == 0);
    CHECK(strstr(content(below(ID_A, "container.json")), "\"metadata\": \"saved\"") != NULL);
    free(record->layer);
    record->layer = strdup("layer-b");
    FAILS(rootfs_store_save(counted) == -1, EEXIST);
    free(record->layer);
    record->layer = strdup("../x");
    FAILS(rootfs_store_save(counted) == -1, EINVAL);
    WORKS((rootfs_ref_dec(counted), true));
    CHECK(test_same((record = rootfs_store_get_rootfs(ID_A))->metadata, "saved"));
    WORKS((counted = new_rootfs(record)) != NULL);
    WORKS((free_rootfs_t(counted), true));
}

static char reported[256];

static void clean_up(int kind, const char *id, void *userdata)
{
    CHECK(kind == ISULA_STORAGE_BROKEN_ROOTFS && userdata == reported);
    strncat(reported, id, sizeof(reported) - strlen(reported) - 1);
}

/* What the reference deletes, or does not start with. */
static void broken_records_are_put_aside_and_reported(void)
{
    struct isula_storage_host host;
    struct rootfs_list list;

    WORKS((rootfs_store_free(), true));
    put(ID_C, "{");
    put(ID_ABSENT, "{}");
    memset(&host, 0, sizeof(host));
    host.size = sizeof(host);
    host.clean_up = clean_up;
    host.userdata = reported;
    isula_storage_set_host(&host);
    WORKS(rootfs_store_init(&conf) == 0);
    isula_storage_set_host(NULL);
    CHECK(test_same(reported, ID_C));
    CHECK(access(below(ID_C, NULL), F_OK) == -1 && access(below(ID_ABSENT, NULL), F_OK) == -1);
    WORKS(rootfs_store_get_all_rootfs(&list) == 0);
    CHECK(list.rootfs_len == 2);
    isula_storage_clear_rootfs_list(&list);
}

int main(int argc, char **argv)
{
    char driver[] = "overlay2", *dir;
    struct rootfs_list list = { NULL, 77 };

    if (argc != 2) {
        fprintf(stderr, "usage: %s ROOT\n", argv[0]);
        return 2;
    }
    root = argv[1];
    conf.storage_root = argv[1];
    conf.driver_name = driver;
    WORKS(rootfs_store_init(&conf) == 0);
    FAILS(rootfs_store_init(&conf) == -1, EEXIST);
    WORKS((dir = rootfs_store_get_data_dir()) != NULL);
    CHECK(dir != NULL && strncmp(dir, root, strlen(root)) == 0 && test_same(dir + strlen(root), "/overlay-containers"));
    free(dir);
    WORKS(rootfs_store_get_all_rootfs(&list) == 0);
    CHECK(list.rootfs == NULL && list.rootfs_len == 0);

    containers_are_made_with_their_own_ranges();
    for (int start = 0; start < 2; start++) {
        containers_are_found();
        lists_are_whole();
        WORKS((rootfs_store_free(), true));
        WORKS((rootfs_store_free(), true));
        FAILS(rootfs_store_lookup(ID_A) == NULL, ENODEV);
        WORKS(rootfs_store_init(&conf) == 0);
    }
    records_are_saved_and_counted();
    broken_records_are_put_aside_and_reported();
    WORKS(rootfs_store_wipe() == 0);
    WORKS(rootfs_store_get_all_rootfs(&list) == 0);
    CHECK(list.rootfs_len == 0 && access(below(ID_A, NULL), F_OK) == -1);
    rootfs_store_free();
    return DONE();
}
