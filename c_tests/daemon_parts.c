/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The commands of daemon.h that are about containers, and what tests need beside the daemon. */

#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

char *read_file(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = NULL;
    size_t len = 0, capacity = 0;

    if (file == NULL) {
        return NULL;
    }
    do {
        if (len + 1 >= capacity) {
            char *larger = realloc(text, capacity = capacity * 2 + 4096);

            if (larger == NULL) {
                break;
            }
            text = larger;
        }
        size_t got = fread(text + len, 1, capacity - len - 1, file);

        len += got;
        text[len] = '\0';
        if (got == 0) {
            break;
        }
    } while (true);
    fclose(file);
    return text;
}

int write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    if (file == NULL) {
        return -1;
    }
    int bad = fputs(text, file) < 0;

    return fclose(file) != 0 || bad ? -1 : 0;
}

struct bundle *bundle_read(const char *dir, const char *name)
{
    struct bundle *bundle = calloc(1, sizeof(*bundle));
    char path[512], line[2048], file[256];
    FILE *list;

    snprintf(path, sizeof(path), "%s/%s.bundle", dir, name);
    list = fopen(path, "re");
    if (bundle == NULL || list == NULL) {
        fprintf(stderr, "no bundle %s\n", path);
        exit(2);
    }
    while (fgets(line, sizeof(line), list) != NULL) {
        struct bundle_layer *layer = &bundle->layers[bundle->layers_len];
        struct bundle_file *seen = &bundle->files[bundle->files_len];

        if (sscanf(line, "name %255s", bundle->name) == 1 || sscanf(line, "id %79s", bundle->id) == 1 ||
            sscanf(line, "manifest_digest %79s", bundle->manifest_digest) == 1) {
            continue;
        }
        if (sscanf(line, "config %255s", file) == 1 || sscanf(line, "manifest %255s", file) == 1) {
            snprintf(path, sizeof(path), "%s/%s", dir, file);
            *(line[0] == 'c' ? &bundle->config : &bundle->manifest) = read_file(path);
        } else if (sscanf(line, "layer %79s %79s %79s %255s", layer->digest, layer->diff_id, layer->id, file) == 4) {
            snprintf(layer->file, sizeof(layer->file), "%s/%s", dir, file);
            bundle->layers_len++;
        } else if (sscanf(line, "file %255s %63[^\n]", seen->path, seen->content) == 2 ||
                   sscanf(line, "absent %255s", seen->path) == 1) {
            bundle->files_len++;
        }
    }
    fclose(list);
    snprintf(bundle->config_digest, sizeof(bundle->config_digest), "sha256:%.64s", bundle->id);
    if (bundle->config == NULL || bundle->manifest == NULL || bundle->layers_len == 0) {
        fprintf(stderr, "bundle %s is not whole\n", name);
        exit(2);
    }
    return bundle;
}

void bundle_free(struct bundle *bundle)
{
    free(bundle->config);
    free(bundle->manifest);
    free(bundle);
}

bool is_mounted(const char *path)
{
    char *table = read_file("/proc/self/mountinfo");
    char word[600];
    bool found;

    snprintf(word, sizeof(word), " %s ", path);
    found = table != NULL && strstr(table, word) != NULL;
    free(table);
    return found;
}

