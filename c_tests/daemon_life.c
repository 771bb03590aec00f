/* SPDX-License-Identifier: MulanPSL-2.0 */
/* One daemon's life from its first start: every command, alone and in the orders that users give them, with restarts. */

#include "daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BOX "b0b0000000000000000000000000000000000000000000000000000000000001"
#define SIZED "b0b0000000000000000000000000000000000000000000000000000000000002"

static struct daemon_config config;
static const char *dir;
static struct bundle *base, *derived, *broken, *plain, *tar, *gz;

/* Whether the root of a container is mounted by itself; copies of vfs are always there, so nothing is claimed of them. */
static bool is_up(const char *merged, bool wanted)
{
    char place[600];

    if (strcmp(config.driver, "vfs") == 0) {
        return wanted;
    }
    snprintf(place, sizeof(place), "%s", merged);
    if (strcmp(config.driver, "devicemapper") == 0) {
        /* The device is mounted on the directory above. */
        *strrchr(place, '/') = '\0';
    }
    return is_mounted(place);
}

static void start(void)
{
    MUST(daemon_start(&config) == 0);
    MUST(daemon_ask() == 0);
}

static void restart(void)
{
    daemon_stop();
    start();
}

static bool has_layers(const struct bundle *bundle, size_t count)
{
    for (size_t i = 0; i < bundle->layers_len; i++) {
        struct layer *layer = storage_layer_get(bundle->layers[i].id);
        bool there = layer != NULL;

        free_layer(layer);
        if (there != (i < count)) {
            fprintf(stderr, "layer %zu is %s\n", i, there ? "there" : "not there");
            return false;
        }
    }
    return true;
}

/* Nothing is downloaded or made any more: nothing may be held. */
static bool is_held(const struct bundle *bundle)
{
    for (size_t i = 0; i < bundle->layers_len; i++) {
        int holds = -1;

        if (layer_get_hold_refs(bundle->layers[i].id, &holds) == 0 && holds != 0) {
            fprintf(stderr, "layer %zu has %d holds\n", i, holds);
            return true;
        }
    }
    return false;
}

static bool has_name(const char *image, const char *name)
{
    char **names = NULL;
    size_t len = 0;
    bool found = false;

    MUST(storage_img_get_names(image, &names, &len) == 0);
    for (size_t i = 0; i < len; i++) {
        found = found || strcmp(names[i], name) == 0;
    }
    isula_storage_free_strings(names, len);
    return found;
}

static void images_are_pulled(void)
{
    MUST(storage_get_img_count() == 0);
    MUST(!storage_image_exist(base->id));
    MUST(daemon_pull(base, base->name, FAIL_NOT) == 0);
    MUST(has_layers(base, 1) && !is_held(base));
    MUST(daemon_pull(base, base->name, FAIL_NOT) == 0);
    MUST(daemon_pull(base, "base:second", FAIL_NOT) == 0);
    MUST(has_name(base->id, "base:second"));
    MUST(storage_get_img_count() == 1);
    /* The layer that both have is not made again. */
    MUST(daemon_pull(derived, derived->name, FAIL_NOT) == 0);
    MUST(has_layers(derived, derived->layers_len) && !is_held(derived));
    MUST(daemon_inspect(derived->name, derived->id) == 0);
    MUST(daemon_inspect("docker.io/library/derived", derived->id) == 0);
    MUST(daemon_inspect(base->id, base->id) == 0);
    MUST(daemon_ask() == 0);
}

static void a_failed_pull_leaves_what_was_there(void)
{
    const enum daemon_failure steps[] = { FAIL_AFTER_LAYERS, FAIL_AFTER_CREATE, FAIL_AFTER_CONFIG,
                                          FAIL_AFTER_MANIFEST };

    MUST(daemon_rmi("derived") == 0);
    MUST(has_layers(derived, 1));
    MUST(daemon_pull(broken, broken->name, FAIL_NOT) == -1);
    MUST(has_layers(broken, 1) && !is_held(broken));
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        MUST(daemon_pull(derived, derived->name, steps[i]) == -1);
        MUST(!storage_image_exist(derived->id));
        /* The daemon still holds the newest layer when it deletes the image: the layers wait for the next pull. */
        MUST(has_layers(derived, steps[i] == FAIL_AFTER_LAYERS ? 1 : derived->layers_len) && !is_held(derived));
    }
    MUST(daemon_pull(derived, derived->name, FAIL_NOT) == 0);
}

