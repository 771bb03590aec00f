/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Layers and images that other hosts share, in the build with the feature remote-layer-store: one host makes them, another
 * has the shared directories mounted. One process plays both, one after the other.
 */

#include <pthread.h>

#include "archive.h"
#include "test.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const shared[] = { "overlay/RO", "overlay-layers/RO", "overlay-images" };
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

static const char *path(const char *root, const char *name)
{
    static char buffers[4][1024];
    static unsigned next;
    char *buffer = buffers[next++ % 4];

    snprintf(buffer, sizeof(buffers[0]), "%s/%s", root, name);
    return buffer;
}

static void make_dirs(const char *root)
{
    CHECK(mkdir(root, 0700) == 0);
    CHECK(mkdir(path(root, "overlay"), 0700) == 0 && mkdir(path(root, "overlay-layers"), 0700) == 0);
    for (size_t i = 0; i < 3; i++) {
        CHECK(mkdir(path(root, shared[i]), 0700) == 0);
    }
}

static struct storage_module_init_options options(char *root, char *run)
{
    static char driver[] = "overlay";
    struct storage_module_init_options conf;

    memset(&conf, 0, sizeof(conf));
    strcat(strcpy(run, root), "-run");
    conf.storage_root = root;
    conf.storage_run_root = run;
    conf.driver_name = driver;
    conf.enable_remote_layer = true;
    conf.remote_lock = &lock;
    return conf;
}

static void make_layer(const char *id, const char *parent, const char *file)
{
    static struct archive archive;
    char parent_copy[80];
    struct layer_opts opts;
    struct memory_stream stream = { NULL, 0, 0, 0, 0, 0 };
    struct io_read_wrapper content = { &stream, memory_read, memory_close, 0 };

    memset(&archive, 0, sizeof(archive));
    archive_add(&archive, file, "content");
    archive_end(&archive);
    stream.bytes = archive.bytes;
    stream.len = archive.len;
    memset(&opts, 0, sizeof(opts));
    if (parent != NULL) {
        opts.parent = strcpy(parent_copy, parent);
    }
    WORKS(layer_store_create(id, &opts, &content, NULL) == 0);
    WORKS(layer_dec_hold_refs(id) == 0);
}

static bool is_link_to(const char *name, const char *target)
{
    char buffer[1024] = { 0 };

    return readlink(name, buffer, sizeof(buffer) - 1) > 0 && test_same(buffer, target);
}

static void the_maker(char *root)
{
    char run[1024];
    struct storage_module_init_options conf = options(root, run);

    conf.remote_lock = NULL;
    FAILS(storage_module_init(&conf) == -1, EINVAL);
    conf.remote_lock = &lock;
    WORKS(storage_module_init(&conf) == 0);
    FAILS(remote_start_refresh_thread(&lock) == -1, EEXIST);
    make_layer(ID_A, NULL, "base");
    make_layer(ID_B, ID_A, "top");
    CHECK(is_link_to(path(root, "overlay/" ID_B), path(root, "overlay/RO/" ID_B)));
    CHECK(is_link_to(path(root, "overlay-layers/" ID_B), path(root, "overlay-layers/RO/" ID_B)));
    storage_module_exit();
}

static void the_user(char *root)
{
    char run[1024], *mounted;
    struct storage_module_init_options conf = options(root, run);
    struct layer_list list;

    WORKS(layer_store_init(&conf) == 0);
    memset(&list, 0, sizeof(list));
    WORKS(layer_store_list(&list) == 0);
    CHECK(list.layers_len == 2);
    isula_storage_clear_layer_list(&list);

    /* Out of memory, and in again: into lists, too. */
    FAILS(remote_layer_remove_memory_stores_with_lock(ID_A) == -1, EBUSY);
    WORKS(remote_layer_remove_memory_stores_with_lock(ID_B) == 0);
    WORKS(remote_layer_remove_memory_stores_with_lock(ID_B) == 0);
    CHECK(!layer_store_exists(ID_B));
    WORKS(remote_load_one_layer(ID_B) == 0);
    WORKS(remote_load_one_layer(ID_B) == 0);
    FAILS(remote_load_one_layer(ID_ABSENT) == -1, ENOENT);
    memset(&list, 0, sizeof(list));
    WORKS(layer_store_list(&list) == 0);
    CHECK(list.layers_len == 2);
    isula_storage_clear_layer_list(&list);
    CHECK(remote_overlay_layer_valid(ID_B) && remote_layer_layer_valid(ID_B));
    CHECK(!remote_overlay_layer_valid(ID_C) && !remote_layer_layer_valid(ID_C));
    mounted = layer_store_mount(ID_B);
    CHECK(mounted != NULL && access(path(mounted, "base"), F_OK) == 0);
    free(mounted);
    WORKS(layer_store_umount(ID_B, true) == 0);

    /* The thread ends although somebody holds its lock. */
    CHECK(pthread_rwlock_rdlock(&lock) == 0);
    WORKS(remote_start_refresh_thread(&lock) == 0);
    FAILS(remote_start_refresh_thread(&lock) == -1, EEXIST);
    layer_store_exit();
    CHECK(pthread_rwlock_unlock(&lock) == 0);
    FAILS(remote_start_refresh_thread(&lock) == -1, ENODEV);
    layer_store_exit();

    /* Without the switch the links are not followed, and nothing is refreshed. */
    conf.enable_remote_layer = false;
    WORKS(layer_store_init(&conf) == 0);
    CHECK(!layer_store_exists(ID_B));
    FAILS(remote_start_refresh_thread(&lock) == -1, EOPNOTSUPP);
    FAILS(remote_load_one_layer(ID_B) == -1, EOPNOTSUPP);
    layer_store_exit();
}

