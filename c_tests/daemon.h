/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A daemon for tests: what iSulad's image module calls for each command of its users, in the order in which it calls it. */

#ifndef ISULA_STORAGE_C_TESTS_DAEMON_H
#define ISULA_STORAGE_C_TESTS_DAEMON_H

#include <stdbool.h>
#include <stddef.h>

#include "isula_storage.h"

#define BUNDLE_LAYERS 8
#define BUNDLE_FILES 16

/* The daemon's settings, as far as the image module reads them. */
struct daemon_config {
    const char *graph;
    const char *state;
    const char *driver;
    bool image_layer_check;
    const char *const *storage_opts;
    size_t storage_opts_len;
};

/* What a registry or an archive has of one image, read from the text file that describes it. */
struct bundle_layer {
    char digest[80];  /* of the file, with sha256: */
    char diff_id[80];
    char id[80];      /* of the chain up to here, without sha256: */
    char file[512];
};

struct bundle_file {
    char path[256];
    char content[64]; /* empty: the file must not be there */
};

struct bundle {
    char name[256];
    char id[80];
    char config_digest[80];
    char manifest_digest[80];
    char *config;
    char *manifest;
    struct bundle_layer layers[BUNDLE_LAYERS];
    size_t layers_len;
    /* What a container of the image has to see. */
    struct bundle_file files[BUNDLE_FILES];
    size_t files_len;
};

/* Where the daemon itself fails, so that it has to take back what it did. */
enum daemon_failure { FAIL_NOT, FAIL_AFTER_LAYERS, FAIL_AFTER_CREATE, FAIL_AFTER_CONFIG, FAIL_AFTER_MANIFEST };

/* Counts a failed check; from any thread. */
void daemon_failed(const char *file, int line, const char *what);
int daemon_failures(void);

#define MUST(condition)                                    \
    do {                                                   \
        if (!(condition)) {                                \
            daemon_failed(__FILE__, __LINE__, #condition); \
        }                                                  \
    } while (0)

struct bundle *bundle_read(const char *dir, const char *name);
void bundle_free(struct bundle *bundle);
/* A whole file, malloc'ed with a NUL behind it; NULL when it cannot be read. */
char *read_file(const char *path);
int write_file(const char *path, const char *text);
bool is_mounted(const char *path);
/* Runs a program and waits for it; 0 when it succeeded. */
int run_program(const char *const *words);

/* The text that isulad_set_error_message was given last in this thread; NULL when none since daemon_clear_message. */
const char *daemon_message(void);
void daemon_clear_message(void);

int daemon_start(const struct daemon_config *config);
/* The directory of the running storage. */
const char *daemon_storage_root(void);
void daemon_stop(void);

int daemon_pull(const struct bundle *bundle, const char *name, enum daemon_failure failure);
int daemon_load(const struct bundle *bundle, const char *const *names, size_t names_len);
int daemon_import(const struct bundle *bundle, const char *name);
int daemon_tag(const char *image, const char *name);
int daemon_rmi(const char *image);

int daemon_create(const char *id, const char *image, const char *label, json_map_string_string *storage_opts);
int daemon_mount(const char *id);
int daemon_umount(const char *id, bool force);
int daemon_export(const char *id, const char *file);
int daemon_rm(const char *id);
/* Where a mounted container's files are; malloc'ed. */
char *daemon_merged(const char *id);

/* What a user sees of a container of this image: mounted for the moment. Returns 0 when it is what the bundle says. */
int daemon_look(const char *id, const struct bundle *bundle);
/* A process of a running container writes a file, or reads one. */
int daemon_exec_write(const char *id, const char *path, const char *text);
bool daemon_exec_reads(const char *id, const char *path, const char *text);

/* Every command that only asks, with all that it returns read once. */
int daemon_ask(void);
int daemon_inspect(const char *image, const char *id);
int daemon_usage(const char *id);

#endif