static void images_are_loaded_and_imported(void)
{
    const char *names[] = { "plain:1", "plain:2" };

    MUST(daemon_load(plain, names, 2) == 0);
    MUST(has_layers(plain, plain->layers_len) && !is_held(plain));
    MUST(has_name(plain->id, names[0]) && has_name(plain->id, names[1]));
    MUST(daemon_load(plain, names, 2) == 0);
    MUST(!is_held(plain));
    MUST(daemon_import(tar, tar->name) == 0);
    MUST(daemon_import(gz, gz->name) == 0);
    MUST(!is_held(tar) && !is_held(gz));
    MUST(storage_get_img_count() == 5);
}

static void names_come_and_go(void)
{
    MUST(daemon_tag("plain:1", "plain:3") == 0);
    MUST(has_name(plain->id, "plain:3"));
    /* A name has one image. */
    MUST(daemon_tag("imported-tar", "plain:3") == 0);
    MUST(!has_name(plain->id, "plain:3") && has_name(tar->id, "plain:3"));
    MUST(daemon_tag("absent", "plain:4") == -1);
    MUST(daemon_message() != NULL &&
         strcmp(daemon_message(), "Failed to tag image with error: add name failed when run isula tag") == 0);
    MUST(daemon_rmi("plain:3") == 0);
    MUST(storage_image_exist(tar->id) && !storage_image_exist("plain:3"));
    MUST(daemon_rmi("plain:1") == 0);
    MUST(storage_image_exist(plain->id));
    MUST(daemon_rmi("plain:2") == 0);
    /* Its first layer is that of another image, too. */
    MUST(!storage_image_exist(plain->id) && has_layers(plain, 1));
    MUST(daemon_rmi("plain:2") == -1);
    /* By the beginning of its id an image goes with all its names. */
    MUST(daemon_tag("imported-gz", "gz:2") == 0);
    char *start = calloc(1, 13);

    memcpy(start, gz->id, 12);
    MUST(daemon_rmi(start) == 0);
    free(start);
    MUST(!storage_image_exist(gz->id) && has_layers(gz, 0));
}

static void containers_live(void)
{
    char *merged, path[600];

    MUST(daemon_create(BOX, "absent", NULL, NULL) == -1);
    MUST(daemon_create(BOX, "docker.io/library/derived", NULL, NULL) == 0);
    MUST(daemon_look(BOX, derived) == 0);
    MUST(daemon_usage(BOX) == 0);
    merged = daemon_merged(BOX);
    MUST(merged != NULL);

    MUST(daemon_mount(BOX) == 0);
    MUST(is_up(merged, true));
    MUST(daemon_exec_write(BOX, "root/written", "by the container\n") == 0);
    MUST(daemon_exec_write(BOX, "etc/name", "changed\n") == 0);
    snprintf(path, sizeof(path), "%s/export.tar", config.state);
    MUST(daemon_export(BOX, path) == 0);
    const char *list[] = { "tar", "-df", path, "-C", merged, NULL };

    MUST(run_program(list) == 0);
    /* The export's unmounting leaves the container's own mount alone. */
    MUST(is_up(merged, true));
    MUST(daemon_exec_reads(BOX, "root/written", "by the container\n"));
    MUST(daemon_umount(BOX, false) == 0);
    MUST(!is_up(merged, false));
    MUST(daemon_umount(BOX, false) == 0);

    /* A second of this id takes nothing from the first. */
    daemon_clear_message();
    MUST(daemon_create(BOX, "derived", NULL, NULL) == -1);
    MUST(daemon_mount(BOX) == 0);
    MUST(daemon_exec_reads(BOX, "root/written", "by the container\n"));
    MUST(daemon_exec_reads(BOX, "etc/name", "changed\n"));

    /* Forced, whatever number of users a mount has. */
    MUST(daemon_mount(BOX) == 0);
    MUST(daemon_umount(BOX, true) == 0);
    MUST(!is_up(merged, false));
    free(merged);
}

static void sizes_are_refused_without_quota(void)
{
    char key[] = "size", value[] = "10M", *keys[] = { key }, *values[] = { value };
    json_map_string_string sizes = { keys, values, 1 };

    daemon_clear_message();
    if (daemon_create(SIZED, "base", "system_u:object_r:container_file_t:s0:c1,c2", &sizes) == 0) {
        /* The file system has quotas. */
        MUST(daemon_rm(SIZED) == 0);
        return;
    }
    if (strcmp(config.driver, "devicemapper") == 0) {
        const char *start = "Container size cannot be smaller than ";

        MUST(daemon_message() != NULL && strncmp(daemon_message(), start, strlen(start)) == 0);
    } else if (strcmp(config.driver, "vfs") != 0) {
        MUST(daemon_message() != NULL &&
             strcmp(daemon_message(),
                    "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option") == 0);
    }
    MUST(storage_get_metadata_by_container_id(SIZED) == NULL);
    MUST(daemon_rm(SIZED) == 0);
}

