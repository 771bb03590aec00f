/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * isula-storage: crash-safe storage of images and layers for container engines.
 *
 * - Text is UTF-8 and ends with a NUL.
 * - A pointer argument that must not be NULL gives EINVAL when it is; text that is not UTF-8 gives EILSEQ.
 * - A call that fails returns -1, NULL, false or (size_t)-1 and sets errno; isula_storage_last_error() says what was
 *   tried on which thing and why it failed. A call that succeeds leaves errno alone.
 * - An internal error (a panic that was caught) gives EIO; the store takes no changes then until it is opened again.
 * - Outputs are written on success only. What they point to is from malloc and belongs to the caller.
 * - Any thread may call any function at any time, unless it says otherwise.
 * - After fork() one of the two processes may go on with the stores that are open; the other must leave them alone.
 *
 * ENABLE_REMOTE_LAYER_STORE    as in iSulad: two more members of struct storage_module_init_options. The library must
 *                              be built with its feature remote-layer-store, and pthread_rwlock_t must be declared
 *                              (POSIX 2001 or later)
 *
 * Generated from src/ffi by the build script: change that and run `make header`.
 */

#ifndef ISULA_STORAGE_H
#define ISULA_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(ENABLE_REMOTE_LAYER_STORE)
#include <pthread.h>
#endif

#include "isula_storage_types.h"

/* C has the member `delete` of an image store; C++, where that is a keyword, has `delete_`. */
#if !defined(__cplusplus)
#define delete_ delete
#endif

/**
 * Instead of a name's length: it ends with a NUL.
 */
#define CONTAINERD_IMAGES_TEXT -1

/**
 * There is no image of this name, or the file was not initialised.
 */
#define CONTAINERD_IMAGES_NOT_FOUND 1

/**
 * There is an image of this name already.
 */
#define CONTAINERD_IMAGES_EXISTS 2

/**
 * Something else: errno says what kind.
 */
#define CONTAINERD_IMAGES_OTHER 3

/**
 * Kind of isula_storage_clean_up_fn: a container's root file system is broken. iSulad's number.
 */
#define ISULA_STORAGE_BROKEN_ROOTFS 1

/**
 * There was nothing of this path.
 */
#define ISULA_STORAGE_CHANGE_ADDED 1

/**
 * It differs, or something below it does.
 */
#define ISULA_STORAGE_CHANGE_MODIFIED 2

/**
 * It is gone, with all below it.
 */
#define ISULA_STORAGE_CHANGE_DELETED 3

/**
 * Level of isula_storage_set_log: nothing is logged.
 */
#define ISULA_STORAGE_LOG_OFF 0

/**
 * Level: something failed that the caller may not learn otherwise.
 */
#define ISULA_STORAGE_LOG_ERROR 1

/**
 * Level: something was refused or put aside.
 */
#define ISULA_STORAGE_LOG_WARN 2

/**
 * Level: what the library does.
 */
#define ISULA_STORAGE_LOG_INFO 3

/**
 * Level: details.
 */
#define ISULA_STORAGE_LOG_DEBUG 4

/**
 * Level: everything.
 */
#define ISULA_STORAGE_LOG_TRACE 5

/**
 * Layers are those of the callbacks in docker_image_layers.
 */
#define DOCKER_IMAGE_LAYERS_CALLBACKS 0

/**
 * Layers are those of the storage of this process (storage_module_init), which may be opened and closed at any time; while
 * it is not open, no image with layers can be made. A chain ID is the id of a layer.
 */
#define DOCKER_IMAGE_LAYERS_STORAGE 1

/**
 * Layers are those that a Docker daemon has recorded in layerdb, beside imagedb. They are never removed.
 */
#define DOCKER_IMAGE_LAYERS_LAYERDB 2

/**
 * There are no layers: every image has to be without.
 */
#define DOCKER_IMAGE_LAYERS_NONE 3

/**
 * An open file of images; not to be looked into.
 */
struct containerd_images;

/**
 * An open file of images in namespaces; not to be looked into.
 */
struct containerd_images_namespaced;

/**
 * A transaction of an open file; not to be looked into.
 */
struct containerd_images_transaction;

/**
 * An open image store. Only a handle: it is never looked into.
 */
struct docker_image_store;

/**
 * What a release callback says that it has removed. Only a handle.
 */
struct docker_image_removed_layers;

/**
 * How a file of images is opened. Zero bytes are the defaults.
 */
struct containerd_images_options {
    /**
     * Nothing is written, and the file is not made; others may read it at the same time.
     */
    bool read_only;
    /**
     * A commit returns before it is on the disk: a power cut may damage the file.
     */
    bool no_sync;
    /**
     * How long to wait for another process that has the file, and for a transaction that writes, in milliseconds; 0: not
     * at all; negative: for ever.
     */
    int64_t timeout_ms;
};

/**
 * What the name of an image points to. Bytes of a file that are no UTF-8 are U+FFFD here; there is no NUL in these texts.
 */
struct containerd_images_descriptor {
    /**
     * What the blob is.
     */
    char *media_type;
    /**
     * Its digest.
     */
    char *digest;
    /**
     * Its size in bytes.
     */
    int64_t size;
};

/**
 * An image.
 */
struct containerd_images_image {
    /**
     * Its name: any bytes, also NUL. One more NUL follows.
     */
    char *name;
    /**
     * Bytes of the name, without that NUL.
     */
    size_t name_len;
    /**
     * What it points to.
     */
    struct containerd_images_descriptor target;
};

/**
 * Images, in the byte order of their names.
 */
struct containerd_images_image_list {
    /**
     * The images, one behind the other. Never NULL. All that they point to goes with the list, and is not freed by itself.
     */
    struct containerd_images_image *images;
    /**
     * Their number.
     */
    size_t images_len;
};

/**
 * An image of a namespace. Bytes of a file that are no UTF-8 are U+FFFD here; there is no NUL in these texts.
 */
struct containerd_images_namespaced_image {
    /**
     * Its name.
     */
    char *name;
    /**
     * What it points to.
     */
    struct containerd_images_descriptor target;
    /**
     * Labels; NULL if there are none.
     */
    json_map_string_string *labels;
    /**
     * Annotations of the target; NULL if there are none.
     */
    json_map_string_string *annotations;
    /**
     * When it was created: seconds since 1970. Not looked at in what is created or updated, as the next three.
     */
    int64_t created_seconds;
    /**
     * When it was last changed.
     */
    int64_t updated_seconds;
    /**
     * Nanoseconds within the second of its creation.
     */
    uint32_t created_nanos;
    /**
     * Nanoseconds within the second of its last change.
     */
    uint32_t updated_nanos;
};

/**
 * Images of a namespace, in the byte order of their names.
 */
struct containerd_images_namespaced_image_list {
    /**
     * The images, one behind the other. Never NULL. All that they point to goes with the list, and is not freed by itself.
     */
    struct containerd_images_namespaced_image *images;
    /**
     * Their number.
     */
    size_t images_len;
    /**
     * How many images could not be read, or have a NUL in a text, and are left out; the log says which and why.
     */
    size_t unreadable;
};

/**
 * What an import did.
 */
struct containerd_images_import_report {
    /**
     * Images that are new here.
     */
    size_t imported;
    /**
     * Images that were here already and point to the same.
     */
    size_t present;
    /**
     * Images that were left out: they are here and point to something else, or cannot be read, or are such as no create
     * would take. The log says which and why.
     */
    size_t left_out;
};

/**
 * How a layer came about.
 */
struct docker_image_history {
    /**
     * When, RFC 3339, or NULL; so are the others.
     */
    char *created;
    /**
     * By whom.
     */
    char *author;
    /**
     * By which command.
     */
    char *created_by;
    /**
     * Free text.
     */
    char *comment;
    /**
     * It made no layer.
     */
    bool empty_layer;
};

/**
 * How a container of an image is to run.
 */
struct docker_image_config {
    /**
     * `user`, `user:group`, names or numbers, or NULL.
     */
    char *user;
    /**
     * Where the command starts, or NULL.
     */
    char *working_dir;
    /**
     * Signal that asks a container to stop, or NULL.
     */
    char *stop_signal;
    /**
     * `80/tcp` and the like.
     */
    char **exposed_ports;
    /**
     * Their number.
     */
    size_t exposed_ports_len;
    /**
     * `NAME=value` each.
     */
    char **env;
    /**
     * Their number.
     */
    size_t env_len;
    /**
     * Command with arguments.
     */
    char **entrypoint;
    /**
     * Their number.
     */
    size_t entrypoint_len;
    /**
     * Arguments of the entry point, or command with arguments.
     */
    char **cmd;
    /**
     * Their number.
     */
    size_t cmd_len;
    /**
     * Paths.
     */
    char **volumes;
    /**
     * Their number.
     */
    size_t volumes_len;
    /**
     * Labels in order. Never NULL.
     */
    json_map_string_string *labels;
};

/**
 * An image. U+FFFD stands in its texts for a NUL, and for what is no Unicode; `json` has the bytes as they are. All that it
 * points to goes with it, and is not freed by itself.
 */
struct docker_image {
    /**
     * `sha256:` and 64 hexadecimal digits: the digest of its config.
     */
    char *id;
    /**
     * Id of the image that it was made from, or NULL. That image may be gone.
     */
    char *parent;
    /**
     * Chain ID of its top layer; NULL of an image without layers.
     */
    char *chain_id;
    /**
     * When it was made, RFC 3339, or NULL; so are the others.
     */
    char *created;
    /**
     * Who made it.
     */
    char *author;
    /**
     * Free text.
     */
    char *comment;
    /**
     * Container that it was made from.
     */
    char *container;
    /**
     * Version of Docker that made it.
     */
    char *docker_version;
    /**
     * Processor, in Go's words.
     */
    char *architecture;
    /**
     * Variant of the processor.
     */
    char *variant;
    /**
     * Operating system, in Go's words; NULL is Linux.
     */
    char *os;
    /**
     * Version of the operating system.
     */
    char *os_version;
    /**
     * What the layers are: `layers`.
     */
    char *rootfs_type;
    /**
     * Features of the operating system.
     */
    char **os_features;
    /**
     * Their number.
     */
    size_t os_features_len;
    /**
     * Diff IDs of the layers, base first.
     */
    char **diff_ids;
    /**
     * Their number.
     */
    size_t diff_ids_len;
    /**
     * How each layer came about, base first, one behind the other. In lists NULL.
     */
    struct docker_image_history *history;
    /**
     * Their number.
     */
    size_t history_len;
    /**
     * How a container of it is to run. In lists NULL.
     */
    struct docker_image_config *config;
    /**
     * The config exactly as it is, with a NUL behind it. In lists NULL.
     */
    char *json;
    /**
     * Its length in bytes, without that NUL.
     */
    size_t json_len;
};

/**
 * Something that was wrong when a store was opened.
 */
struct docker_image_problem {
    /**
     * What: `image sha256:…`, `repositories.json`.
     */
    char *subject;
    /**
     * Why.
     */
    char *reason;
    /**
     * It was put aside, into `.isula-storage/quarantine`; else it was left where it is.
     */
    bool put_aside;
};

/**
 * A name of an image.
 */
struct docker_image_name {
    /**
     * `repository:tag` or `repository@digest`, without the default host and its `library/`.
     */
    char *name;
    /**
     * Id of the image, which need not be there.
     */
    char *image;
};

/**
 * A layer that a Docker daemon has recorded.
 */
struct docker_image_layer {
    /**
     * Chain ID.
     */
    char *chain_id;
    /**
     * Diff ID.
     */
    char *diff_id;
    /**
     * Chain ID of the layer below, or NULL.
     */
    char *parent;
    /**
     * Name of its directory in that of the graph driver.
     */
    char *cache_id;
    /**
     * Size of the layer and all below it, in bytes.
     */
    uint64_t size;
    /**
     * Size of the layer alone, in bytes.
     */
    uint64_t diff_size;
};

/**
 * A layer that went with an image.
 */
struct docker_image_removed_layer {
    /**
     * Chain ID.
     */
    char *chain_id;
    /**
     * Diff ID, or NULL where it is not known.
     */
    char *diff_id;
    /**
     * Size of the layer and all below it, in bytes.
     */
    uint64_t size;
    /**
     * Size of the layer alone, in bytes.
     */
    uint64_t diff_size;
};

/**
 * How to open a store. Zero bytes but for the size are the defaults.
 */
struct docker_image_store_options {
    /**
     * sizeof(struct docker_image_store_options).
     */
    size_t size;
    /**
     * Nothing is ever written and no lock is taken; what changes something fails with EROFS.
     */
    bool read_only;
    /**
     * Nothing is flushed: a power cut may lose the last changes. For those who ask.
     */
    bool no_sync;
    /**
     * Where the layers are: one of DOCKER_IMAGE_LAYERS_*.
     */
    int layers;
};

/**
 * Takes a reference on the layer with this chain ID: 0, ENOENT (there is none), or another errno.
 */
typedef int (*docker_image_retain_fn)(void *context, const char *chain_id);

/**
 * Gives a reference back for good: removes the layer and what it stands on as far as nothing uses them any more, and tells
 * of each by docker_image_store_add_removed_layer, top first. 0 or an errno.
 */
typedef int (*docker_image_release_fn)(void *context,
                                       const char *chain_id,
                                       struct docker_image_removed_layers *removed);

/**
 * Gives a reference back and removes nothing: the store is closed, or an image was not made.
 */
typedef void (*docker_image_forget_fn)(void *context, const char *chain_id);

/**
 * A store of layers, which the caller has. No lock is held while one of its functions is called: it may use the image
 * store, but not close it. They may be called from any thread that uses the image store, and several at once.
 */
struct docker_image_layers {
    /**
     * sizeof(struct docker_image_layers).
     */
    size_t size;
    /**
     * Handed to the functions.
     */
    void *context;
    /**
     * Has to be given.
     */
    docker_image_retain_fn retain;
    /**
     * Has to be given.
     */
    docker_image_release_fn release;
    /**
     * May be NULL: references are not counted by whoever has the layers, or not beyond this process.
     */
    docker_image_forget_fn forget;
};

/**
 * A layer: a snapshot that belongs to the caller, freed by free_layer.
 */
struct layer {
    /**
     * Id.
     */
    char *id;
    /**
     * Id of the layer it stands on, or NULL.
     */
    char *parent;
    /**
     * Where it is or would be mounted, or NULL.
     */
    char *mount_point;
    /**
     * How often it is mounted.
     */
    int mount_count;
    /**
     * Digest of the compressed archive, or NULL.
     */
    char *compressed_digest;
    /**
     * Size of the compressed archive in bytes, 0 if not recorded.
     */
    int64_t compress_size;
    /**
     * Digest of the uncompressed archive, or NULL.
     */
    char *uncompressed_digest;
    /**
     * Sum of the sizes of the archive's entries in bytes.
     */
    int64_t uncompress_size;
    /**
     * A container's layer.
     */
    bool writable;
};

/**
 * A list of layers that belongs to the caller.
 */
struct layer_list {
    /**
     * The layers.
     */
    struct layer **layers;
    /**
     * Their number.
     */
    size_t layers_len;
};

/**
 * Options of a layer's creation that go to the driver.
 */
