/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A daemon that is killed: `run` gives the commands one after the other and notes each that has returned; `check`, after
 * the kill, starts again and compares. What had returned is so; what was under way is so or not; giving the rest of the
 * commands leads where it would have led. */

#include "daemon.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOX "b0b0000000000000000000000000000000000000000000000000000000000001"
#define OTHER "b0b0000000000000000000000000000000000000000000000000000000000002"

static struct daemon_config config;
static struct bundle *base, *derived, *broken, *plain, *tar;

/* Whether the process that gave the commands before still sees them: a command given twice may find its work done. */
static bool again;

static int pull_base(void)
{
    return daemon_pull(base, base->name, FAIL_NOT);
}

static int pull_derived(void)
{
    return daemon_pull(derived, derived->name, FAIL_NOT);
}

static int load_plain(void)
{
    const char *names[] = { "plain:1", "plain:2" };

    return daemon_load(plain, names, 2);
}

static int import_tar(void)
{
    return daemon_import(tar, tar->name);
}

static int tag_base(void)
{
    return daemon_tag("base", "base:two");
}

static int fail_to_pull(void)
{
    return daemon_pull(broken, broken->name, FAIL_NOT) == -1 ? 0 : -1;
}

static int create_box(void)
{
    return daemon_create(BOX, "derived", NULL, NULL) == 0 || (again && daemon_look(BOX, derived) == 0) ? 0 : -1;
}

static int write_in_box(void)
{
    return daemon_mount(BOX) == 0 && daemon_exec_write(BOX, "root/own", "kept\n") == 0 ? 0 : -1;
}

static int stop_box(void)
{
    return daemon_umount(BOX, true);
}

static int create_other(void)
{
    return daemon_create(OTHER, "plain:1", NULL, NULL) == 0 || (again && daemon_look(OTHER, plain) == 0) ? 0 : -1;
}

static int start_other(void)
{
    return daemon_mount(OTHER);
}

static int untag_base(void)
{
    return daemon_rmi("base:two") == 0 || again ? 0 : -1;
}

static int rm_box(void)
{
    return daemon_rm(BOX);
}

static int rmi_derived(void)
{
    return daemon_rmi("derived") == 0 || again ? 0 : -1;
}

static int rmi_tar(void)
{
    return daemon_rmi("imported-tar") == 0 || again ? 0 : -1;
}

static int restart(void)
{
    daemon_stop();
    return daemon_start(&config);
}