static void an_image_in_use_stays(void)
{
    daemon_clear_message();
    MUST(daemon_rmi("derived") == -1);
    MUST(daemon_message() != NULL && strcmp(daemon_message(), "Image used by " BOX) == 0);
    MUST(daemon_rmi(derived->id) == -1);
    MUST(daemon_inspect("derived", derived->id) == 0);
    MUST(has_layers(derived, derived->layers_len));
}

static void restarts_change_nothing(void)
{
    char *merged = daemon_merged(BOX);

    restart();
    MUST(storage_get_img_count() == 3);
    MUST(daemon_inspect("base:second", base->id) == 0);
    MUST(daemon_mount(BOX) == 0);
    MUST(daemon_exec_reads(BOX, "root/written", "by the container\n"));
    MUST(daemon_exec_reads(BOX, "etc/name", "changed\n"));
    /* The container runs on while the daemon is away: its mount is counted over the restart. */
    restart();
    char *again = daemon_merged(BOX);

    MUST(merged != NULL && again != NULL && strcmp(merged, again) == 0);
    MUST(daemon_mount(BOX) == 0);
    MUST(daemon_exec_reads(BOX, "root/written", "by the container\n"));
    MUST(daemon_umount(BOX, true) == 0);
    MUST(!is_up(merged, false));
    free(merged);
    free(again);
}

static void all_goes_in_the_end(void)
{
    char *place = storage_rootfs_get_dir();
    struct stat status;

    MUST(place != NULL && stat(place, &status) == 0);
    free(place);
    MUST(daemon_rm(BOX) == 0);
    MUST(daemon_rm(BOX) == 0);
    MUST(daemon_merged(BOX) == NULL);
    MUST(daemon_usage(BOX) == -1);
    MUST(daemon_rmi("derived") == 0);
    MUST(has_layers(derived, 1));
    MUST(daemon_rmi("base:second") == 0);
    MUST(daemon_rmi("base") == 0);
    MUST(has_layers(base, 0));
    MUST(daemon_rmi("imported-tar") == 0);
    MUST(has_layers(tar, 0));
    MUST(storage_get_img_count() == 0);
    restart();
    MUST(storage_get_img_count() == 0);
}

static void broken_layers_of_containers_go(void)
{
    storage_layer_create_opts_t opts;

    MUST(daemon_pull(base, base->name, FAIL_NOT) == 0);
    memset(&opts, 0, sizeof(opts));
    opts.parent = base->layers[0].id;
    opts.writable = true;
    /* As after a crash: a container's layer of which no record tells. */
    MUST(storage_layer_create(SIZED, &opts) == 0);
    MUST(storage_broken_rw_layer_delete(base->layers[0].id) == -1);
    MUST(storage_broken_rw_layer_delete(SIZED) == 0);
    MUST(storage_broken_rw_layer_delete(SIZED) == -1);
    MUST(daemon_rmi("base") == 0);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: %s GRAPH STATE DRIVER BUNDLES\n", argv[0]);
        return 2;
    }
    config.graph = argv[1];
    config.state = argv[2];
    config.driver = argv[3];
    config.image_layer_check = true;
    dir = argv[4];
    mkdir(config.graph, 0700);
    mkdir(config.state, 0700);
    base = bundle_read(dir, "base");
    derived = bundle_read(dir, "derived");
    broken = bundle_read(dir, "broken");
    plain = bundle_read(dir, "plain");
    tar = bundle_read(dir, "imported-tar");
    gz = bundle_read(dir, "imported-gz");

    start();
    images_are_pulled();
    a_failed_pull_leaves_what_was_there();
    images_are_loaded_and_imported();
    names_come_and_go();
    containers_live();
    sizes_are_refused_without_quota();
    an_image_in_use_stays();
    restarts_change_nothing();
    all_goes_in_the_end();
    broken_layers_of_containers_go();
    daemon_stop();

    bundle_free(base);
    bundle_free(derived);
    bundle_free(broken);
    bundle_free(plain);
    bundle_free(tar);
    bundle_free(gz);
    return daemon_failures() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