struct layer_store_mount_opts {
    /**
     * SELinux label, or NULL.
     */
    char *mount_label;
    /**
     * Storage options such as `size` (not mount options: the name is historical), or NULL.
     */
    json_map_string_string *mount_opts;
};

/**
 * What a new layer is to be.
 */
struct layer_opts {
    /**
     * Id of the layer it stands on, or NULL.
     */
    char *parent;
    /**
     * Other names by which it is found.
     */
    char **names;
    /**
     * Their number.
     */
    size_t names_len;
    /**
     * A container's layer.
     */
    bool writable;
    /**
     * Digest of the uncompressed archive (`sha256:` and 64 hex digits), verified; or NULL.
     */
    char *uncompressed_digest;
    /**
     * Digest of the compressed archive, or NULL.
     */
    char *compressed_digest;
    /**
     * More options, or NULL.
     */
    struct layer_store_mount_opts *opts;
};

/**
 * The record of an image, under the design documents' name.
 */
typedef storage_image image_storage_images;

/**
 * A list of container root file systems that belongs to the caller.
 */
struct rootfs_list {
    /**
     * The root file systems.
     */
    storage_rootfs **rootfs;
    /**
     * Their number.
     */
    size_t rootfs_len;
};

/**
 * How to open the stores.
 */
struct storage_module_init_options {
    /**
     * Directory of what is lost at a reboot: mount state.
     */
    char *storage_run_root;
    /**
     * Directory of everything else.
     */
    char *storage_root;
    /**
     * `overlay`, `overlay2` (both keep their data in `overlay`), `vfs`.
     */
    char *driver_name;
    /**
     * `key=value` options of the driver, and limits of a layer: `layer.max_entries`, `layer.max_size`, `layer.max_ratio`.
     */
    char **driver_opts;
    /**
     * Their number.
     */
    size_t driver_opts_len;
    /**
     * Check the content of all layers at start.
     */
    bool integration_check;
#if defined(ENABLE_REMOTE_LAYER_STORE)
    /**
     * Layers may come from a remote directory.
     */
    bool enable_remote_layer;
#endif
#if defined(ENABLE_REMOTE_LAYER_STORE)
    /**
     * Lock that the caller shares with the refresh of remote layers.
     */
    pthread_rwlock_t *remote_lock;
#endif
};

/**
 * Options of a layer's creation by the driver.
 */
struct driver_create_opts {
    /**
     * SELinux label, or NULL.
     */
    char *mount_label;
    /**
     * Storage options such as `size`, or NULL.
     */
    json_map_string_string *storage_opt;
};

/**
 * Options of a mount by the driver, freed by free_graphdriver_mount_opts.
 */
struct driver_mount_opts {
    /**
     * SELinux label, or NULL.
     */
    char *mount_label;
    /**
     * Mount options in place of those that the driver was opened with, if there are any.
     */
    char **options;
    /**
     * Their number.
     */
    size_t options_len;
};

/**
 * What a driver says of itself.
 */
struct graphdriver_status {
    /**
     * Name.
     */
    char *driver_name;
    /**
     * File system below it.
     */
    char *backing_fs;
    /**
     * Lines `Name: value`.
     */
    char *status;
};

/**
 * Shows the text of a failure to the person who asked.
 */
typedef void (*isula_storage_error_fn)(const char *message, void *userdata);

/**
 * Learns that something is left to clean up. `kind` 1: a container's root file system is broken, `id` is the container's.
 */
typedef void (*isula_storage_clean_up_fn)(int kind, const char *id, void *userdata);

/**
 * What the process offers. Members that are NULL, or beyond `size`, are looked up in the process under the names that
 * iSulad gives them; what is found nowhere is done without.
 */
struct isula_storage_host {
    /**
     * sizeof(struct isula_storage_host) of the caller's header: later versions may add members.
     */
    size_t size;
    /**
     * Handed to the functions.
     */
    void *userdata;
    /**
     * Shows the text of each failing call, except "not found"; NULL: isulad_set_error_message, which gets only the
     * texts that iSulad's own module shows to people, such as `Image used by`.
     */
    isula_storage_error_fn set_error_message;
    /**
     * Root directory of the engine; NULL: conf_get_isulad_rootdir.
     */
    const char *root_dir;
    /**
     * Registry host that is not shown in image names, such as `docker.io`; NULL: get_hostname_to_strip.
     */
    const char *default_registry_host;
    /**
     * Shift of owners as `uid:gid:size`; NULL: conf_get_isulad_userns_remap.
     */
    const char *userns_remap;
    /**
     * Learns what is left to clean up; NULL: clean_module_fill_ctx.
     */
    isula_storage_clean_up_fn clean_up;
};

/**
 * A point in time, under the design documents' name.
 */
typedef types_timestamp_t timestamp;

/**
 * An open image store: made by new_image_store, ended by free_image_store.
 *
 * The functions return 0, or -1 with errno set (exists: true or false). Outputs are written on success only. "id" and
 * "name" may be an id, a name, a unique short id of at least three digits, or a digest reference. Any thread may call
 * them at any time. A struct that new_image_store did not fill, or that was freed, gives EINVAL.
 */
struct image_store {
    /**
     * Makes an image and fills `image`, whose members belong to the caller (isula_storage_clear_image).
     * `names`, `layer`, `metadata` and `searchable_digest` may be NULL; `id` NULL gives a random one; a
     * `time` without seconds and nanoseconds is now.
     */
    int (*create)(const char *id,
                  const char **names,
                  size_t names_len,
                  const char *layer,
                  const char *metadata,
                  timestamp time,
                  const char *searchable_digest,
                  struct image_store *image_store,
                  image_storage_images *image);
    /**
     * Replaces the names of an image; names held by other images move. An empty list is refused.
     */
    int (*set_names)(const char *id, const char **names, size_t names_len, struct image_store *image_store);
    /**
     * Deletes an image; one that does not exist is fine.
     */
    int (*delete_)(const char *id, struct image_store *image_store);
    /**
     * Deletes all images.
     */
    int (*wipe)(struct image_store *image_store);
    /**
     * Sets when an image was loaded; `loaded` needs seconds.
     */
    int (*set_loaded_time)(const char *id, timestamp loaded, struct image_store *image_store);
    /**
     * Adds a name; held by another image, it moves.
     */
    int (*add_name)(const char *id, const char *name, struct image_store *image_store);
    /**
     * Writes every record whose memory is ahead of the disk, which only an earlier failure can cause.
     */
    int (*save)(const struct image_store *image_store);
    /**
     * Sets the free text of an image.
     */
    int (*set_metadata)(struct image_store *image_store, const char *id, const char *metadata);
    /**
     * Stores text under a key.
     */
    int (*set_big_data)(struct image_store *image_store, const char *id, const char *key, const char *data);
    /**
     * Whether an image of this id, name, short id or digest reference exists.
     */
    bool (*exists)(const char *id, const struct image_store *image_store);
    /**
     * Fills `image`, whose members belong to the caller (isula_storage_clear_image).
     */
    int (*get)(const char *id, const struct image_store *image_store, image_storage_images *image);
    /**
     * Gives the full id of an image, malloc'ed.
     */
    int (*lookup)(const char *name, const struct image_store *image_store, char **id);
    /**
     * Gives all images in one malloc'ed array (isula_storage_free_images).
     */
    int (*images)(const struct image_store *image_store, image_storage_images **images, size_t *len);
    /**
     * Gives the images with this digest in one malloc'ed array (isula_storage_free_images); without any it
     * fails with ENOENT.
     */
    int (*by_digest)(const struct image_store *image_store,
                     const char *digest,
                     image_storage_images **images,
                     size_t *len);
    /**
     * Reads the directory again.
     */
    int (*load)(struct image_store *image_store);
    /**
     * Gives the free text of an image, malloc'ed; NULL when it has none.
     */
    int (*metadata)(const struct image_store *image_store, const char *id, char **metadata);
    /**
     * Gives what is stored under a key, malloc'ed, with a NUL behind it.
     */
    int (*big_data)(const struct image_store *image_store, const char *id, const char *key, char **bigdata);
    /**
     * Gives the size in bytes of what is stored under a key.
     */
    int (*big_data_size)(const struct image_store *image_store,
                         const char *id,
                         const char *key,
                         int64_t *big_data_size);
    /**
     * Gives the digest of what is stored under a key, malloc'ed.
     */
    int (*big_data_digest)(const struct image_store *image_store,
                           const char *id,
                           const char *key,
                           char **big_data_digest);
    /**
     * Gives all keys in a malloc'ed array (isula_storage_free_strings); NULL and 0 when there are none.
     */
    int (*big_data_names)(const struct image_store *image_store,
                          const char *id,
                          char ***big_data_names,
                          size_t *big_data_names_len);
    /**
     * Private: says that new_image_store filled this struct.
     */
    uint64_t magic;
    /**
     * Private: which store it is; not an address.
     */
    void *handle;
};

/**
 * An image store, under the design documents' name.
 */
typedef struct image_store image_store_t;

/**
 * A path that a layer changes.
 */
struct isula_storage_layer_change {
    /**
     * Bytes of the path below the root, without a slash in front; they need not be UTF-8.
     */
    char *path;
    /**
     * ISULA_STORAGE_CHANGE_ADDED, ISULA_STORAGE_CHANGE_MODIFIED or ISULA_STORAGE_CHANGE_DELETED.
     */
    int kind;
};

/**
 * Paths that a layer changes; belongs to the caller.
 */
struct isula_storage_layer_changes_list {
    /**
     * The changes, one behind the other, a directory before what is in it. Never NULL.
     */
    struct isula_storage_layer_change *changes;
    /**
     * Their number.
     */
    size_t changes_len;
};

/**
 * Where a field of a struct is in the built library.
 */
struct isula_storage_layout_entry {
    /**
     * The struct, as C spells it: `struct layer`, `storage_image`.
     */
    const char *structure;
    /**
     * The field, or NULL for the struct itself.
     */
    const char *field;
    /**
     * Offset of the field in bytes, 0 for the struct itself.
     */
    size_t offset;
    /**
     * Size of the field or of the struct in bytes.
     */
    size_t size;
};

/**
 * Takes one line of the log, without a newline: control characters, of a name for instance, are shown as `\n` or
 * `\u{1b}`. `message` is valid during the call only.
 */
typedef void (*isula_storage_log_fn)(int level, const char *message, void *userdata);

/**
 * A range of user or group ids.
 */
struct id_map {
    /**
     * First id in the container.
     */
    int container_id;
    /**
     * First id on the host.
     */
    int host_id;
    /**
     * Number of ids.
     */
    int size;
};

/**
 * How ids of a container map to the host.
 */
struct id_mapping_options {
    /**
     * User ids are the host's.
     */
    bool host_uid_mapping;
    /**
     * Group ids are the host's.
     */
    bool host_gid_mapping;
    /**
     * Ranges of user ids.
     */
    struct id_map *uid_map;
    /**
     * Their number.
     */
    size_t uid_map_len;
    /**
     * Ranges of group ids.
     */
    struct id_map *gid_map;
    /**
     * Their number.
     */
    size_t gid_map_len;
};

/**
 * What a new container root file system is to be.
 */
struct storage_rootfs_options {
    /**
     * How ids map.
     */
    struct id_mapping_options id_mapping_opts;
    /**
     * SELinux labels.
     */
    char **label_opts;
    /**
     * Their number.
     */
    size_t label_opts_len;
    /**
     * Mount options.
     */
    char **mount_opts;
    /**
     * Their number.
     */
    size_t mount_opts_len;
};

/**
 * A record of a container's root file system with a reference count.
 */
struct _cntrootfs_t {
    /**
     * The record; it belongs to this struct.
     */
    storage_rootfs *srootfs;
    /**
     * Number of references.
     */
    uint64_t refcnt;
};

/**
 * A record of a container's root file system with a reference count.
 */
typedef struct _cntrootfs_t cntrootfs_t;

/**
 * What the storage facade is given to make an image.
 */
struct storage_img_create_options {
    /**
     * When it was made, or NULL.
     */
    types_timestamp_t *create_time;
    /**
     * Digest by which it is searched, or NULL.
     */
    char *digest;
};

/**
 * What the storage facade is given to make a layer.
 */
struct storage_layer_create_opts {
    /**
     * Id of the layer it stands on, or NULL.
     */
    const char *parent;
    /**
     * Digest of the uncompressed archive.
     */
    const char *uncompress_digest;
    /**
     * Digest of the compressed archive.
     */
    const char *compressed_digest;
    /**
     * Path of the archive.
     */
    const char *layer_data_path;
    /**
     * A container's layer.
     */
    bool writable;
    /**
     * Storage options such as `size`, or NULL.
     */
    json_map_string_string *storage_opts;
};

/**
 * What the storage facade is given to make a layer, under iSulad's name.
 */
typedef struct storage_layer_create_opts storage_layer_create_opts_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens a file of images: one without namespaces, as containerd had in April 2017. It has to be initialised
 * (containerd_images_init_db) once before images can be put into it.
 *
 * The file is locked until it is closed: against all others, or, if it is only read, against those that write. Bolt's own
 * programs, and containerd, keep to that lock as well.
 *
 * @param file borrowed; path of the file; made if it is absent, unless it is only read. Its directory has to be there
 * @param options borrowed; NULL: the defaults
 * @return a handle, ended by containerd_images_close; NULL with errno EINVAL (NULL, empty), EILSEQ, ENOENT (there is
 * no directory, or no file to read), EBUSY (in use, the text says by which process; or, later, by another transaction that
 * writes), EUCLEAN (no bolt file, or a damaged one), EBADMSG (a file of another schema), or what the system said
 *
 * # Safety
 * `file` must be NULL or a string, `options` NULL or valid.
 */
struct containerd_images *containerd_images_open(const char *file,
                                                 const struct containerd_images_options *options);

/**
 * Closes a file and rolls back its transactions. Waits for calls under way in other threads, a commit above all: when it
 * returns, nobody has the file. The handles have ended: every call with them fails.
 *
 * @param images NULL is fine
 * @return 0, or -1 with errno EINVAL (not open)
 */
int containerd_images_close(struct containerd_images *images);

/**
 * Makes the place for images; that it is there already is fine. The calling thread must not have a transaction that
 * writes: it would wait for itself.
 *
 * @return 0, or -1 with errno EINVAL (NULL, not open), EROFS (opened for reading), EBUSY (another transaction writes),
 * EUCLEAN (the file is damaged), EIO (an earlier commit failed), or what the system said
 */
int containerd_images_init_db(struct containerd_images *images);

/**
 * Begins a transaction: it sees the file as it is now, and its own changes. Any number may read while one writes. One
 * thread at a time uses it; others wait.
 *
 * @param write false: to read
 * @return a handle, ended by containerd_images_commit, containerd_images_rollback or containerd_images_close; NULL
 * with errno as containerd_images_init_db
 */
struct containerd_images_transaction *containerd_images_begin(struct containerd_images *images,
                                                              bool write);

/**
 * Writes the changes of a transaction; they are durable when it returns. The transaction has ended, also after a failure.
 *
 * @return 0; -1 with errno EINVAL (NULL, it has ended), EROFS (it was begun to read: rolled back), EIO (nobody knows
 * whether the disk has the changes: the file takes no more until it is opened again), or what the system said: nothing
 * has changed
 */
