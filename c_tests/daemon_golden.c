/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A daemon goes on with the store of a real iSulad: what was there is there, can be used and removed, and what it adds
 * lives beside it. */

#include "daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define IMAGE "11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142"
#define RUNNING "5bdedd739ff4704de65820ae9a5f93f63a0cf3869b70eee5531db7a63486ecf5"
#define CREATED "27cd7024d0302b999ae11c404ed0e0e148559fd3ba3c24947fc98da608fa8f14"
#define OWN "0c0c000000000000000000000000000000000000000000000000000000000000"
#define MOST 16

static struct daemon_config config;
static struct bundle *real, *derived;

static void start(bool check)
{
    config.image_layer_check = check;
    MUST(daemon_start(&config) == 0);
    MUST(daemon_ask() == 0);
}

/* Ends as the daemon's SIGKILL would for the store: the flag file stays, mounts stay. */
static void restart_after_a_kill(bool check)
{
    char flag[600];

    daemon_stop();
    snprintf(flag, sizeof(flag), "%s/storage/NEED_CHECK", config.graph);
    MUST(write_file(flag, "") == 0);
    start(check);
}

static void the_containers_are_there(void)
{
    MUST(storage_get_img_count() == 1);
    MUST(daemon_inspect(IMAGE, IMAGE) == 0);
    /* What the running container wrote. */
    MUST(daemon_mount(RUNNING) == 0);
    MUST(daemon_exec_reads(RUNNING, "root/w", "hi\n"));
    MUST(daemon_exec_reads(RUNNING, "opt/dir1/three", "new\n"));
    MUST(daemon_exec_reads(RUNNING, "opt/dir1/one", NULL));
    MUST(daemon_usage(RUNNING) == 0 && daemon_usage(CREATED) == 0);
    MUST(daemon_umount(RUNNING, true) == 0);
    MUST(daemon_look(CREATED, real) == 0);
    daemon_clear_message();
    MUST(daemon_rmi(IMAGE) == -1);
    MUST(daemon_message() != NULL && strncmp(daemon_message(), "Image used by ", 14) == 0);
}

static void the_running_store_goes_on(void)
{
    const char *names[] = { "real:1" };

    /* The store was left by a kill, with its flag file, so all images are looked through. */
    start(true);
    the_containers_are_there();
    restart_after_a_kill(false);
    the_containers_are_there();
    daemon_stop();
    start(true);
    the_containers_are_there();

    /* An image of the same layers needs no new ones. */
    MUST(daemon_load(real, names, 1) == 0);
    MUST(daemon_pull(derived, derived->name, FAIL_NOT) == 0);
    MUST(daemon_create(OWN, names[0], NULL, NULL) == 0);
    MUST(daemon_look(OWN, real) == 0);
    MUST(daemon_rm(RUNNING) == 0);
    restart_after_a_kill(true);
    MUST(daemon_merged(RUNNING) == NULL);
    MUST(daemon_look(CREATED, real) == 0 && daemon_look(OWN, real) == 0);
    MUST(daemon_rm(CREATED) == 0);
    MUST(daemon_rmi(IMAGE) == 0);
    MUST(!storage_image_exist(IMAGE));
    /* The layers have another user now. */
    MUST(daemon_look(OWN, real) == 0);
    MUST(daemon_rm(OWN) == 0);
    MUST(daemon_rmi("real:1") == 0);
    for (size_t i = 0; i < real->layers_len; i++) {
        MUST(storage_layer_get(real->layers[i].id) == NULL);
    }
    MUST(daemon_rmi("derived") == 0);
    MUST(storage_get_img_count() == 0);
    daemon_stop();
}

/* The ids of all images, in `ids`. */
static size_t list(char ids[MOST][65])
{
    imagetool_images_list *images = calloc(1, sizeof(*images));
    size_t len = 0;

    MUST(images != NULL && storage_get_all_images(images) == 0 && images->images_len <= MOST);
    for (size_t i = 0; images != NULL && i < images->images_len && i < MOST; i++) {
        snprintf(ids[len++], 65, "%s", images->images[i]->id);
    }
    isula_storage_free_imagetool_images_list(images);
    return len;
}

static void container_of(char *id, size_t number)
{
    snprintf(id, 65, "c%063zu", number);
}

static void the_imported_store_goes_on(size_t expected)
{
    char ids[MOST][65], id[65];
    size_t len;

    start(true);
    len = list(ids);
    MUST(len == expected);
    for (size_t i = 0; i < len; i++) {
        container_of(id, i);
        MUST(daemon_inspect(ids[i], ids[i]) == 0);
        MUST(daemon_create(id, ids[i], NULL, NULL) == 0);
        MUST(daemon_mount(id) == 0);
        MUST(daemon_exec_write(id, "written", ids[i]) == 0);
        MUST(daemon_umount(id, false) == 0);
    }
    restart_after_a_kill(true);
    MUST(storage_get_img_count() == expected);
    MUST(daemon_pull(derived, derived->name, FAIL_NOT) == 0);
    for (size_t i = 0; i < len; i++) {
        container_of(id, i);
        MUST(daemon_mount(id) == 0);
        MUST(daemon_exec_reads(id, "written", ids[i]));
        MUST(daemon_rmi(ids[i]) == -1);
        MUST(daemon_umount(id, false) == 0);
        MUST(daemon_rm(id) == 0);
        MUST(daemon_rmi(ids[i]) == 0);
        MUST(storage_get_img_count() == expected - i);
    }
    MUST(daemon_inspect("derived", derived->id) == 0);
    MUST(daemon_rmi("derived") == 0);
    daemon_stop();
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: %s GRAPH STATE DRIVER BUNDLES TREE\n", argv[0]);
        return 2;
    }
    config.graph = argv[1];
    config.state = argv[2];
    config.driver = argv[3];
    real = bundle_read(argv[4], "real");
    derived = bundle_read(argv[4], "derived");
    if (strcmp(argv[5], "running") == 0) {
        the_running_store_goes_on();
    } else {
        the_imported_store_goes_on(3);
    }
    bundle_free(real);
    bundle_free(derived);
    return daemon_failures() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