static int (*const commands[])(void) = {
    pull_base,    pull_derived, load_plain,   import_tar,  tag_base,   fail_to_pull, create_box,  write_in_box, stop_box,
    create_other, start_other,  restart, untag_base, rm_box, rmi_derived, rmi_tar,
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static size_t number_of(int (*command)(void))
{
    size_t number = 0;

    while (commands[number] != command) {
        number++;
    }
    return number;
}

/* Whether something that `made` made is there after `done` commands have returned: 1 yes, 0 no, -1 open. */
static int expected(size_t done, int (*made)(void), int (*removed)(void))
{
    size_t from = number_of(made), to = removed == NULL ? (size_t)-1 : number_of(removed);

    if (done == from || done == to) {
        return -1;
    }
    return done > from && done < to;
}

static void compare(const char *what, int expected, bool found)
{
    if (expected != -1 && found != (expected == 1)) {
        fprintf(stderr, "%s is %s\n", what, found ? "there" : "not there");
        MUST(!"as the commands left it");
    }
}

static bool is_named(const char *name, const struct bundle *bundle)
{
    imagetool_image_summary *summary = storage_img_get_summary(name);
    bool found = summary != NULL && strcmp(summary->id, bundle->id) == 0;

    isula_storage_free_imagetool_image_summary(summary);
    return found;
}

static bool is_whole(const struct bundle *bundle)
{
    return daemon_inspect(bundle->id, bundle->id) == 0;
}

static bool has_container(const char *id)
{
    char *path = daemon_merged(id);

    free(path);
    return path != NULL;
}

static void compare_all(size_t done)
{
    compare("base", expected(done, pull_base, NULL), is_named(base->name, base) && is_whole(base));
    compare("derived", expected(done, pull_derived, rmi_derived), is_named(derived->name, derived) && is_whole(derived));
    compare("plain:1", expected(done, load_plain, NULL), is_named("plain:1", plain) && is_whole(plain));
    compare("plain:2", expected(done, load_plain, NULL), is_named("plain:2", plain));
    compare("imported", expected(done, import_tar, rmi_tar), is_named(tar->name, tar) && is_whole(tar));
    compare("base:two", expected(done, tag_base, untag_base), is_named("base:two", base));
    compare("broken", 0, storage_image_exist(broken->id));
    compare("box", expected(done, create_box, rm_box), has_container(BOX));
    compare("other", expected(done, create_other, NULL), has_container(OTHER));
    if (expected(done, create_box, rm_box) == 1) {
        MUST(daemon_look(BOX, derived) == 0);
        if (done > number_of(write_in_box)) {
            MUST(daemon_mount(BOX) == 0);
            MUST(daemon_exec_reads(BOX, "root/own", "kept\n"));
            MUST(daemon_umount(BOX, false) == 0);
        }
    }
    if (has_container(OTHER)) {
        MUST(daemon_look(OTHER, plain) == 0);
    }
}

static void nothing_is_left(const struct bundle *bundle)
{
    for (size_t i = 0; i < bundle->layers_len; i++) {
        struct layer *layer = storage_layer_get(bundle->layers[i].id);

        MUST(layer == NULL);
        free_layer(layer);
    }
}

static void remove_all(void)
{
    MUST(daemon_rm(BOX) == 0 && daemon_rm(OTHER) == 0);
    MUST(daemon_rmi(plain->id) == 0);
    MUST(daemon_rmi(base->id) == 0);
    /* Layers of a pull that was cut off belong to nobody; the next pull takes them, and its image's removal all. */
    MUST(pull_derived() == 0 && daemon_rmi("derived") == 0);
    MUST(!storage_image_exist(base->id) && !storage_image_exist(plain->id) && !storage_image_exist(tar->id));
    /* Of a failing pull that was cut off a layer may wait for a next one, which never takes back what it found. */
    struct layer *waiting = storage_layer_get(broken->layers[1].id);

    MUST(waiting == NULL || storage_layer_chain_delete(waiting->id) == 0);
    free_layer(waiting);
    nothing_is_left(broken);
    nothing_is_left(derived);
    nothing_is_left(plain);
}

static void run(int notes, size_t from)
{
    for (size_t i = from; i < COMMANDS; i++) {
        if (commands[i]() != 0) {
            fprintf(stderr, "command %zu\n", i);
            MUST(!"the command succeeds");
        }
        if (notes >= 0) {
            MUST(write(notes, ".", 1) == 1);
        }
        again = false;
    }
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: %s GRAPH STATE DRIVER BUNDLES run|check NOTES\n", argv[0]);
        return 2;
    }
    config.graph = argv[1];
    config.state = argv[2];
    config.driver = argv[3];
    config.image_layer_check = true;
    mkdir(config.graph, 0700);
    mkdir(config.state, 0700);
    base = bundle_read(argv[4], "base");
    derived = bundle_read(argv[4], "derived");
    broken = bundle_read(argv[4], "broken");
    plain = bundle_read(argv[4], "plain");
    tar = bundle_read(argv[4], "imported-tar");
    MUST(daemon_start(&config) == 0);
    if (strcmp(argv[5], "run") == 0) {
        int notes = open(argv[6], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

        MUST(notes >= 0);
        run(notes, 0);
        close(notes);
    } else {
        char *notes = read_file(argv[6]);
        size_t done = notes == NULL ? 0 : strlen(notes);

        free(notes);
        compare_all(done);
        /* A kill while it starts, or between commands, left nothing that stops the rest. */
        again = true;
        run(-1, done);
        compare_all(COMMANDS + 1);
        remove_all();
    }
    daemon_stop();
    bundle_free(base);
    bundle_free(derived);
    bundle_free(broken);
    bundle_free(plain);
    bundle_free(tar);
    return daemon_failures() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