int containerd_images_commit(struct containerd_images_transaction *transaction);

/**
 * Ends a transaction; its changes have never been.
 *
 * @return 0, or -1 with errno EINVAL (NULL, it has ended)
 */
int containerd_images_rollback(struct containerd_images_transaction *transaction);

/**
 * Lets a name point to something, whatever it pointed to before. The target is not looked at.
 *
 * @param name borrowed; any bytes, at least one
 * @param name_len bytes of the name; CONTAINERD_IMAGES_TEXT: it ends with a NUL
 * @param target borrowed
 * @return 0; -1 with errno EINVAL (NULL, the transaction has ended, "bucket name required": the name is empty,
 * "incompatible value": something else has the name), EILSEQ (the target is not UTF-8), ENOENT and
 * CONTAINERD_IMAGES_NOT_FOUND (not initialised), EROFS (the transaction was begun to read), EUCLEAN (the file is
 * damaged), or what the system said
 *
 * # Safety
 * `name` must be NULL or have as many bytes; `target` NULL or valid, with members that are NULL or strings.
 */
int containerd_images_tx_put(struct containerd_images_transaction *transaction,
                             const char *name,
                             ptrdiff_t name_len,
                             const struct containerd_images_descriptor *target);

/**
 * Gives an image.
 *
 * @param name borrowed; as containerd_images_tx_put
 * @param image out; its members belong to the caller: containerd_images_clear_image
 * @return 0; -1 with errno EINVAL (NULL, the transaction has ended), ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is
 * none, or not initialised), EUCLEAN (the file is damaged, or there is a NUL in digest or media type), ENOMEM, or what the
 * system said
 *
 * # Safety
 * `name` must be NULL or have as many bytes; `image` NULL or writable; what it held is not freed.
 */
int containerd_images_tx_get(struct containerd_images_transaction *transaction,
                             const char *name,
                             ptrdiff_t name_len,
                             struct containerd_images_image *image);

/**
 * Gives all images, in the byte order of their names.
 *
 * @param list out; its members belong to the caller: containerd_images_clear_list
 * @return 0; -1 with errno as containerd_images_tx_get. Not initialised is CONTAINERD_IMAGES_NOT_FOUND, not an empty
 * list; EUCLEAN also if something is no image, or there is a NUL in a digest or media type
 *
 * # Safety
 * `list` must be NULL or writable; what it held is not freed.
 */
int containerd_images_tx_list(struct containerd_images_transaction *transaction,
                              struct containerd_images_image_list *list);

/**
 * Takes an image away.
 *
 * @param name borrowed; as containerd_images_tx_put
 * @return 0; -1 with errno ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is none, or not initialised), or as
 * containerd_images_tx_put
 *
 * # Safety
 * `name` must be NULL or have as many bytes.
 */
int containerd_images_tx_delete(struct containerd_images_transaction *transaction,
                                const char *name,
                                ptrdiff_t name_len);

/**
 * containerd_images_tx_put in a transaction of its own. The calling thread must not have one that writes.
 *
 * @return 0, or -1 with errno as containerd_images_tx_put and containerd_images_commit, or EBUSY (another transaction
 * writes)
 *
 * # Safety
 * As containerd_images_tx_put.
 */
int containerd_images_put(struct containerd_images *images,
                          const char *name,
                          ptrdiff_t name_len,
                          const struct containerd_images_descriptor *target);

/**
 * containerd_images_tx_get in a transaction of its own.
 *
 * @return 0, or -1 with errno as containerd_images_tx_get
 *
 * # Safety
 * As containerd_images_tx_get.
 */
int containerd_images_get(struct containerd_images *images,
                          const char *name,
                          ptrdiff_t name_len,
                          struct containerd_images_image *image);

/**
 * containerd_images_tx_list in a transaction of its own.
 *
 * @return 0, or -1 with errno as containerd_images_tx_list
 *
 * # Safety
 * As containerd_images_tx_list.
 */
int containerd_images_list(struct containerd_images *images, struct containerd_images_image_list *list);

/**
 * containerd_images_tx_delete in a transaction of its own. The calling thread must not have one that writes.
 *
 * @return 0, or -1 with errno as containerd_images_tx_delete and containerd_images_commit, or EBUSY (another
 * transaction writes)
 *
 * # Safety
 * As containerd_images_tx_delete.
 */
int containerd_images_delete(struct containerd_images *images, const char *name, ptrdiff_t name_len);

/**
 * What the last failure of the calling thread was, however much was said around it. Ask right after a call that failed.
 *
 * @return CONTAINERD_IMAGES_NOT_FOUND, CONTAINERD_IMAGES_EXISTS or CONTAINERD_IMAGES_OTHER; 0 if no call of this
 * thread has failed. A file that is not there is CONTAINERD_IMAGES_OTHER, with errno ENOENT
 */
int containerd_images_error(void);

/**
 * Whether the last failure of the calling thread was for a missing image; see containerd_images_error.
 *
 * @return true or false
 */
bool containerd_images_is_not_found(void);

/**
 * Whether the last failure of the calling thread was for an image that is there already; see containerd_images_error.
 *
 * @return true or false
 */
bool containerd_images_is_exists(void);

/**
 * Frees the members of an image and zeroes it; the struct stays. Not for an image of a list, which goes with its list.
 *
 * @param image borrowed; may be NULL
 *
 * # Safety
 * The members of `image` must be as this library returns them.
 */
void containerd_images_clear_image(struct containerd_images_image *image);

/**
 * Frees the images of a list and zeroes it; the struct stays.
 *
 * @param list borrowed; may be NULL
 *
 * # Safety
 * The members of `list` must be as this library returns them.
 */
void containerd_images_clear_list(struct containerd_images_image_list *list);

/**
 * Opens a file of images in namespaces, with the layout of containerd's meta.db; made and initialised if it is absent,
 * unless it is only read. It is locked as by containerd_images_open. The file of a containerd that runs is in use, and
 * is not for writing even when it does not run: import from it.
 *
 * @param file borrowed; path of the file; its directory has to be there
 * @param options borrowed; NULL: the defaults
 * @return a handle, ended by containerd_images_namespaced_close; NULL with errno as containerd_images_open, or
 * EOPNOTSUPP (the schema has a version that is not known, or is to be written and is older than 3)
 *
 * # Safety
 * `file` must be NULL or a string, `options` NULL or valid.
 */
struct containerd_images_namespaced *containerd_images_namespaced_open(const char *file,
                                                                       const struct containerd_images_options *options);

/**
 * Closes a file. Waits for calls under way in other threads: when it returns, nobody has the file.
 *
 * @param images NULL is fine
 * @return 0, or -1 with errno EINVAL (not open)
 */
int containerd_images_namespaced_close(struct containerd_images_namespaced *images);

/**
 * Makes an image, and its namespace if that is not there. Its times are now.
 *
 * @param name_space borrowed; letters and digits, single '-', '.' and '_' between them, at most 76
 * @param image borrowed; its times are not looked at. Labels with empty values are not stored
 * @param stored out; NULL: not asked for. The image as it was stored; its members belong to the caller:
 * containerd_images_namespaced_clear_image
 * @return 0; -1 with errno EEXIST and CONTAINERD_IMAGES_EXISTS (there is one), EINVAL (NULL; no name, media type, digest
 * or positive size; a label of more than 4,096 bytes; not open), EILSEQ, EROFS, EBUSY (another call writes), EUCLEAN
 * (the file is damaged), EIO (an earlier commit failed), ENOMEM, or what the system said
 *
 * # Safety
 * `name_space` must be NULL or a string, `image` NULL or valid, `stored` NULL or writable; what it held is not freed.
 */
int containerd_images_namespaced_create(struct containerd_images_namespaced *images,
                                        const char *name_space,
                                        const struct containerd_images_namespaced_image *image,
                                        struct containerd_images_namespaced_image *stored);

/**
 * Changes an image; the time of its creation stays.
 *
 * @param image borrowed; the image of this name is changed
 * @param fields borrowed; what is replaced: "target" (with its annotations), "labels", "labels.KEY", "annotations",
 * "annotations.KEY"; a key that the image does not have is taken away
 * @param fields_len number of fields; 0: everything is replaced
 * @param stored out; NULL: not asked for; as containerd_images_namespaced_create
 * @return 0; -1 with errno ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is none), EINVAL (another field), or as
 * containerd_images_namespaced_create. The image may be changed durably when stored cannot be given (EUCLEAN: there is a NUL in
 * a text that it had; ENOMEM)
 *
 * # Safety
 * As containerd_images_namespaced_create; `fields` must be NULL or have `fields_len` strings.
 */
int containerd_images_namespaced_update(struct containerd_images_namespaced *images,
                                        const char *name_space,
                                        const struct containerd_images_namespaced_image *image,
                                        const char *const *fields,
                                        size_t fields_len,
                                        struct containerd_images_namespaced_image *stored);

/**
 * Takes an image away.
 *
 * @param digest borrowed; NULL: whatever it points to; else only if it points to this digest
 * @return 0; -1 with errno ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is none, or it points to something else), or as
 * containerd_images_namespaced_create
 *
 * # Safety
 * `name_space`, `name` and `digest` must be NULL or strings.
 */
int containerd_images_namespaced_delete(struct containerd_images_namespaced *images,
                                        const char *name_space,
                                        const char *name,
                                        const char *digest);

/**
 * Gives an image.
 *
 * @param image out; its members belong to the caller: containerd_images_namespaced_clear_image
 * @return 0; -1 with errno ENOENT and CONTAINERD_IMAGES_NOT_FOUND (there is none), EINVAL (NULL, not open, no name of a
 * namespace), EILSEQ, EUCLEAN (the image or the file is damaged, or there is a NUL in a text), ENOMEM, or what the system said
 *
 * # Safety
 * `name_space` and `name` must be NULL or strings, `image` NULL or writable; what it held is not freed.
 */
int containerd_images_namespaced_get(struct containerd_images_namespaced *images,
                                     const char *name_space,
                                     const char *name,
                                     struct containerd_images_namespaced_image *image);

/**
 * Gives the images of a namespace; none if there is no such namespace.
 *
 * @param filters borrowed; the images that one of them chooses: conditions such as `name==N`, `name^=PREFIX`,
 * `digest==D`, `labels.KEY`, `labels."KEY"!="VALUE"`, all of which hold, with commas. See docs/containerd-images.md
 * @param filters_len number of filters; 0: all images
 * @param list out; its members belong to the caller: containerd_images_namespaced_clear_list
 * @return 0; -1 with errno EINVAL (NULL, not open, a filter that is none), EILSEQ, EUCLEAN (the file is damaged), ENOMEM,
 * or what the system said
 *
 * # Safety
 * `name_space` must be NULL or a string, `filters` NULL or have `filters_len` strings, `list` NULL or writable; what it
 * held is not freed.
 */
int containerd_images_namespaced_list(struct containerd_images_namespaced *images,
                                      const char *name_space,
                                      const char *const *filters,
                                      size_t filters_len,
                                      struct containerd_images_namespaced_image_list *list);

/**
 * Gives the namespaces, in the byte order of their names.
 *
 * @param names out; an array and its texts that belong to the caller; NULL if there are none
 * @param names_len out; their number
 * @return 0, or -1 with errno EINVAL (NULL, not open), EUCLEAN (the file is damaged), ENOMEM, or what the system said
 *
 * # Safety
 * `names` and `names_len` must be NULL or writable; what they held is not freed.
 */
int containerd_images_namespaced_namespaces(struct containerd_images_namespaced *images,
                                            char ***names,
                                            size_t *names_len);

/**
 * Makes a namespace.
 *
 * @param labels borrowed; NULL: none
 * @return 0; -1 with errno EEXIST (there is one), or as containerd_images_namespaced_create
 *
 * # Safety
 * `name_space` must be NULL or a string, `labels` NULL or valid.
 */
int containerd_images_namespaced_create_namespace(struct containerd_images_namespaced *images,
                                                  const char *name_space,
                                                  const json_map_string_string *labels);

/**
 * Takes a namespace away that has no images, nor anything else.
 *
 * @return 0; -1 with errno ENOENT (there is none), EBUSY (it is not empty, or another call writes), or as
 * containerd_images_namespaced_create
 *
 * # Safety
 * `name_space` must be NULL or a string.
 */
int containerd_images_namespaced_delete_namespace(struct containerd_images_namespaced *images,
                                                  const char *name_space);

/**
 * Takes over images from another file of this layout, such as the meta.db of a containerd that does not run, with their
 * labels and times. That file is only read. All of them or, after a failure, none. An image that is here already stays as
 * it is.
 *
 * @param from borrowed; path of the other file
 * @param name_space borrowed; NULL: all namespaces
 * @param timeout_ms how long to wait for a process that has the other file, in milliseconds; 0: not at all; negative:
 * for ever
 * @param report out; NULL: not asked for
 * @return 0; -1 with errno ENOENT (there is no such file), EBUSY (containerd runs: the text says as which process),
 * EBADMSG, EUCLEAN, EOPNOTSUPP (the other file is of another schema or version, or damaged), or as
 * containerd_images_namespaced_create
 *
 * # Safety
 * `from` and `name_space` must be NULL or strings, `report` NULL or writable.
 */
int containerd_images_namespaced_import(struct containerd_images_namespaced *images,
                                        const char *from,
                                        const char *name_space,
                                        int64_t timeout_ms,
                                        struct containerd_images_import_report *report);

/**
 * Frees the members of an image and zeroes it; the struct stays. Not for an image of a list, which goes with its list.
 *
 * @param image borrowed; may be NULL
 *
 * # Safety
 * The members of `image` must be as this library returns them.
 */
void containerd_images_namespaced_clear_image(struct containerd_images_namespaced_image *image);

/**
 * Frees the images of a list and zeroes it; the struct stays.
 *
 * @param list borrowed; may be NULL
 *
 * # Safety
 * The members of `list` must be as this library returns them.
 */
void containerd_images_namespaced_clear_list(struct containerd_images_namespaced_image_list *list);

/**
 * Gives all images in the order of their ids. One whose config is no longer what it was is left out, and logged. Configs are
 * read again only if they have changed.
 *
 * @param store borrowed
 * @param images out; an array to be freed by docker_image_store_free_images. Never NULL
 * @param len out; their number
 * @return 0, or -1 with errno EINVAL (NULL), ENOMEM
 *
 * # Safety
 * `images` and `len` must be NULL or writable; what they held is not freed.
 */
int docker_image_store_map(struct docker_image_store *store,
                           struct docker_image **images,
                           size_t *len);

/**
 * Gives the images that have no children, as docker_image_store_map.
 *
 * @param store borrowed
 * @param images out; an array to be freed by docker_image_store_free_images. Never NULL
 * @param len out; their number
 * @return 0, or -1 with errno EINVAL (NULL), ENOMEM
 *
 * # Safety
 * `images` and `len` must be NULL or writable; what they held is not freed.
 */
int docker_image_store_heads(struct docker_image_store *store, struct docker_image **images, size_t *len);

/**
 * Gives the ids of the images whose parent an image is, sorted. An image that is not there has none.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @param ids out; an array to be freed by isula_storage_free_strings; NULL when there are none
 * @param len out; their number
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (id is no digest), ENOMEM
 *
 * # Safety
 * `id` must be NULL or a string, `ids` and `len` NULL or writable; what they held is not freed.
 */
