/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A container engine in one file: makes the layers of an image and its record, mounts a container's layer on top, runs
 * a program in it, and finds everything again after closing and opening the stores.
 *
 *   engine ROOT RUN_ROOT DRIVER IMAGE_ID NAME CONFIG MANIFEST LAYER_ID=DIFF_ID=TAR... [-- PROGRAM [ARGUMENT...]]
 *
 *   ROOT, RUN_ROOT       where the stores are kept, and their mount state
 *   DRIVER               overlay (as root) or vfs
 *   IMAGE_ID             64 hex digits: the SHA-256 of CONFIG
 *   NAME                 such as busybox:latest
 *   CONFIG, MANIFEST     files: the image's config and manifest
 *   LAYER_ID=DIFF_ID=TAR base first: id of a layer, its diff ID (64 hex digits each), and its tar, plain or compressed
 *   PROGRAM              run in the container with its root changed (as root); without it the root is listed
 *
 * Build: cc -std=c11 -D_GNU_SOURCE -o engine engine.c $(pkg-config --cflags --libs isula-storage)
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <isula_storage.h>

static const char CONTAINER[] = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

static void die(const char *what)
{
    const char *why = isula_storage_last_error();

    fprintf(stderr, "engine: %s: %s\n", what, why == NULL ? strerror(errno) : why);
    exit(EXIT_FAILURE);
}

/* The layer store reads an archive through a function: here from a FILE. */
static ssize_t read_file(void *context, void *buffer, size_t len)
{
    size_t got = fread(buffer, 1, len, context);

    return got == 0 && ferror((FILE *)context) ? -1 : (ssize_t)got;
}

/* Makes the layer of LAYER_ID=DIFF_ID=TAR on top of `parent`, and gives its id, which lies in the argument. */
static char *make_layer(char *argument, char *parent)
{
    char *diff_id = strchr(argument, '='), *path = diff_id == NULL ? NULL : strchr(diff_id + 1, '=');
    char digest[80], *new_id = NULL;
    struct layer_opts opts = { 0 };
    struct io_read_wrapper content = { 0 };

    if (path == NULL) {
        fprintf(stderr, "engine: %s is not LAYER_ID=DIFF_ID=TAR\n", argument);
        exit(EXIT_FAILURE);
    }
    *diff_id++ = '\0';
    *path++ = '\0';
    snprintf(digest, sizeof(digest), "sha256:%s", diff_id);
    content.read = read_file;
    content.context = fopen(path, "rb");
    if (content.context == NULL) {
        die(path);
    }
    opts.parent = parent;
    opts.uncompressed_digest = digest; /* verified while the archive is read */
    if (layer_store_create(argument, &opts, &content, &new_id) != 0) {
        die("make a layer");
    }
    fclose(content.context);
    printf("layer      %.12s %s\n", argument, new_id == NULL ? "was there" : "made");
    free(new_id);
    return argument;
}

/* A whole file as text. */
static char *text_of(const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t capacity = 1 << 16, len = 0;
    char *text = malloc(capacity);

    if (file == NULL || text == NULL) {
        die(path);
    }
    while ((len += fread(text + len, 1, capacity - len - 1, file)) == capacity - 1) {
        capacity *= 2;
        text = realloc(text, capacity);
        if (text == NULL) {
            die(path);
        }
    }
    fclose(file);
    text[len] = '\0';
    return text;
}

static void make_image(const char *id, const char *name, const char *top_layer, const char *config,
                       const char *manifest)
{
    const char *names[] = { name };
    char key[80], *text, *made;

    made = image_store_create(id, names, 1, top_layer, NULL, NULL, NULL);
    if (made == NULL && errno != EEXIST) {
        die("make the image");
    }
    free(made);
    snprintf(key, sizeof(key), "sha256:%s", id);
    text = text_of(config);
    if (image_store_set_big_data(id, key, text) != 0) {
        die("store the config");
    }
    free(text);
    text = text_of(manifest);
    if (image_store_set_big_data(id, "manifest", text) != 0 || image_store_add_name(id, name) != 0) {
        die("store the manifest");
    }
    free(text);
}

static void show_image(const char *name)
{
    imagetool_image *image = image_store_get_image(name);

    if (image == NULL) {
        die("find the image");
    }
    printf("image      %.12s %s, %s/%s, %zu layers\n", image->id, image->repo_tags[0], image->spec->os,
           image->spec->architecture, image->spec->rootfs->diff_ids_len);
    isula_storage_free_imagetool_image(image);
}

/* What a container's process does: here it is only put into the mounted tree. */
static int run_program(const char *root, char **program)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        if (chroot(root) == 0 && chdir("/") == 0) {
            execv(program[0], program);
        }
        perror("engine: run the program");
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0) {
        die("run the program");
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

static int list_root(const char *root)
{
    DIR *dir = opendir(root);
    const struct dirent *entry;

    if (dir == NULL) {
        die(root);
    }
    printf("root      ");
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            printf(" %s", entry->d_name);
        }
    }
    printf("\n");
    closedir(dir);
    return EXIT_SUCCESS;
}

static int run_container(char *top_layer, char **program)
{
    struct layer_opts opts = { 0 };
    char *root;
    int status;

    opts.parent = top_layer;
    opts.writable = true;
    if (layer_store_create(CONTAINER, &opts, NULL, NULL) != 0) {
        die("make the container's layer");
    }
    root = layer_store_mount(CONTAINER);
    if (root == NULL) {
        die("mount the container's layer");
    }
    printf("mounted    %s\n", root);
    fflush(stdout);
    status = program == NULL ? list_root(root) : run_program(root, program);
    free(root);
    if (layer_store_umount(CONTAINER, false) != 0 || layer_store_delete(CONTAINER) != 0) {
        die("remove the container's layer");
    }
    return status;
}

static void open_stores(struct storage_module_init_options *options)
{
    if (layer_store_init(options) != 0) {
        die("open the layer store");
    }
    if (image_store_init(options) != 0) {
        die("open the image store");
    }
}

/* Also at exit, after an error: closing what is not open is fine. */
static void close_stores(void)
{
    image_store_free();
    layer_store_exit();
}

int main(int argc, char **argv)
{
    struct storage_module_init_options options = { 0 };
    char *top_layer = NULL, **program = NULL;
    int status;

    if (argc < 9) {
        fprintf(stderr, "usage: %s ROOT RUN_ROOT DRIVER IMAGE_ID NAME CONFIG MANIFEST LAYER_ID=DIFF_ID=TAR... "
                "[-- PROGRAM [ARGUMENT...]]\n", argv[0]);
        return 2;
    }
    printf("library    %s\n", isula_storage_version());
    options.storage_root = argv[1];
    options.storage_run_root = argv[2];
    options.driver_name = argv[3];
    atexit(close_stores);
    open_stores(&options);

    for (char **layer = argv + 8; *layer != NULL; layer++) {
        if (strcmp(*layer, "--") == 0) {
            program = layer[1] == NULL ? NULL : layer + 1;
            break;
        }
        top_layer = make_layer(*layer, top_layer);
    }
    make_image(argv[4], argv[5], top_layer, argv[6], argv[7]);
    show_image(argv[5]);
    status = run_container(top_layer, program);

    close_stores();
    open_stores(&options);
    show_image(argv[5]);
    if (!layer_store_exists(top_layer)) {
        die("find the top layer again");
    }
    printf("found everything again\n");
    return status;
}