static void images_of_others(char *root)
{
    char run[1024], id[65], *top;
    struct storage_module_init_options conf = options(root, run);

    memset(id, 'e', 64);
    id[64] = '\0';
    WORKS(storage_module_init(&conf) == 0);
    FAILS(remote_append_image_by_directory_with_lock(path(root, "overlay-images/nonsense/..")) == -1, EINVAL);
    CHECK(remote_append_image_by_directory_with_lock(path(path(root, "overlay-images"), id)) == -1);
    CHECK(errno == ENOENT);
    FAILS(remote_image_get_top_layer_from_json(id) == NULL, ENOENT);
    top = image_store_create(id, NULL, 0, ID_B, NULL, NULL, NULL);
    CHECK(test_same(top, id));
    free(top);
    top = remote_image_get_top_layer_from_json(id);
    CHECK(test_same(top, ID_B));
    free(top);
    WORKS(remote_append_image_by_directory_with_lock(path(path(root, "overlay-images"), id)) == 0);
    WORKS(remote_remove_image_from_memory_with_lock(id) == 0);
    CHECK(!image_store_exists(id));
    WORKS(remote_remove_image_from_memory_with_lock(id) == 0);
    storage_module_exit();
}

/* The driver alone: what is made past the layer store is shared at once, for nobody says when it is whole. */
static void the_driver_alone(char *root)
{
    char run[1024], id[65], *mounted;
    struct storage_module_init_options conf = options(root, run);
    struct driver_create_opts create;

    memset(id, 'f', 64);
    id[64] = '\0';
    memset(&create, 0, sizeof(create));
    WORKS(graphdriver_init(&conf) == 0);
    WORKS(graphdriver_create_ro(id, ID_B, &create) == 0);
    CHECK(is_link_to(path(path(root, "overlay"), id), path(path(root, "overlay/RO"), id)));
    mounted = graphdriver_mount_layer(id, NULL);
    CHECK(mounted != NULL && access(path(mounted, "base"), F_OK) == 0);
    free(mounted);
    WORKS(graphdriver_umount_layer(id) == 0);
    WORKS(graphdriver_rm_layer(id) == 0);
    CHECK(access(path(path(root, "overlay/RO"), id), F_OK) == -1);
    WORKS(graphdriver_cleanup() == 0);
}

/* The functions that work on directories alone, as iSulad's own unit test calls them. */
static void directories(char *root)
{
    struct stat found;

    FAILS(remote_layer_build_ro_dir("foo") == -1, ENODEV);
    WORKS(remote_image_init(path(root, "images")) == 0);
    WORKS(remote_layer_init(path(root, "layers")) == 0);
    WORKS(remote_overlay_init(path(root, "overlay")) == 0);
    CHECK(stat(path(root, "layers/RO"), &found) == 0 && (found.st_mode & 07777) == 0700);
    WORKS(remote_layer_build_ro_dir("foo") == 0);
    WORKS(remote_overlay_build_ro_dir("foo") == 0);
    CHECK(is_link_to(path(root, "layers/foo"), path(root, "layers/RO/foo")));
    CHECK(stat(path(root, "overlay/foo"), &found) == 0 && S_ISDIR(found.st_mode));

    /* What is there is not deleted because something else is there as well. */
    FAILS(remote_layer_build_ro_dir("foo") == -1, EEXIST);
    CHECK(stat(path(root, "layers/RO/foo"), &found) == 0);
    CHECK(mkdir(path(root, "layers/mine"), 0700) == 0);
    FAILS(remote_layer_build_ro_dir("mine") == -1, EEXIST);
    CHECK(stat(path(root, "layers/RO/mine"), &found) == -1);
    FAILS(remote_layer_remove_ro_dir("mine") == -1, EINVAL);
    FAILS(remote_layer_build_ro_dir("../out") == -1, EINVAL);
    FAILS(remote_layer_remove_ro_dir("..") == -1, EINVAL);

    WORKS(remote_layer_remove_ro_dir("foo") == 0);
    WORKS(remote_overlay_remove_ro_dir("foo") == 0);
    CHECK(lstat(path(root, "layers/foo"), &found) == -1 && stat(path(root, "layers/RO/foo"), &found) == -1);
    WORKS(remote_layer_remove_ro_dir("foo") == 0);
    FAILS(remote_layer_init(NULL) == -1, EINVAL);
    FAILS(remote_overlay_build_ro_dir("foo") == -1, ENODEV);
    remote_maintain_cleanup();
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s MAKER USER PLAIN\n", argv[0]);
        return 2;
    }
    make_dirs(argv[1]);
    make_dirs(argv[2]);
    for (size_t i = 0; i < 3; i++) {
        CHECK(mount(path(argv[1], shared[i]), path(argv[2], shared[i]), NULL, MS_BIND, NULL) == 0);
    }
    the_maker(argv[1]);
    the_user(argv[2]);
    images_of_others(argv[2]);
    the_driver_alone(argv[2]);
    for (size_t i = 0; i < 3; i++) {
        CHECK(umount2(path(argv[2], shared[i]), MNT_DETACH) == 0);
    }
    directories(argv[3]);
    return DONE();
}