int docker_image_store_children(struct docker_image_store *store, const char *id, char ***ids, size_t *len);

/**
 * Gives what was wrong when the store was opened.
 *
 * @param store borrowed
 * @param problems out; an array to be freed by docker_image_store_free_problems. Never NULL
 * @param len out; their number
 * @return 0, or -1 with errno EINVAL (NULL), ENOMEM
 *
 * # Safety
 * `problems` and `len` must be NULL or writable; what they held is not freed.
 */
int docker_image_store_problems(struct docker_image_store *store,
                                struct docker_image_problem **problems,
                                size_t *len);

/**
 * Gives an image a name: a tag, `latest` if there is none, or a digest, which counts if there are both. The image need not be
 * there. The same again is fine.
 *
 * @param store borrowed
 * @param name borrowed; as people write it: `docker.io/library/` may be missing
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @param force takes a tag away from another image; a digest stays where it is
 * @return 0, or -1 with errno EINVAL (NULL, not a name), EILSEQ, ENOENT (id is no digest), EEXIST (another image has it), EROFS,
 * EIO (an earlier failure: open it again), or what the system said
 *
 * # Safety
 * `name` and `id` must be NULL or strings.
 */
int docker_image_store_add_name(struct docker_image_store *store,
                                const char *name,
                                const char *id,
                                bool force);

/**
 * Takes a name away from the image that has it. The image stays.
 *
 * @param store borrowed
 * @param name borrowed; as for docker_image_store_add_name
 * @return 0, or -1 with errno EINVAL (NULL, not a name), EILSEQ, ENOENT (none), EROFS, EIO (an earlier failure: open it again), or
 * what the system said
 *
 * # Safety
 * `name` must be NULL or a string.
 */
int docker_image_store_delete_name(struct docker_image_store *store,
                                   const char *name);

/**
 * Gives the image that has a name. The image need not be there.
 *
 * @param store borrowed
 * @param name borrowed; as for docker_image_store_add_name
 * @return the id, malloc'ed, or NULL with errno EINVAL (NULL, not a name), EILSEQ, ENOENT (none), EUCLEAN (what is recorded is no
 * id), ENOMEM
 *
 * # Safety
 * `name` must be NULL or a string.
 */
char *docker_image_store_by_name(struct docker_image_store *store,
                                 const char *name);

/**
 * Gives the names of an image, sorted.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @param names out; an array to be freed by isula_storage_free_strings; NULL when there are none
 * @param len out; their number
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (id is no digest), ENOMEM
 *
 * # Safety
 * `id` must be NULL or a string, `names` and `len` NULL or writable; what they held is not freed.
 */
int docker_image_store_names(struct docker_image_store *store, const char *id, char ***names, size_t *len);

/**
 * Gives all names in a repository, or all there are, sorted.
 *
 * @param store borrowed
 * @param repository borrowed; a name without tag and digest; NULL: all repositories
 * @param names out; an array to be freed by docker_image_store_free_names. Never NULL
 * @param len out; their number
 * @return 0, or -1 with errno EINVAL (NULL, not a name), EILSEQ, ENOMEM
 *
 * # Safety
 * `repository` must be NULL or a string, `names` and `len` NULL or writable; what they held is not freed.
 */
int docker_image_store_list_names(struct docker_image_store *store,
                                  const char *repository,
                                  struct docker_image_name **names,
                                  size_t *len);

/**
 * Gives a layer that a Docker daemon has recorded beside the images, in layerdb, wherever the store has its layers from.
 *
 * @param store borrowed
 * @param chain_id borrowed; `sha256:` and 64 hexadecimal digits
 * @return the layer, to be freed by docker_image_store_free_layer, or NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none, or one
 * below it is not there), EUCLEAN (its record contradicts itself), ENOMEM, or what the system said
 *
 * # Safety
 * `chain_id` must be NULL or a string.
 */
struct docker_image_layer *docker_image_store_layer(struct docker_image_store *store,
                                                    const char *chain_id);

/**
 * Frees an image.
 *
 * @param image taken; may be NULL
 *
 * # Safety
 * `image` must come from docker_image_store_get and not be used afterwards.
 */
void docker_image_store_free_image(struct docker_image *image);

/**
 * Frees an array of images.
 *
 * @param images taken; may be NULL
 * @param len their number
 *
 * # Safety
 * `images` must be an array of this library with `len` elements and not be used afterwards.
 */
void docker_image_store_free_images(struct docker_image *images, size_t len);

/**
 * Frees an array of layers that went with an image.
 *
 * @param layers taken; may be NULL
 * @param len their number
 *
 * # Safety
 * `layers` must be an array of this library with `len` elements and not be used afterwards.
 */
void docker_image_store_free_removed_layers(struct docker_image_removed_layer *layers, size_t len);

/**
 * Frees an array of names.
 *
 * @param names taken; may be NULL
 * @param len their number
 *
 * # Safety
 * `names` must be an array of this library with `len` elements and not be used afterwards.
 */
void docker_image_store_free_names(struct docker_image_name *names, size_t len);

/**
 * Frees an array of problems.
 *
 * @param problems taken; may be NULL
 * @param len their number
 *
 * # Safety
 * `problems` must be an array of this library with `len` elements and not be used afterwards.
 */
void docker_image_store_free_problems(struct docker_image_problem *problems, size_t len);

/**
 * Frees a layer.
 *
 * @param layer taken; may be NULL
 *
 * # Safety
 * `layer` must come from docker_image_store_layer and not be used afterwards.
 */
void docker_image_store_free_layer(struct docker_image_layer *layer);

/**
 * Opens Docker's image store in a directory, `/var/lib/docker/image/overlay2` for one, and makes what is missing. Every
 * config is read and verified, and a reference taken on the layer of each image. What is damaged, or without its layer, is
 * left where it is and not listed: docker_image_store_problems. A daemon does not know of this library's lock: let none run
 * on the same directory unless it is opened for reading only.
 *
 * @param root borrowed; the directory above imagedb
 * @param options borrowed; may be NULL: layers of callbacks, everything is flushed
 * @param layers borrowed, and copied; NULL unless options->layers is DOCKER_IMAGE_LAYERS_CALLBACKS. Its functions and their
 * context are used until docker_image_store_close has returned
 * @return a handle that docker_image_store_close ends, or NULL with errno EINVAL (NULL, root is empty, a wrong size), EILSEQ,
 * EBUSY (another owner), ENOENT (read_only, and there is no directory), ENOTDIR (something is in the way), EOPNOTSUPP (a
 * newer version has written there), or what the system said
 *
 * # Safety
 * `root` must be NULL or a string, `options` and `layers` NULL or valid.
 */
struct docker_image_store *docker_image_store_open(const char *root,
                                                   const struct docker_image_store_options *options,
                                                   const struct docker_image_layers *layers);

/**
 * Closes a store: waits for calls that still use it, then gives back the references on layers. Nothing is removed. Not to be
 * called from a callback of the store's.
 *
 * @param store taken; NULL, and one that is not open, are fine
 */
void docker_image_store_close(struct docker_image_store *store);

/**
 * Makes an image of a config. Is it there already, nothing changes, unless its config was damaged: then it is written anew.
 * After a failure nothing is left on disk, and no reference on a layer.
 *
 * @param store borrowed
 * @param config borrowed; the bytes, which need not end with a NUL
 * @param len their number; at most 10 MiB
 * @return the id, malloc'ed, or NULL with errno EINVAL (NULL, empty), EBADMSG (no config: not JSON, nested deeper than 128
 * levels, more than 65,536 elements, a member of a wrong type, no rootfs, more layers in the history than diff IDs), EFBIG (too large), EOPNOTSUPP (not
 * for Linux), ENOENT (its layer is not there), EROFS, EIO (an earlier failure: open it again), or what a callback or the
 * system said
 *
 * # Safety
 * `config` must be NULL or have `len` readable bytes.
 */
char *docker_image_store_create(struct docker_image_store *store,
                                const void *config,
                                size_t len);

/**
 * Gives an image, read and verified now; also one that is on disk but not in the store.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @return the image, to be freed by docker_image_store_free_image, or NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none),
 * EBADMSG (its config is damaged or none), EUCLEAN (no file), ENOMEM, or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
struct docker_image *docker_image_store_get(struct docker_image_store *store,
                                            const char *id);

/**
 * Deletes an image, damaged or not. Its children are without a parent then; its names stay. Its layer is released: what went
 * with it is returned, top first.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @param removed out; may be NULL; an array to be freed by docker_image_store_free_removed_layers. Never NULL on success
 * @param removed_len out; may be NULL if removed is; their number
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (unrecognized), EROFS, EIO (an earlier failure: open it again), or
 * what a callback (the image is gone then) or the system said
 *
 * # Safety
 * `id` must be NULL or a string, `removed` and `removed_len` NULL or writable; what they held is not freed.
 */
int docker_image_store_delete(struct docker_image_store *store,
                              const char *id,
                              struct docker_image_removed_layer **removed,
                              size_t *removed_len);

/**
 * Finds the image whose id begins with a term.
 *
 * @param store borrowed
 * @param term borrowed; hexadecimal digits in lower case, with or without `sha256:` in front
 * @return the whole id, malloc'ed, or NULL with errno EINVAL (NULL, empty: Docker takes any image then if there is but one),
 * EILSEQ, ENOENT (none), ENOTUNIQ (several), ENOMEM
 *
 * # Safety
 * `term` must be NULL or a string.
 */
char *docker_image_store_search(struct docker_image_store *store,
                                const char *term);

/**
 * Sets the parent of an image.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @param parent borrowed; the same
 * @return 0, or -1 with errno EINVAL (NULL; an image would be its own parent or forefather), EILSEQ, ENOENT (one of them is
 * not in the store), EROFS, EIO (an earlier failure: open it again), or what the system said
 *
 * # Safety
 * `id` and `parent` must be NULL or strings.
 */
int docker_image_store_set_parent(struct docker_image_store *store,
                                  const char *id,
                                  const char *parent);

/**
 * Gives the parent of an image, as recorded: it may be gone.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @return the id, malloc'ed, or NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such image, or it has none), EUCLEAN (what is
 * recorded is no id), ENOMEM, or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
char *docker_image_store_get_parent(struct docker_image_store *store,
                                    const char *id);

/**
 * Tells how many images are in the store.
 *
 * @param store borrowed
 * @return their number, or (size_t)-1 with errno EINVAL (NULL)
 */
size_t docker_image_store_len(struct docker_image_store *store);

/**
 * Records that an image was used or named now.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), EROFS, EIO (an earlier failure: open it again), or
 * what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int docker_image_store_set_last_updated(struct docker_image_store *store,
                                        const char *id);

/**
 * Gives the time of the last docker_image_store_set_last_updated. There may be none: neither seconds nor nanoseconds then.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @param time out
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (id is no digest), EUCLEAN (what is recorded is no time)
 *
 * # Safety
 * `id` must be NULL or a string, `time` NULL or writable.
 */
int docker_image_store_get_last_updated(struct docker_image_store *store,
                                        const char *id,
                                        types_timestamp_t *time);

/**
 * Records that an image was built here.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @return 0, or -1 with errno as docker_image_store_set_last_updated
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int docker_image_store_set_built_locally(struct docker_image_store *store, const char *id);

/**
 * Tells whether an image was built here, as far as that is known.
 *
 * @param store borrowed
 * @param id borrowed; `sha256:` and 64 hexadecimal digits
 * @return 1: yes; 0: no, or not known; -1 with errno EINVAL (NULL), EILSEQ, ENOENT (id is no digest), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int docker_image_store_is_built_locally(struct docker_image_store *store,
                                        const char *id);

/**
 * Tells of a layer that is gone; only for a release callback, while it runs, from its thread.
 *
 * @param removed borrowed; what the callback got
 * @param chain_id borrowed; `sha256:` and 64 hexadecimal digits
 * @param diff_id borrowed; the same; NULL where it is not known
 * @param size size of the layer and all below it, in bytes
 * @param diff_size size of the layer alone, in bytes
 * @return 0, or -1 with errno EINVAL (NULL, no digest), EILSEQ
 *
 * # Safety
 * `removed` must be NULL or what the callback got, `chain_id` and `diff_id` NULL or strings.
 */
int docker_image_store_add_removed_layer(struct docker_image_removed_layers *removed,
                                         const char *chain_id,
                                         const char *diff_id,
                                         uint64_t size,
                                         uint64_t diff_size);

/**
 * Frees a text that this library returned.
 *
 * @param text taken; may be NULL
 *
 * # Safety
 * `text` must come from this library, or be malloc'ed, and not be used afterwards.
 */
void isula_storage_free_string(char *text);

/**
 * Frees an array of texts that this library returned.
 *
 * @param texts taken; may be NULL
 * @param len number of texts
 *
 * # Safety
 * `texts` must be malloc'ed with `len` malloc'ed texts and not be used afterwards.
 */
void isula_storage_free_strings(char **texts, size_t len);

/**
 * Frees a layer.
 *
 * @param layer taken; may be NULL
 *
 * # Safety
 * `layer` and its members must be malloc'ed, as this library returns them, and not be used afterwards.
 */
void free_layer(struct layer *layer);

/**
 * Frees a list of layers, the layers and the struct itself: for a malloc'ed list. See isula_storage_clear_layer_list.
 *
 * @param list taken; may be NULL
 *
 * # Safety
 * `list` and its members must be malloc'ed, as this library returns them, and not be used afterwards.
 */
void free_layer_list(struct layer_list *list);

/**
 * Frees the layers in a list and empties it; the struct stays: for a list on the stack.
 *
 * @param list borrowed; may be NULL
 *
 * # Safety
 * The members of `list` must be as this library returns them.
 */
void isula_storage_clear_layer_list(struct layer_list *list);

/**
 * Frees the options of a layer's creation and all their members.
 *
 * @param opts taken; may be NULL
 *
 * # Safety
 * `opts` and its members must be malloc'ed and not be used afterwards.
 */
void free_layer_opts(struct layer_opts *opts);

/**
 * Frees driver options of a layer's creation and all their members.
 *
 * @param opts taken; may be NULL
 *
 * # Safety
 * `opts` and its members must be malloc'ed and not be used afterwards.
 */
void free_layer_store_mount_opts(struct layer_store_mount_opts *opts);

/**
 * Frees the members of an image record and zeroes it; the struct stays: for one that the caller provided.
 *
 * @param image borrowed; may be NULL
 *
 * # Safety
 * The members of `image` must be as this library returns them.
 */
void isula_storage_clear_image(image_storage_images *image);

/**
 * Frees an array of image records, as `images` and `by_digest` of an image store return it.
 *
 * @param images taken; may be NULL
 * @param len number of records
 *
 * # Safety
 * `images` must be one malloc'ed array of `len` records as this library returns them, not used afterwards.
 */
void isula_storage_free_images(image_storage_images *images, size_t len);

/**
 * Frees an image; libisula's free_imagetool_image does the same.
 *
 * @param image taken; may be NULL
 *
 * # Safety
 * `image` must be as this library returns it and not be used afterwards.
 */
void isula_storage_free_imagetool_image(imagetool_image *image);