int run_program(const char *const *words)
{
    pid_t child;
    int status;

    if (posix_spawnp(&child, words[0], NULL, NULL, (char *const *)words, environ) != 0) {
        return -1;
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

int daemon_create(const char *id, const char *image, const char *label, json_map_string_string *storage_opts)
{
    char *root = NULL;
    int result;

    /* The daemon merges the image's settings into the container's first. */
    imagetool_image *found = storage_img_get(image);

    if (found == NULL) {
        return -1;
    }
    isula_storage_free_imagetool_image(found);
    result = storage_rootfs_create(id, image, label, storage_opts, &root);
    if (result == 0) {
        MUST(root != NULL);
    }
    free(root);
    return result;
}

int daemon_mount(const char *id)
{
    char *path = storage_rootfs_mount(id);
    int result = path == NULL ? -1 : 0;

    free(path);
    return result;
}

int daemon_umount(const char *id, bool force)
{
    return storage_rootfs_umount(id, force);
}

int daemon_export(const char *id, const char *file)
{
    char *path = storage_rootfs_mount(id);
    int result;

    if (path == NULL) {
        return -1;
    }
    const char *words[] = { "tar", "--one-file-system", "-C", path, "-cf", file, ".", NULL };

    result = run_program(words);
    free(path);
    return storage_rootfs_umount(id, false) == 0 ? result : -1;
}

int daemon_rm(const char *id)
{
    return storage_rootfs_delete(id);
}

char *daemon_merged(const char *id)
{
    container_inspect_graph_driver *driver = storage_get_metadata_by_container_id(id);
    char *path = NULL;

    if (driver != NULL && driver->name != NULL && driver->data != NULL && driver->data->merged_dir != NULL) {
        path = malloc(strlen(driver->data->merged_dir) + 1);
        if (path != NULL) {
            strcpy(path, driver->data->merged_dir);
        }
    } else if (driver != NULL && driver->name != NULL && strcmp(driver->name, "devicemapper") == 0) {
        /* Nobody is told where a device is mounted but who mounts it. */
        path = malloc(strlen(daemon_storage_root()) + strlen(id) + 64);
        if (path != NULL) {
            sprintf(path, "%s/devicemapper/mnt/%s/rootfs", daemon_storage_root(), id);
        }
    }
    isula_storage_free_graph_driver(driver);
    return path;
}

/* A path below a running container's root; malloc'ed. */
static char *inside(const char *id, const char *path)
{
    char *merged = daemon_merged(id), *result = NULL;
    size_t size;

    if (merged != NULL) {
        size = strlen(merged) + strlen(path) + 2;
        result = malloc(size);
        if (result != NULL) {
            snprintf(result, size, "%s/%s", merged, path);
        }
    }
    free(merged);
    return result;
}

int daemon_exec_write(const char *id, const char *path, const char *text)
{
    char *full = inside(id, path);
    int result = full == NULL ? -1 : write_file(full, text);

    free(full);
    return result;
}

bool daemon_exec_reads(const char *id, const char *path, const char *text)
{
    char *full = inside(id, path), *found = full == NULL ? NULL : read_file(full);
    /* The end of the line need not be told. */
    size_t len = text == NULL ? 0 : strcspn(text, "\n");
    bool same = text == NULL ? found == NULL
                             : found != NULL && strcspn(found, "\n") == len && strncmp(found, text, len) == 0;

    if (!same) {
        fprintf(stderr, "%s: expected %s, found %s\n", full, text == NULL ? "nothing" : text,
                found == NULL ? "nothing" : found);
    }
    free(full);
    free(found);
    return same;
}

int daemon_look(const char *id, const struct bundle *bundle)
{
    int result = daemon_mount(id);

    for (size_t i = 0; result == 0 && i < bundle->files_len; i++) {
        const struct bundle_file *file = &bundle->files[i];

        if (!daemon_exec_reads(id, file->path, file->content[0] == '\0' ? NULL : file->content)) {
            result = -1;
        }
    }
    return daemon_umount(id, false) == 0 ? result : -1;
}

int daemon_usage(const char *id)
{
    imagetool_fs_info *info = calloc(1, sizeof(*info));
    int result = info == NULL || storage_rootfs_fs_usgae(id, info) != 0 || info->image_filesystems_len != 1 ||
                         info->image_filesystems[0]->used_bytes == NULL ||
                         info->image_filesystems[0]->inodes_used == NULL
                     ? -1
                     : 0;

    isula_storage_free_imagetool_fs_info(info);
    return result;
}