/**
 * Frees the summary of an image; libisula's free_imagetool_image_summary does the same.
 *
 * @param summary taken; may be NULL
 *
 * # Safety
 * `summary` must be as this library returns it and not be used afterwards.
 */
void isula_storage_free_imagetool_image_summary(imagetool_image_summary *summary);

/**
 * Frees a list of summaries and the struct itself: for a malloc'ed list; libisula's free_imagetool_images_list does
 * the same.
 *
 * @param list taken; may be NULL
 *
 * # Safety
 * `list` must be malloc'ed with members as this library returns them, and not be used afterwards.
 */
void isula_storage_free_imagetool_images_list(imagetool_images_list *list);

/**
 * Frees the summaries in a list and empties it; the struct stays: for a list on the stack.
 *
 * @param list borrowed; may be NULL
 *
 * # Safety
 * The members of `list` must be as this library returns them.
 */
void isula_storage_clear_imagetool_images_list(imagetool_images_list *list);

/**
 * Frees usage of file systems and the struct itself: for a malloc'ed one; libisula's free_imagetool_fs_info does the
 * same.
 *
 * @param info taken; may be NULL
 *
 * # Safety
 * `info` must be malloc'ed with members as this library returns them, and not be used afterwards.
 */
void isula_storage_free_imagetool_fs_info(imagetool_fs_info *info);

/**
 * Frees the members of usage of file systems and zeroes it; the struct stays: for one on the stack.
 *
 * @param info borrowed; may be NULL
 *
 * # Safety
 * The members of `info` must be as this library returns them.
 */
void isula_storage_clear_imagetool_fs_info(imagetool_fs_info *info);

/**
 * Frees what a driver says of a layer; libisula's free_container_inspect_graph_driver does the same.
 *
 * @param driver taken; may be NULL
 *
 * # Safety
 * `driver` must be as this library returns it and not be used afterwards.
 */
void isula_storage_free_graph_driver(container_inspect_graph_driver *driver);

/**
 * Frees the record of a container's root file system; libisula's free_storage_rootfs does the same.
 *
 * @param rootfs taken; may be NULL
 *
 * # Safety
 * `rootfs` must be as this library returns it and not be used afterwards.
 */
void isula_storage_free_storage_rootfs(storage_rootfs *rootfs);

/**
 * Frees the records in a list and empties it; the struct stays: for a list on the stack.
 *
 * @param list borrowed; may be NULL
 *
 * # Safety
 * The members of `list` must be as this library returns them.
 */
void isula_storage_clear_rootfs_list(struct rootfs_list *list);

/**
 * Opens a graph driver alone, without a layer store. layer_store_init and storage_module_init open the driver
 * themselves: the functions of this family then work on theirs.
 *
 * @param opts borrowed; storage_root and driver_name must be given and not be empty; storage_run_root is not used
 * @return 0, or -1 with errno EINVAL (NULL, unknown driver or option), EEXIST (a driver is open already in this
 * process), EBUSY (another process owns the driver's directory), EILSEQ (a text is not UTF-8), EOPNOTSUPP (the driver
 * cannot work here), ENODEV (devicemapper: there is no such thin pool), or what the system said
 *
 * # Safety
 * `opts` must be NULL or valid with all its members during the call.
 */
int graphdriver_init(const struct storage_module_init_options *opts);

/**
 * Makes an empty layer for a container.
 *
 * @param id borrowed; 1-255 bytes, one path component that does not start with a dot
 * @param parent borrowed; the layer it stands on, or NULL
 * @param create_opts borrowed, not changed; storage_opt may have one `size`
 * @return 0, or -1 with errno EINVAL (NULL, bad id, unknown option, bad size), EILSEQ, EEXIST (a layer of this id is
 * there: nothing is touched; the reference takes it over with what it holds), ENOENT (no such parent), EOPNOTSUPP (a size,
 * and the file system cannot limit it), ENODEV (no driver is open), or what the system said; nothing remains then
 *
 * # Safety
 * All pointers must be valid during the call.
 */
int graphdriver_create_rw(const char *id,
                          const char *parent,
                          struct driver_create_opts *create_opts);

/**
 * Makes an empty layer for an image, to be filled with graphdriver_apply_diff.
 *
 * @param id borrowed; 1-255 bytes, one path component that does not start with a dot
 * @param parent borrowed; the layer it stands on, or NULL
 * @param create_opts borrowed; must have no storage options
 * @return as for graphdriver_create_rw; a storage option is EINVAL
 *
 * # Safety
 * All pointers must be valid during the call.
 */
int graphdriver_create_ro(const char *id, const char *parent, const struct driver_create_opts *create_opts);

/**
 * Removes a layer's data; unmounts it first if it is mounted. What the layer store has a record of is deleted with
 * layer_store_delete only.
 *
 * @param id borrowed
 * @return 0: removed, or there was none; -1 with errno EINVAL (NULL, bad id), EILSEQ, EBUSY (the layer store has a
 * record of it, other layers stand on it, or its mount is in use: nothing is touched), ENODEV (no driver is open), or what
 * the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int graphdriver_rm_layer(const char *id);

/**
 * Mounts a layer, not counting: one that is mounted already stays so. An image layer that the layer store has a record
 * of is mounted read-only, every other layer writable.
 *
 * @param id borrowed
 * @param mount_opts borrowed; NULL: no label, and the options that the driver was opened with
 * @return the root of the mounted layer, malloc'ed, freed with free(); NULL with errno EINVAL (NULL, bad id, bad option),
 * EILSEQ, ENOENT (no such layer), EUCLEAN (what it stands on is broken), ENODEV (no driver is open), or what the system
 * said
 *
 * # Safety
 * `id` must be NULL or a string, `mount_opts` NULL or valid with all its members.
 */
char *graphdriver_mount_layer(const char *id,
                              const struct driver_mount_opts *mount_opts);

/**
 * Unmounts a layer, however often it was mounted.
 *
 * @param id borrowed
 * @return 0: done, or there was nothing to do (not mounted, no such layer); -1 with errno EINVAL (NULL, bad id), EILSEQ,
 * ENODEV (no driver is open), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int graphdriver_umount_layer(const char *id);

/**
 * Whether the driver has a layer; a lost link of it is made again.
 *
 * @param id borrowed
 * @return true or false; false with errno EINVAL (NULL, bad id), EILSEQ, ENODEV (no driver is open) if it could not be
 * found out
 *
 * # Safety
 * `id` must be NULL or a string.
 */
bool graphdriver_layer_exists(const char *id);

/**
 * Fills an empty layer from an archive; when it returns, the content is durable. No tar-split stream is kept: the
 * archive cannot be exported again byte for byte. layer_store_create does all of it.
 *
 * @param id borrowed
 * @param content borrowed; as for layer_store_create
 * @return 0, or -1 with errno EINVAL (NULL, bad id, no read function), EILSEQ, ENOENT (no such layer), EBUSY (the layer
 * store has a record of it, or it is mounted), EEXIST (it has content), EBADMSG (not an archive, or truncated), EFBIG (a
 * limit), ENODEV (no driver is open), or what the system said; a part of the archive may be in the layer then: remove it
 *
 * # Safety
 * All pointers must be valid during the call; `content` may be read from any thread, by one at a time.
 */
int graphdriver_apply_diff(const char *id,
                           const struct io_read_wrapper *content);

/**
 * Gives where a layer's content is.
 *
 * @param id borrowed
 * @return freed with isula_storage_free_graph_driver; NULL with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such
 * layer: the reference makes paths up), ENODEV (no driver is open), ENOMEM, or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
container_inspect_graph_driver *graphdriver_get_metadata(const char *id);

/**
 * Gives what the driver says of itself.
 *
 * @return freed with free_graphdriver_status; NULL with errno ENODEV (no driver is open), ENOMEM
 */
struct graphdriver_status *graphdriver_get_status(void);

/**
 * Rebuilds what a layer stands on if it is broken.
 *
 * @param id borrowed
 * @param parent borrowed; the layer that it stands on, or NULL
 * @return 0: in order, repaired, or there is no such layer; -1 with errno EINVAL (NULL, bad id), EILSEQ, EUCLEAN (cannot
 * be repaired), ENODEV (no driver is open), or what the system said
 *
 * # Safety
 * Both must be NULL or strings.
 */
int graphdriver_try_repair_lowers(const char *id,
                                  const char *parent);

/**
 * Gives what a layer itself holds, without the layers beneath it.
 *
 * @param id borrowed
 * @param fs_info out; as for layer_store_get_layer_fs_info
 * @return 0: given, or there is no such layer and nothing was written; -1 with errno EINVAL (NULL, bad id), EILSEQ,
 * ENODEV (no driver is open), ENOMEM, or what the system said
 *
 * # Safety
 * `id` must be NULL or a string, `fs_info` NULL or writable; what it held is not freed.
 */
int graphdriver_get_layer_fs_info(const char *id,
                                  imagetool_fs_info *fs_info);

/**
 * Closes a driver that graphdriver_init opened: waits for calls under way, takes the mount of its home away. Layers stay
 * mounted. Later calls fail with ENODEV until a driver is opened again. Not to be called by the read function of
 * graphdriver_apply_diff, which would wait for itself.
 *
 * @return 0, or -1 with errno EBUSY (the driver is the layer store's: layer_store_exit closes it), ENODEV (no driver is
 * open), or what the system said
 */
int graphdriver_cleanup(void);

/**
 * Frees options of a mount by the driver and all their members.
 *
 * @param opts taken; may be NULL
 *
 * # Safety
 * `opts` and its members must be malloc'ed and not be used afterwards.
 */
void free_graphdriver_mount_opts(struct driver_mount_opts *opts);

/**
 * Frees what a driver says of itself.
 *
 * @param status taken; may be NULL
 *
 * # Safety
 * `status` must be as graphdriver_get_status returns it and not be used afterwards.
 */
void free_graphdriver_status(struct graphdriver_status *status);

/**
 * Text of the last failure of the calling thread: the function's name, what was tried on which thing, and why.
 *
 * @return text that stays valid until the next failing call of the same thread or its end; NULL when no call of this
 * thread has failed. A call that succeeds does not change it: ask only after a failure. Do not free it.
 */
const char *isula_storage_last_error(void);

/**
 * Version of the library.
 *
 * @return text such as `0.1.0`; do not free it.
 */
const char *isula_storage_version(void);

/**
 * Says what the process offers. Stores that are open keep what they were opened with; the two functions count at once.
 *
 * @param host borrowed, copied during the call; its size member must be set
 * @return 0, or -1 with errno EINVAL (host NULL, size too small, userns_remap malformed), EILSEQ (a text is not UTF-8);
 * nothing changes on failure
 *
 * # Safety
 * `host` must point to a struct of `host->size` bytes; its functions must be usable from any thread as long as the
 * library is used.
 */
int isula_storage_set_host(const struct isula_storage_host *host);

/**
 * Opens an image store and fills the caller's struct with its functions.
 *
 * @param daemon true: the process owns the store until free_image_store, and another owner is refused; false: the
 * store is locked for each change, and a change made by another process is seen at the next call
 * @param readonly nothing is ever written, no lock is taken; functions that change something fail with EROFS. daemon
 * does not matter then
 * @param dir borrowed; the image directory itself; made if it is absent and readonly is false
 * @param image_store out; ended by free_image_store
 * @return 0, or -1 with errno EINVAL (NULL, dir is empty), EILSEQ, EBUSY (another owner), ENOENT (readonly, and there
 * is no directory), or what the system said
 *
 * Source: design documents of the image store, section 3.
 *
 * # Safety
 * `dir` must be NULL or a string, `image_store` NULL or writable; what it held is not freed.
 */
int new_image_store(bool daemon,
                    bool readonly,
                    const char *dir,
                    image_store_t *image_store);

/**
 * Closes an image store and zeroes the struct; what is on disk stays. Copies of the struct are closed as well.
 *
 * @param image_store borrowed; NULL, and one that is not open, are fine
 *
 * # Safety
 * `image_store` must be NULL or point to readable memory of the size of the struct, writable if it is open.
 */
void free_image_store(image_store_t *image_store);

/**
 * Opens the process-wide image store in `<storage_root>/<driver>-images` and loads all images.
 *
 * @param opts borrowed; only storage_root and driver_name are read, both must be given and not be empty
 * @return 0, or -1 with errno EINVAL (NULL, unknown driver: the reference answers 0 and has no store), EEXIST (open
 * already), EBUSY (another process owns the store), EILSEQ (a text is not UTF-8), or what the system said
 *
 * # Safety
 * `opts` must be NULL or valid with the two members during the call.
 */
int image_store_init(struct storage_module_init_options *opts);

/**
 * Closes the process-wide image store; what is on disk stays. Closing twice is fine; image_store_init works again.
 */
void image_store_free(void);

/**
 * Makes an image record.
 *
 * @param id borrowed; one path component that does not start with a dot; NULL: 64 random hex digits
 * @param names borrowed; duplicates are dropped, the rest sorted; may be NULL if names_len is 0
 * @param names_len number of names
 * @param layer borrowed; id of its top layer; may be NULL
 * @param metadata borrowed; free text; may be NULL
 * @param time borrowed; when it was made; NULL, or neither seconds nor nanoseconds: now
 * @param searchable_digest borrowed; digest by which it is searched; may be NULL
 * @return its id, malloc'ed, freed with free(); NULL with errno EINVAL (bad id, a name is NULL, nanoseconds without
 * seconds), EILSEQ, EEXIST (the id, or a name, belongs to an image), ENODEV (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or valid during the call.
 */
char *image_store_create(const char *id,
                         const char **names,
                         size_t names_len,
                         const char *layer,
                         const char *metadata,
                         const types_timestamp_t *time,
                         const char *searchable_digest);

/**
 * Gives the full id of an image.
 *
 * @param id borrowed; id, name, unique short id of at least three hex digits, or digest reference, in this order; the
 * same for every `id` below
 * @return malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not
 * open)
 *
 * # Safety
 * `id` must be NULL or a string.
 */
char *image_store_lookup(const char *id);

/**
 * Whether an image exists.
 *
 * @param id borrowed; as for image_store_lookup
 * @return true or false; false with errno EINVAL (NULL), EILSEQ, ENODEV (not open) if it could not be found out
 *
 * # Safety
 * `id` must be NULL or a string.
 */
bool image_store_exists(const char *id);

/**
 * Deletes an image record and its big data; its layers stay.
 *
 * @param id borrowed; as for image_store_lookup
 * @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, ENODEV (not open), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int image_store_delete(const char *id);

/**
 * Stores text under a key.
 *
 * @param id borrowed; as for image_store_lookup
 * @param key borrowed; not empty, not `images.json`, `.` or `..`
 * @param data borrowed; up to its NUL
 * @return 0, or -1 with errno EINVAL (NULL, bad key), EILSEQ (id or key is not UTF-8), ENOENT (no such image), ENODEV
 * (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or strings.
 */
int image_store_set_big_data(const char *id,
                             const char *key,
                             const char *data);

/**
 * Adds a name; if another image has it, it moves.
 *
 * @param id borrowed; as for image_store_lookup
 * @param name borrowed
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or strings.
 */
int image_store_add_name(const char *id,
                         const char *name);

/**
 * Replaces the names of an image; names that other images have move.
 *
 * @param id borrowed; as for image_store_lookup
 * @param names borrowed; duplicates are dropped, the rest sorted
 * @param names_len number of names, not 0
 * @return 0, or -1 with errno EINVAL (NULL, no name), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the
 * system said
 *
 * # Safety
 * All pointers must be NULL or valid during the call.
 */
int image_store_set_names(const char *id,
                          const char **names,
                          size_t names_len);

/**
 * Gives the names of an image.
 *
 * @param id borrowed; as for image_store_lookup
 * @param names out; malloc'ed, freed with isula_storage_free_strings; NULL when there are none
 * @param names_len out; their number
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `id` must be NULL or a string, the others NULL or writable.
 */
int image_store_get_names(const char *id, char ***names, size_t *names_len);

/**
 * Sets the free text of an image.
 *
 * @param id borrowed; as for image_store_lookup
 * @param metadata borrowed
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or strings.
 */
int image_store_set_metadata(const char *id,
                             const char *metadata);

/**
 * Sets when an image was loaded.
 *
 * @param id borrowed; as for image_store_lookup
 * @param time borrowed; its seconds must be given
 * @return 0, or -1 with errno EINVAL (NULL, no seconds), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the
 * system said
 *
 * # Safety
 * `id` must be NULL or a string, `time` NULL or valid.
 */
int image_store_set_load_time(const char *id,
                              const types_timestamp_t *time);

/**
 * Sets the size of an image.
 *
 * @param id borrowed; as for image_store_lookup
 * @param size in bytes
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int image_store_set_image_size(const char *id,
                               uint64_t size);

/**
 * Gives an image with its config.
 *
 * @param id borrowed; as for image_store_lookup
 * @return freed with isula_storage_free_imagetool_image; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such image, or
 * it has no config), EUCLEAN (its config is damaged), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `id` must be NULL or a string.
 */
imagetool_image *image_store_get_image(const char *id);

/**
 * Gives what lists show of an image.
 *
 * @param id borrowed; as for image_store_lookup
 * @return freed with isula_storage_free_imagetool_image_summary; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such
 * image), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `id` must be NULL or a string.
 */
imagetool_image_summary *image_store_get_image_summary(const char *id);

/**
 * Gives what is stored under a key.
 *
 * @param id borrowed; as for image_store_lookup
 * @param key borrowed; not empty
 * @return malloc'ed, with a NUL behind it, freed with free(); NULL with errno EINVAL (NULL, bad key), EILSEQ, ENOENT (no
 * such image or key), ENODEV (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or strings.
 */
char *image_store_big_data(const char *id,
                           const char *key);

/**
 * Gives the size of what is stored under a key.
 *
 * @param id borrowed; as for image_store_lookup
 * @param key borrowed; not empty
 * @return size in bytes, or -1 with errno EINVAL (NULL, bad key), EILSEQ, ENOENT (no such image or key), ENODEV (not
 * open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or strings.
 */
int64_t image_store_big_data_size(const char *id,
                                  const char *key);

/**
 * Gives the digest of what is stored under a key.
 *
 * @param id borrowed; as for image_store_lookup
 * @param key borrowed; not empty
 * @return `sha256:` and 64 hex digits, malloc'ed, freed with free(); NULL with errno EINVAL (NULL, bad key), EILSEQ,
 * ENOENT (no such image or key), ENODEV (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or strings.
 */
char *image_store_big_data_digest(const char *id,
                                  const char *key);

/**
 * Gives the keys of all big data of an image, in order of insertion.
 *
 * @param id borrowed; as for image_store_lookup
 * @param names out; malloc'ed, freed with isula_storage_free_strings; NULL when there are none
 * @param names_len out; their number
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `id` must be NULL or a string, the others NULL or writable.
 */
int image_store_big_data_names(const char *id, char ***names, size_t *names_len);

/**
 * Gives the free text of an image.
 *
 * @param id borrowed; as for image_store_lookup
 * @return malloc'ed, freed with free(); NULL if it has none (errno is not set then), or with errno EINVAL (NULL),
 * EILSEQ, ENOENT (no such image), ENODEV (not open)
 *
 * # Safety
 * `id` must be NULL or a string.
 */
char *image_store_metadata(const char *id);

/**
 * Gives the id of an image's top layer.
 *
 * @param id borrowed; as for image_store_lookup
 * @return malloc'ed, freed with free(); NULL if it has none (errno is not set then), or with errno EINVAL (NULL),
 * EILSEQ, ENOENT (no such image), ENODEV (not open)
 *
 * # Safety
 * `id` must be NULL or a string.
 */
char *image_store_top_layer(const char *id);

/**
 * Gives what lists show of all images, in order of creation.
 *
 * @param images_list out; not written when there are no images; freed with isula_storage_clear_imagetool_images_list,
 * or isula_storage_free_imagetool_images_list if the struct itself is malloc'ed
 * @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `images_list` must be NULL or writable; what it held is not freed.
 */
int image_store_get_all_images(imagetool_images_list *images_list);

/**
 * Gives the number of images.
 *
 * @return their number, or (size_t)-1 with errno ENODEV (not open)
 */
size_t image_store_get_images_number(void);

/**
 * Gives what the image directory holds: records and big data, not layers.
 *
 * @param fs_info out; one element with the time in nanoseconds since 1970, the directory, its apparent size in bytes and
 * number of inodes; freed with isula_storage_clear_imagetool_fs_info
 * @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM, or what the system said
 *
 * # Safety
 * `fs_info` must be NULL or writable; what it held is not freed.
 */
int image_store_get_fs_info(imagetool_fs_info *fs_info);

/**
 * Writes the archive that an image layer was made from, uncompressed, byte for byte. It is verified while it is written:
 * each file against its checksum, and the whole against the digest that the layer is known by.
 *
 * @param id borrowed; an id or name
 * @param writer borrowed; its write_func is called in this thread until it has taken everything, and may call the
 * library; close_func is not called; context may be anything
 * @return 0: all was written, and it is right; -1 with errno EINVAL (NULL, no write_func), EILSEQ, ENOENT (no such
 * layer), EUCLEAN (the layer is damaged, or was made by iSulad: it has no complete tar-split stream), EBADMSG (all was
 * written, but it has another digest), EIO (write_func failed without errno), ENODEV (not open), or what write_func or the
 * system said. What was written then is not to be used
 *
 * # Safety
 * `id` must be NULL or a string, `writer` NULL or valid during the call.
 */
int isula_storage_layer_export(const char *id,
                               const struct io_write_wrapper *writer);

/**
 * Writes a new layer archive, uncompressed, of what a layer changes of another: with whiteouts for what it deletes, as
 * layer_store_create takes it. The same layer gives the same bytes each time, which are not those that an image layer
 * was made from: for those there is isula_storage_layer_export.
 *
 * @param id borrowed; an id or name
 * @param parent borrowed; an id or name; NULL: the layer that it stands on
 * @param writer borrowed; as for isula_storage_layer_export
 * @return 0: all was written; -1 with errno EINVAL (NULL, no write_func), EILSEQ, ENOENT (no such layer), EBUSY (the layer
 * changes meanwhile), EBADMSG (it has something that no archive can hold), EOPNOTSUPP (these two cannot be compared
 * here), EIO (write_func failed without errno), ENODEV (not open), or what write_func or the system said. What was written
 * then is not to be used
 *
 * # Safety
 * `id` and `parent` must be NULL or strings, `writer` NULL or valid during the call.
 */
int isula_storage_layer_diff(const char *id,
                             const char *parent,
                             const struct io_write_wrapper *writer);

/**
 * Gives the paths that a layer changes of another. What comes or goes meanwhile is given or not.
 *
 * @param id borrowed; an id or name
 * @param parent borrowed; an id or name; NULL: the layer that it stands on
 * @param changes out; its members belong to the caller: isula_storage_clear_layer_changes
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such layer), EOPNOTSUPP (these two cannot be compared
 * here), ENODEV (not open), ENOMEM, or what the system said
 *
 * # Safety
 * `id` and `parent` must be NULL or strings, `changes` NULL or writable; what it held is not freed.
 */
int isula_storage_layer_changes(const char *id,
                                const char *parent,
                                struct isula_storage_layer_changes_list *changes);

/**
 * Gives the sum of the sizes of the files that isula_storage_layer_diff would write.
 *
 * @param id borrowed; an id or name
 * @param parent borrowed; an id or name; NULL: the layer that it stands on
 * @param bytes out; in bytes
 * @return 0, or -1 with errno as isula_storage_layer_changes
 *
 * # Safety
 * `id` and `parent` must be NULL or strings, `bytes` NULL or writable.
 */
int isula_storage_layer_diff_size(const char *id, const char *parent, int64_t *bytes);

/**
 * Frees the changes in a list and empties it; the struct stays.
 *
 * @param changes borrowed; may be NULL
 *
 * # Safety
 * The members of `changes` must be as this library returns them.
 */
void isula_storage_clear_layer_changes(struct isula_storage_layer_changes_list *changes);

/**
 * Opens the process-wide layer store: its driver, what a crash left, all records.
 *
 * @param conf borrowed; storage_root, storage_run_root and driver_name must be given and not be empty
 * @return 0, or -1 with errno EINVAL (NULL, unknown driver or option), EEXIST (open already), EBUSY (another process
 * owns the store), EILSEQ (a text is not UTF-8), EOPNOTSUPP (the driver cannot work here), or what the system said
 *
 * Source: design document of the layer store, 3.1.
 *
 * # Safety
 * `conf` must be NULL or valid with all its members during the call.
 */
int layer_store_init(const struct storage_module_init_options *conf);

/**
 * Closes the process-wide layer store: waits for creates that are under way, releases the driver. Layers stay
 * mounted. Later calls fail with ENODEV until layer_store_init is called again; closing twice is fine. Not to be called
 * by the read function of a create, which would wait for itself.
 */
void layer_store_exit(void);

/**
 * Frees what layer_store_exit left in the reference; here layer_store_exit leaves nothing, so this is the same.
 */
void layer_store_cleanup(void);

/**
 * Does nothing: in the reference it takes the last layer out of a list that this library does not have.
 */
void remove_layer_list_tail(void);

/**
 * Makes a layer, from an archive if there is one. The new layer has one hold reference.
 *
 * @param id borrowed; 1-255 bytes, one path component that does not start with a dot
 * @param opts borrowed; its uncompressed_digest, if given, is verified against the archive
 * @param content borrowed; a stream of a layer archive (tar, plain or compressed by gzip, zstd, bzip2 or xz), read
 * once, forward, to its end by its read function; context may be anything; close is not called; NULL: an empty layer.
 * The read function may call the library: no lock is held
 * @param new_id out, may be NULL; the id, malloc'ed, freed with free(); not written when the layer existed
 * @return 0: made, or a layer of this id or name existed and gained a hold reference (nothing is read or compared);
 * -1 with errno EINVAL (NULL, bad id, no read function), EILSEQ (a text is not UTF-8), ENOENT (no such parent), EEXIST
 * (a name belongs to another layer), EBADMSG (not an archive, truncated, or another digest), EFBIG (a limit), ENODEV
 * (not open), EIO (the read function failed without errno), or what the system said; nothing remains then
 *
 * Source: design document of the layer store, 3.3.
 *
 * # Safety
 * All pointers must be valid during the call; `content` may be read from any thread, by one at a time.
 */
int layer_store_create(const char *id,
                       const struct layer_opts *opts,
                       const struct io_read_wrapper *content,
                       char **new_id);

/**
 * Adds a hold reference to a layer. References live in memory only and are 0 after a restart.
 *
 * @param layer_id borrowed; an id, not a name
 * @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open)
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
int layer_inc_hold_refs(const char *layer_id);

/**
 * Drops a hold reference of a layer. The count may become negative, as in the reference.
 *
 * @param layer_id borrowed; an id, not a name
 * @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open)
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
int layer_dec_hold_refs(const char *layer_id);

/**
 * Gives the number of hold references of a layer.
 *
 * @param layer_id borrowed; an id, not a name
 * @param ref_num out
 * @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open)
 *
 * # Safety
 * `layer_id` must be NULL or a string, `ref_num` NULL or writable.
 */
int layer_get_hold_refs(const char *layer_id, int *ref_num);

/**
 * Deletes a layer; unmounts it first if it is mounted, whatever its hold references.
 *
 * @param id borrowed; an id or name
 * @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, EBUSY (other layers stand on it), ENODEV
 * (not open), or what the system said
 *
 * Source: design document of the layer store, 3.5.
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int layer_store_delete(const char *id);

/**
 * Whether a layer exists.
 *
 * @param id borrowed; an id or name
 * @return true or false; false with errno EINVAL (NULL), EILSEQ, ENODEV (not open) if it could not be found out
 *
 * # Safety
 * `id` must be NULL or a string.
 */
bool layer_store_exists(const char *id);

/**
 * Gives all layers, in order of creation.
 *
 * @param resp out; its members belong to the caller: isula_storage_clear_layer_list, or free_layer_list if the struct
 * itself is malloc'ed. Without layers the array is empty, not NULL
 * @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `resp` must be NULL or writable; what it held is not freed.
 */
int layer_store_list(struct layer_list *resp);

/**
 * Gives the layers of which this is the compressed digest, in order of creation.
 *
 * @param digest borrowed; compared as text, with its `sha256:`
 * @param resp out; as for layer_store_list
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `digest` must be NULL or a string, `resp` NULL or writable; what it held is not freed.
 */
int layer_store_by_compress_digest(const char *digest, struct layer_list *resp);

/**
 * Gives the layers of which this is the uncompressed digest, in order of creation.
 *
 * @param digest borrowed; compared as text, with its `sha256:`
 * @param resp out; as for layer_store_list
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `digest` must be NULL or a string, `resp` NULL or writable; what it held is not freed.
 */
int layer_store_by_uncompress_digest(const char *digest, struct layer_list *resp);

/**
 * Gives a layer.
 *
 * @param name borrowed; an id or name, whole
 * @return the layer, freed with free_layer; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (not
 * open), ENOMEM
 *
 * # Safety
 * `name` must be NULL or a string.
 */
struct layer *layer_store_lookup(const char *name);

/**
 * Mounts a layer, counting.
 *
 * @param id borrowed; an id or name
 * @return the root of the mounted layer, malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no
 * such layer), ENODEV (not open), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
char *layer_store_mount(const char *id);

/**
 * Drops one mount of a layer, or all of them.
 *
 * @param id borrowed; an id or name; NULL is fine
 * @param force drop all mounts, not one
 * @return 0: done, or there was nothing to do (NULL, no such layer, not mounted); -1 with errno EILSEQ, ENODEV (not
 * open), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int layer_store_umount(const char *id,
                       bool force);

/**
 * Rebuilds what a layer stands on if it is broken.
 *
 * @param id borrowed; an id or name
 * @return 0: in order or repaired; -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such layer), EUCLEAN (cannot be
 * repaired), ENODEV (not open), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int layer_store_try_repair_lowers(const char *id);

/**
 * Gives what a layer itself holds, without the layers beneath it.
 *
 * @param layer_id borrowed; an id
 * @param fs_info out; one element with the time in nanoseconds since 1970, the directory, its apparent size in bytes and
 * number of inodes; freed with isula_storage_clear_imagetool_fs_info
 * @return 0: given, or there is no such layer and nothing was written; -1 with errno EINVAL (NULL, bad id), EILSEQ,
 * ENODEV (not open), ENOMEM, or what the system said
 *
 * Source: design document of the layer store, 3.10.
 *
 * # Safety
 * `layer_id` must be NULL or a string, `fs_info` NULL or writable; what it held is not freed.
 */
int layer_store_get_layer_fs_info(const char *layer_id,
                                  imagetool_fs_info *fs_info);

/**
 * Gives the most bytes that a layer itself may hold: the `size` with which a container was made.
 *
 * @param layer_id borrowed
 * @param bytes out; in bytes; 0: it has no limit
 * @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open), or what the system
 * said
 *
 * # Safety
 * `layer_id` must be NULL or a string, `bytes` NULL or writable.
 */
int isula_storage_layer_limit(const char *layer_id,
                              uint64_t *bytes);

/**
 * Gives where a layer's content is.
 *
 * @param id borrowed; an id
 * @return freed with isula_storage_free_graph_driver; NULL with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such
 * layer: the reference makes paths up), ENODEV (not open), ENOMEM, or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
container_inspect_graph_driver *layer_store_get_metadata_by_layer_id(const char *id);

/**
 * Compares an image layer with what was read when it was made.
 *
 * @param id borrowed; an id or name
 * @return 0: as it was, or a container's layer; 1: it differs (the log says where); -1 with errno EINVAL (NULL), EILSEQ,
 * ENOENT (no such layer), ENODEV (not open), or what the system said: it could not be found out
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int layer_store_check(const char *id);

/**
 * Gives the layout of every struct as the library was built with it, to compare with the header that a program uses.
 *
 * @param len out; number of entries
 * @return the table, which lives as long as the library: do not free it; NULL with errno EINVAL (NULL)
 *
 * # Safety
 * `len` must be NULL or writable.
 */
const struct isula_storage_layout_entry *isula_storage_abi_layout(size_t *len);

/**
 * Sets where the log goes and how much of it.
 *
 * @param callback takes one line each, from any thread, also several at once; NULL: iSulad's log if the process has
 * libisula's g_lxc_log_category_lxc, else stderr
 * @param userdata handed to the callback; borrowed until another callback is set and calls that are under way have
 * returned; may be NULL
 * @param level one of ISULA_STORAGE_LOG_OFF to ISULA_STORAGE_LOG_TRACE
 * @return 0, or -1 with errno EINVAL (unknown level; nothing changes)
 *
 * Until it is called, the log goes to iSulad's log as if callback were NULL and level ISULA_STORAGE_LOG_TRACE, or only
 * errors to stderr. iSulad's log has its own level, which counts as well. What is logged: at level error, internal errors
 * and damage; warn, calls that failed and what was put aside or left alone; debug, questions answered with "not found".
 *
 * The callback may call this library; of what happens in such a call it is not told.
 *
 * # Safety
 * `callback` and `userdata` must be usable from any thread.
 */
int isula_storage_set_log(isula_storage_log_fn callback,
                          void *userdata,
                          int level);

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Starts the thread `RoLayerRefresh`, which looks every five seconds for layers and images that other hosts have made or
 * deleted. storage_module_init with enable_remote_layer does so itself. It ends, and is waited for, in
 * storage_module_exit, layer_store_exit and layer_store_cleanup.
 *
 * @param remote_lock borrowed until the thread has ended; held for writing during each look. The thread ends also while
 * others hold it
 * @return 0, or -1 with errno EINVAL (NULL), ENODEV (no layer store is open), EOPNOTSUPP (it was opened without
 * enable_remote_layer), EEXIST (the thread runs already), EAGAIN (no thread can be started)
 *
 * # Safety
 * `remote_lock` must be NULL or an initialised lock that lives until the thread has ended.
 */
int remote_start_refresh_thread(pthread_rwlock_t *remote_lock);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Sets where images are, for nothing but the reference's own order of calls: images need no links.
 *
 * @param root_dir borrowed; the image directory
 * @return 0, or -1 with errno EINVAL (NULL or empty: all three places are forgotten), EILSEQ
 *
 * # Safety
 * `root_dir` must be NULL or a string.
 */
int remote_image_init(const char *root_dir);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Sets where records of layers are and makes `RO` (0700) there.
 *
 * @param root_dir borrowed; the directory of the records
 * @return 0, or -1 with errno EINVAL (NULL or empty: all three places are forgotten), EILSEQ, or what the system said
 *
 * # Safety
 * `root_dir` must be NULL or a string.
 */
int remote_layer_init(const char *root_dir);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Sets where the driver's data are and makes `RO` (0700) there.
 *
 * @param driver_home borrowed; the home of the overlay driver
 * @return 0, or -1 with errno EINVAL (NULL or empty: all three places are forgotten), EILSEQ, or what the system said
 *
 * # Safety
 * `driver_home` must be NULL or a string.
 */
int remote_overlay_init(const char *driver_home);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Forgets what remote_image_init, remote_layer_init and remote_overlay_init have set.
 */
void remote_maintain_cleanup(void);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Makes `RO/<id>` (0700) among the records and the link `<id>` to it.
 *
 * @param id borrowed; a layer id
 * @return 0, or -1 with errno EINVAL (NULL, bad id), EEXIST (the link's name is taken: nothing is changed), ENODEV
 * (remote_layer_init was not called), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int remote_layer_build_ro_dir(const char *id);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Makes `RO/<id>` (0700) among the driver's data and the link `<id>` to it.
 *
 * @param id borrowed; a layer id
 * @return 0, or -1 with errno EINVAL (NULL, bad id), EEXIST (the link's name is taken: nothing is changed), ENODEV
 * (remote_overlay_init was not called), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int remote_overlay_build_ro_dir(const char *id);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Removes the link `<id>` and `RO/<id>` with everything in it among the records.
 *
 * @param id borrowed; NULL or not there: nothing to do
 * @return 0, or -1 with errno EINVAL (bad id, or `<id>` is something else: nothing is changed), ENODEV
 * (remote_layer_init was not called), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int remote_layer_remove_ro_dir(const char *id);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Removes the link `<id>` and `RO/<id>` with everything in it among the driver's data.
 *
 * @param id borrowed; NULL or not there: nothing to do
 * @return 0, or -1 with errno EINVAL (bad id, or `<id>` is something else: nothing is changed), ENODEV
 * (remote_overlay_init was not called), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int remote_overlay_remove_ro_dir(const char *id);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Whether the data of a shared layer were whole at the last look.
 *
 * @param layer_id borrowed
 * @return false also with errno EINVAL (NULL, bad id), EILSEQ, ENODEV (no layer store is open)
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
bool remote_overlay_layer_valid(const char *layer_id);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Whether a shared layer is listed, and was there at the last look.
 *
 * @param layer_id borrowed
 * @return false also with errno EINVAL (NULL, bad id), EILSEQ, ENODEV (no layer store is open)
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
bool remote_layer_layer_valid(const char *layer_id);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Lists one layer that another host has made. From then on it is in lists as well, which the reference forgets.
 *
 * @param id borrowed
 * @return 0: listed, now or before; -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (it is not in the shared
 * directory), EBADMSG (it is not whole), EOPNOTSUPP (the store was opened without remote layers), ENODEV (not open)
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int remote_load_one_layer(const char *id);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Takes a shared layer out of memory; its files are left alone.
 *
 * @param id borrowed
 * @return 0, also when it is not listed; -1 with errno EINVAL (NULL, bad id, a layer of this host alone), EILSEQ, EBUSY
 * (something here stands on it, holds it or has it mounted: it stays), EOPNOTSUPP (the store was opened without remote
 * layers), ENODEV (not open)
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int remote_layer_remove_memory_stores_with_lock(const char *id);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Lists one image whose directory another host has made.
 *
 * @param image_dir borrowed; path of the image's directory, whose last part is its id
 * @return 0: listed, now or before; -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such directory), EBADMSG (it
 * is not whole, or not all of its layers are here), ENODEV (no image store is open)
 *
 * # Safety
 * `image_dir` must be NULL or a string.
 */
int remote_append_image_by_directory_with_lock(const char *image_dir);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Takes an image out of memory until the directory is read again; its files are left alone.
 *
 * @param id borrowed; the whole id
 * @return 0, also when it is not listed; -1 with errno EINVAL (NULL, bad id), EILSEQ, ENODEV (no image store is open)
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int remote_remove_image_from_memory_with_lock(const char *id);
#endif

#if defined(ENABLE_REMOTE_LAYER_STORE)
/**
 * Gives the top layer that an image's record on disk names, whether it is listed or not.
 *
 * @param img_id borrowed; the whole id
 * @return malloc'ed, freed with free(); NULL with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no record, or it names no
 * layer), EBADMSG (the record is damaged), ENODEV (no image store is open), ENOMEM
 *
 * # Safety
 * `img_id` must be NULL or a string.
 */
char *remote_image_get_top_layer_from_json(const char *img_id);
#endif

/**
 * Opens the process-wide rootfs store in `<storage_root>/<driver>-containers` and loads all records. Of each container
 * whose record is absent or does not parse, the clean-up function of the host is told; its record is put aside.
 *
 * @param opts borrowed; only storage_root and driver_name are read, both must be given and not be empty
 * @return 0, or -1 with errno EINVAL (NULL, unknown driver: the reference answers 0 and has no store), EEXIST (open
 * already), EBUSY (another process owns the store), EILSEQ (a text is not UTF-8), or what the system said
 *
 * # Safety
 * `opts` must be NULL or valid with the two members during the call.
 */
int rootfs_store_init(struct storage_module_init_options *opts);

/**
 * Closes the process-wide rootfs store; what is on disk stays. Closing twice is fine; rootfs_store_init works again.
 */
void rootfs_store_free(void);

/**
 * Makes the record of a container's root file system. Its layer is not looked at.
 *
 * @param id borrowed; one path component that does not start with a dot; NULL: 64 random hex digits
 * @param names borrowed; duplicates are dropped, the rest sorted; may be NULL if names_len is 0
 * @param names_len number of names
 * @param image borrowed; id of its image; may be NULL
 * @param layer borrowed; id of its writable layer
 * @param metadata borrowed; free text; may be NULL
 * @param rootfs_opts borrowed; only uid_map and gid_map and their lengths are read; may be NULL
 * @return its id, malloc'ed, freed with free(); NULL with errno EINVAL (bad id or layer, a name is NULL), EILSEQ, EEXIST
 * (the id, the layer or a name belongs to a container; nothing is touched), EBUSY (an interrupted change of the id or
 * the layer waits for storage_module_init to finish it), ENODEV (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or valid during the call.
 */
char *rootfs_store_create(const char *id,
                          const char **names,
                          size_t names_len,
                          const char *image,
                          const char *layer,
                          const char *metadata,
                          struct storage_rootfs_options *rootfs_opts);

/**
 * Gives the full id of a container.
 *
 * @param id borrowed; id, id of its layer, or unique short id of at least three hex digits, in this order; the same for
 * every `id` below
 * @return malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not
 * open)
 *
 * # Safety
 * `id` must be NULL or a string.
 */
char *rootfs_store_lookup(const char *id);

/**
 * Deletes the record of a container; its layer stays.
 *
 * @param id borrowed; as for rootfs_store_lookup
 * @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, ENODEV (not open), or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
int rootfs_store_delete(const char *id);

/**
 * Deletes all records; layers stay. Goes on after a failure.
 *
 * @return 0, or -1 with errno ENODEV (not open), or what the system said to the first that could not be deleted
 */
int rootfs_store_wipe(void);

/**
 * Sets the free text of a record.
 *
 * @param id borrowed; as for rootfs_store_lookup
 * @param metadata borrowed
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not open), or what the system
 * said; then the old text stays
 *
 * # Safety
 * Both must be NULL or strings.
 */
int rootfs_store_set_metadata(const char *id,
                              const char *metadata);

/**
 * Writes a record as it is given, in place of the one of its id, or as a new one; lookups see it at once.
 *
 * @param c borrowed; its record must have an id and a layer
 * @return 0, or -1 with errno EINVAL (NULL, no or bad id or layer), EILSEQ, EEXIST (its layer or a name belongs to
 * another container), ENODEV (not open), or what the system said
 *
 * # Safety
 * `c` must be NULL or valid with all its members during the call.
 */
int rootfs_store_save(cntrootfs_t *c);

/**
 * Whether a container's record exists.
 *
 * @param id borrowed; as for rootfs_store_lookup
 * @return true or false; false with errno EINVAL (NULL), EILSEQ, ENODEV (not open) if it could not be found out
 *
 * # Safety
 * `id` must be NULL or a string.
 */
bool rootfs_store_exists(const char *id);

/**
 * Gives the record of a container.
 *
 * @param id borrowed; as for rootfs_store_lookup
 * @return malloc'ed, freed with isula_storage_free_storage_rootfs or libisula's free_storage_rootfs; NULL with errno
 * EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `id` must be NULL or a string.
 */
storage_rootfs *rootfs_store_get_rootfs(const char *id);

/**
 * Gives all records, in order of creation.
 *
 * @param all_rootfs out; its members belong to the caller: isula_storage_clear_rootfs_list. Without records NULL and 0
 * @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `all_rootfs` must be NULL or writable; what it held is not freed.
 */
int rootfs_store_get_all_rootfs(struct rootfs_list *all_rootfs);

/**
 * Gives the directory in which the records are.
 *
 * @return malloc'ed, freed with free(); NULL with errno ENODEV (not open), EILSEQ (it is not UTF-8)
 */
char *rootfs_store_get_data_dir(void);

/**
 * Makes a counted record of a record, with one reference.
 *
 * @param scntr taken by the new struct; freed with it
 * @return malloc'ed, for rootfs_ref_dec or free_rootfs_t; NULL with errno EINVAL (NULL), ENOMEM; then scntr stays the
 * caller's
 *
 * # Safety
 * `scntr` must be NULL or malloc'ed with malloc'ed members.
 */
cntrootfs_t *new_rootfs(storage_rootfs *scntr);

/**
 * Adds a reference to a counted record.
 *
 * @param c borrowed; may be NULL
 *
 * # Safety
 * `c` must be NULL or a counted record that has a reference.
 */
void rootfs_ref_inc(cntrootfs_t *c);

/**
 * Drops a reference of a counted record; with the last one it is freed.
 *
 * @param c may be NULL; taken if it was the last reference
 *
 * # Safety
 * `c` must be NULL or a counted record that has a reference, which is not used afterwards.
 */
void rootfs_ref_dec(cntrootfs_t *c);

/**
 * Frees a counted record, whatever its references.
 *
 * @param ptr taken; may be NULL
 *
 * # Safety
 * `ptr` and its record must be malloc'ed with malloc'ed members, and not be used afterwards.
 */
void free_rootfs_t(cntrootfs_t *ptr);

/**
 * Opens the storage of this process: layers, images, containers, and what a start has to put right. From then on the
 * `layer_store_*`, `image_store_*` and `rootfs_store_*` functions work on the same stores.
 *
 * Nothing is deleted out of doubt: what cannot be used is put aside or not listed, and reported through the log. Of each
 * container whose record is absent or does not parse, the clean-up function of the host is told once all is open.
 *
 * @param opts borrowed; storage_root, storage_run_root and driver_name must be given and not be empty
 * @return 0, or -1 with errno EINVAL (NULL, unknown driver or option), EEXIST (the storage or one of its stores is open
 * already), EBUSY (another process owns it), EILSEQ (a text is not UTF-8), EOPNOTSUPP (the driver cannot work here), or
 * what the system said; after a failure nothing is open that was not before, and it can be tried again
 *
 * # Safety
 * `opts` must be NULL or valid with all its members during the call.
 */
int storage_module_init(struct storage_module_init_options *opts);

/**
 * Closes the storage of this process: waits for the calls that are under way in other threads, gives up driver and
 * locks. Layers stay mounted. Later calls fail with ENODEV until storage_module_init is called again; closing what is not
 * open is fine. Not to be called by a function that the library calls, which would wait for itself.
 */
void storage_module_exit(void);

/**
 * Frees options and all their members.
 *
 * @param opts taken; malloc'ed, as its members; NULL is fine
 *
 * # Safety
 * `opts` must be NULL or malloc'ed with malloc'ed members, and not be used afterwards.
 */
void free_storage_module_init_options(struct storage_module_init_options *opts);

/**
 * Gives the layers of which this is the compressed digest, from the process-wide layer store.
 *
 * @param digest borrowed; compared as text, with its `sha256:`
 * @return freed with free_layer_list; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (the layer
 * store is not open), ENOMEM
 *
 * The image store asks for the layers of images of schema 1 through this name and free_layer_list: a program may define
 * its own two, and they are used.
 *
 * # Safety
 * `digest` must be NULL or a string.
 */
struct layer_list *storage_layers_get_by_compress_digest(const char *digest);

/**
 * Makes an image record without names.
 *
 * @param id borrowed; one path component that does not start with a dot
 * @param parent_id borrowed; id of its top layer; may be NULL
 * @param metadata borrowed; free text; may be NULL
 * @param opts borrowed; create_time is when it was made (NULL, or neither seconds nor nanoseconds: now), digest the one
 * by which it is searched (may be NULL)
 * @return 0, or -1 with errno EINVAL (NULL, bad id, nanoseconds without seconds), EILSEQ, EEXIST (the id exists: compare
 * its top layer), ENODEV (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or valid during the call.
 */
int storage_img_create(const char *id,
                       const char *parent_id,
                       const char *metadata,
                       struct storage_img_create_options *opts);

/**
 * Gives an image with its config.
 *
 * @param img_id borrowed; id, short id of at least three hex digits, or name in any spelling
 * @return freed with isula_storage_free_imagetool_image; NULL with errno EINVAL (NULL, no image name), EILSEQ, ENOENT (no
 * such image, or it has no config), EUCLEAN (its config is damaged), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `img_id` must be NULL or a string.
 */
imagetool_image *storage_img_get(const char *img_id);

/**
 * Gives what lists show of an image.
 *
 * @param img_id borrowed; id, short id of at least three hex digits, or name in any spelling
 * @return freed with isula_storage_free_imagetool_image_summary; NULL with errno EINVAL (NULL, no image name), EILSEQ,
 * ENOENT (no such image), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `img_id` must be NULL or a string.
 */
imagetool_image_summary *storage_img_get_summary(const char *img_id);

/**
 * Stores text under a key.
 *
 * @param img_id borrowed
 * @param key borrowed; not empty, not `images.json`, `.` or `..`
 * @param val borrowed; up to its NUL
 * @return 0, or -1 with errno EINVAL (NULL, bad key), EILSEQ (img_id or key is not UTF-8), ENOENT (no such image), ENODEV
 * (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or strings.
 */
int storage_img_set_big_data(const char *img_id,
                             const char *key,
                             const char *val);

/**
 * Adds a name; if another image has it, it moves.
 *
 * @param img_id borrowed
 * @param img_name borrowed; stored as it is
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the system said
 *
 * # Safety
 * All pointers must be NULL or strings.
 */
int storage_img_add_name(const char *img_id,
                         const char *img_name);

/**
 * Deletes an image: its record first, then its layers from the top down, as far as nothing else uses them.
 *
 * @param img_id borrowed
 * @param commit ignored
 * @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, EBUSY (a container was made from it; people
 * are shown which), ENODEV (not open), or what the system said
 *
 * # Safety
 * `img_id` must be NULL or a string.
 */
int storage_img_delete(const char *img_id,
                       bool commit);

/**
 * Sets when an image was loaded.
 *
 * @param img_id borrowed
 * @param loaded_time borrowed; its seconds must be given
 * @return 0, or -1 with errno EINVAL (NULL, no seconds), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the
 * system said
 *
 * # Safety
 * `img_id` must be NULL or a string, `loaded_time` NULL or valid.
 */
int storage_img_set_loaded_time(const char *img_id,
                                types_timestamp_t *loaded_time);

/**
 * Gives the names of an image.
 *
 * @param img_id borrowed
 * @param names out; malloc'ed, freed with isula_storage_free_strings; NULL when there are none
 * @param names_len out; their number
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `img_id` must be NULL or a string, the others NULL or writable.
 */
int storage_img_get_names(const char *img_id, char ***names, size_t *names_len);

/**
 * Replaces the names of an image; names that other images have move.
 *
 * @param img_id borrowed
 * @param names borrowed; duplicates are dropped, the rest sorted
 * @param names_len number of names, not 0
 * @return 0, or -1 with errno EINVAL (NULL, no name), EILSEQ, ENOENT (no such image), ENODEV (not open), or what the
 * system said
 *
 * # Safety
 * All pointers must be NULL or valid during the call.
 */
int storage_img_set_names(const char *img_id,
                          const char **names,
                          size_t names_len);

/**
 * Sets an image's size: the sum of its big data and of all its layers.
 *
 * @param image_id borrowed
 * @return 0, or -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such image, it has no layer, or a layer is missing),
 * EUCLEAN (the size of a layer is not known), ENODEV (not open), or what the system said
 *
 * # Safety
 * `image_id` must be NULL or a string.
 */
int storage_img_set_image_size(const char *image_id);

/**
 * Gives the full id of an image.
 *
 * @param img_name borrowed
 * @return malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (none, or several), ENODEV (not
 * open)
 *
 * # Safety
 * `img_name` must be NULL or a string.
 */
char *storage_img_get_image_id(const char *img_name);

/**
 * Whether an image exists.
 *
 * @param image_or_id borrowed
 * @return true or false; false with errno EINVAL (NULL), EILSEQ, ENODEV (not open) if it could not be found out
 *
 * # Safety
 * `image_or_id` must be NULL or a string.
 */
bool storage_image_exist(const char *image_or_id);

/**
 * Gives the id of an image's top layer.
 *
 * @param id borrowed
 * @return malloc'ed, freed with free(); NULL if it has none (errno is not set then), or with errno EINVAL (NULL),
 * EILSEQ, ENOENT (no such image), ENODEV (not open)
 *
 * # Safety
 * `id` must be NULL or a string.
 */
char *storage_get_img_top_layer(const char *id);

/**
 * Gives the number of images.
 *
 * @return their number, or (size_t)-1 with errno ENODEV (not open)
 */
size_t storage_get_img_count(void);

/**
 * Gives what lists show of all images, in order of creation.
 *
 * @param images out; not written when there are no images; freed with isula_storage_clear_imagetool_images_list, or
 * isula_storage_free_imagetool_images_list if the struct itself is malloc'ed
 * @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM
 *
 * # Safety
 * `images` must be NULL or writable; what it held is not freed.
 */
int storage_get_all_images(imagetool_images_list *images);

/**
 * Gives what the image directory holds: records and big data, not layers.
 *
 * @param fs_info out; one element with the time in nanoseconds since 1970, the directory, its apparent size in bytes and
 * number of inodes; freed with isula_storage_clear_imagetool_fs_info
 * @return 0, or -1 with errno EINVAL (NULL), ENODEV (not open), ENOMEM, or what the system said
 *
 * # Safety
 * `fs_info` must be NULL or writable; what it held is not freed.
 */
int storage_get_images_fs_usage(imagetool_fs_info *fs_info);

/**
 * Makes a layer from an archive, or an empty one for a container. The new layer has one hold reference.
 *
 * @param layer_id borrowed; 1-255 bytes, one path component that does not start with a dot
 * @param opts borrowed; layer_data_path is a layer archive (tar, plain or compressed by gzip, zstd, bzip2 or xz) and must
 * be given unless the layer is writable; both digests, if given, are verified against it. Both may be that of the
 * compressed archive
 * @return 0: made, or a layer of this id existed and gained a hold reference (nothing is read or compared); -1 with errno
 * EINVAL (NULL, bad id or digest, no archive), EILSEQ (a text is not UTF-8), ENOENT (no such archive or parent), EBADMSG
 * (not an archive, truncated, or another digest), EFBIG (a limit), ENODEV (not open), or what the system said; nothing
 * remains then
 *
 * # Safety
 * All pointers must be NULL or valid during the call.
 */
int storage_layer_create(const char *layer_id,
                         storage_layer_create_opts_t *opts);

/**
 * Gives a layer.
 *
 * @param layer_id borrowed; an id or name, whole
 * @return the layer, freed with free_layer; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (there is none), ENODEV (not
 * open), ENOMEM
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
struct layer *storage_layer_get(const char *layer_id);

/**
 * Deletes a layer and those it stands on, from the top down, as far as no image, other layer or hold reference uses them.
 *
 * @param layer_id borrowed; an id, not a name
 * @return 0: done, also when the layer itself is in use; -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such
 * layer), ENODEV (not open), or what the system said
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
int storage_layer_chain_delete(const char *layer_id);

/**
 * Rebuilds what a layer stands on if it is broken.
 *
 * @param layer_id borrowed; an id or name
 * @param last_layer_id ignored
 * @return 0: in order or repaired; -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such layer), EUCLEAN (cannot be
 * repaired), ENODEV (not open), or what the system said
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
int storage_layer_try_repair_lowers(const char *layer_id,
                                    const char *last_layer_id);

/**
 * Adds a hold reference to a layer: no removal of an image deletes it. References live in memory only and are 0 after a
 * restart.
 *
 * @param layer_id borrowed; an id, not a name
 * @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open)
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
int storage_inc_hold_refs(const char *layer_id);

/**
 * Drops a hold reference of a layer. The count may become negative, as in the reference.
 *
 * @param layer_id borrowed; an id, not a name
 * @return 0, or -1 with errno EINVAL (NULL, bad id), EILSEQ, ENOENT (no such layer), ENODEV (not open)
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
int storage_dec_hold_refs(const char *layer_id);

/**
 * Whether a layer of a list stands on this one.
 *
 * @param layer_id borrowed
 * @param last_deleted_layer_id borrowed; a layer that does not count, NULL: all count
 * @param all_layers borrowed
 * @return true or false; false with errno EINVAL if layer_id or all_layers is NULL, EILSEQ if one is not UTF-8
 *
 * # Safety
 * All pointers must be NULL or valid during the call.
 */
bool is_parent_layer_of_other_layer(const char *layer_id,
                                    const char *last_deleted_layer_id,
                                    const struct layer_list *all_layers);

/**
 * Makes a container: a record, and a writable layer of the same id on top of the image's.
 *
 * @param container_id borrowed; 1-255 bytes, one path component that does not start with a dot
 * @param image borrowed; id, short id of at least three hex digits, or name in any spelling
 * @param mount_label borrowed; SELinux label; may be NULL
 * @param storage_opts borrowed; options of the layer such as `size`; may be NULL
 * @param mountpoint out, may be NULL; where the layer is or would be mounted, malloc'ed, freed with free()
 * @return 0, or -1 with errno EINVAL (NULL, bad id, no image name, bad option), EILSEQ, ENOENT (no such image), EEXIST (a
 * container of this id exists, or another layer: nothing is touched), EOPNOTSUPP (the driver cannot do what an option
 * asks for), ENODEV (not open), or what the system said; nothing of the container remains then
 *
 * # Safety
 * All pointers must be NULL or valid during the call.
 */
int storage_rootfs_create(const char *container_id,
                          const char *image,
                          const char *mount_label,
                          json_map_string_string *storage_opts,
                          char **mountpoint);

/**
 * Deletes a container with its layer; unmounts it first.
 *
 * @param container_id borrowed
 * @return 0: deleted, or there was none; -1 with errno EINVAL (NULL), EILSEQ, EBUSY (it cannot be unmounted), ENODEV (not
 * open), or what the system said: the container is still there then
 *
 * # Safety
 * `container_id` must be NULL or a string.
 */
int storage_rootfs_delete(const char *container_id);

/**
 * Mounts a container, counting.
 *
 * @param container_id borrowed
 * @return its root, malloc'ed, freed with free(); NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such container, or its
 * layer is missing), ENODEV (not open), or what the system said
 *
 * # Safety
 * `container_id` must be NULL or a string.
 */
char *storage_rootfs_mount(const char *container_id);

/**
 * Drops one mount of a container, or all of them.
 *
 * @param container_id borrowed
 * @param force drop all mounts, not one
 * @return 0: done, or there was nothing to do (no such container or layer, not mounted); -1 with errno EINVAL (NULL),
 * EILSEQ, ENODEV (not open), or what the system said
 *
 * # Safety
 * `container_id` must be NULL or a string.
 */
int storage_rootfs_umount(const char *container_id,
                          bool force);

/**
 * Gives what a container itself holds, without its image. (The name is iSulad's.)
 *
 * @param container_id borrowed
 * @param fs_info out; one element with the time in nanoseconds since 1970, the directory, its apparent size in bytes and
 * number of inodes; freed with isula_storage_clear_imagetool_fs_info
 * @return 0: given, or its layer is missing and nothing was written; -1 with errno EINVAL (NULL), EILSEQ, ENOENT (no such
 * container), ENODEV (not open), ENOMEM, or what the system said
 *
 * # Safety
 * `container_id` must be NULL or a string, `fs_info` NULL or writable; what it held is not freed.
 */
int storage_rootfs_fs_usgae(const char *container_id,
                            imagetool_fs_info *fs_info);

/**
 * Gives the directory of the containers' records.
 *
 * @return malloc'ed, freed with free(); NULL with errno ENODEV (not open), ENOMEM
 */
char *storage_rootfs_get_dir(void);

/**
 * Gives where a container's content is.
 *
 * @param id borrowed; as container_id
 * @return freed with isula_storage_free_graph_driver; NULL with errno EINVAL (NULL), EILSEQ, ENOENT (no such container, or
 * its layer is missing), ENODEV (not open), ENOMEM, or what the system said
 *
 * # Safety
 * `id` must be NULL or a string.
 */
container_inspect_graph_driver *storage_get_metadata_by_container_id(const char *id);

/**
 * Takes the layer of a container whose record is broken out of the storage. It is not deleted: record and data go into
 * quarantine and can be restored.
 *
 * @param layer_id borrowed; the id of the container
 * @return 0, or -1 with errno EINVAL (NULL, no container's layer), EILSEQ, ENOENT (no such layer), EBUSY (a container has
 * it, or it cannot be unmounted), ENODEV (not open), or what the system said
 *
 * # Safety
 * `layer_id` must be NULL or a string.
 */
int storage_broken_rw_layer_delete(const char *layer_id);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#if !defined(__cplusplus)
#undef delete_
#endif

#endif /* ISULA_STORAGE_H */
