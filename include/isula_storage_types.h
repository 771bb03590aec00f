/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Types of libisula and iSulad that the interface of isula-storage uses. Included by isula_storage.h.
 *
 * ISULA_STORAGE_USE_LIBISULA   the program includes libisula's own headers first: its types are left out
 * ISULA_STORAGE_USE_ISULAD     the program includes iSulad's utils_timestamp.h and io_wrapper.h first: theirs are left out
 *
 * Generated from src/ffi by the build script: change that and run `make header`.
 */

#ifndef ISULA_STORAGE_TYPES_H
#define ISULA_STORAGE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if !defined(ISULA_STORAGE_USE_LIBISULA)

/**
 * A tree of JSON values of libisula; this library neither makes nor reads one.
 */
typedef struct yajl_val_s yajl_val_s;

/**
 * A tree of JSON values, or NULL.
 */
typedef struct yajl_val_s *yajl_val;

/**
 * Paths and devices; NULL where the driver has none.
 */
typedef struct container_inspect_graph_driver_data {
    char *lower_dir;
    char *merged_dir;
    char *upper_dir;
    char *work_dir;
    char *device_id;
    char *device_name;
    char *device_size;
    yajl_val _residual;
} container_inspect_graph_driver_data;

/**
 * Where a layer's content is.
 */
typedef struct container_inspect_graph_driver {
    struct container_inspect_graph_driver_data *data;
    char *name;
    yajl_val _residual;
} container_inspect_graph_driver;

/**
 * How to find out whether a container is healthy.
 */
typedef struct defs_health_check {
    char **test;
    size_t test_len;
    int64_t interval;
    int64_t timeout;
    int64_t start_period;
    int retries;
    bool exit_on_unhealthy;
    yajl_val _residual;
} defs_health_check;

/**
 * A value that holds nothing.
 */
typedef struct defs_map_string_object_element {
    char unuseful;
} defs_map_string_object_element;

/**
 * A set of texts: a map whose values hold nothing.
 */
typedef struct defs_map_string_object {
    char **keys;
    struct defs_map_string_object_element **values;
    size_t len;
} defs_map_string_object;

/**
 * Where it is.
 */
typedef struct imagetool_fs_info_image_filesystems_fs_id {
    char *mountpoint;
    yajl_val _residual;
} imagetool_fs_info_image_filesystems_fs_id;

/**
 * A number of bytes.
 */
typedef struct imagetool_fs_info_image_filesystems_used_bytes {
    uint64_t value;
    yajl_val _residual;
} imagetool_fs_info_image_filesystems_used_bytes;

/**
 * A number of inodes.
 */
typedef struct imagetool_fs_info_image_filesystems_inodes_used {
    uint64_t value;
    yajl_val _residual;
} imagetool_fs_info_image_filesystems_inodes_used;

/**
 * Usage of one file system or directory.
 */
typedef struct imagetool_fs_info_image_filesystems_element {
    int64_t timestamp;
    struct imagetool_fs_info_image_filesystems_fs_id *fs_id;
    struct imagetool_fs_info_image_filesystems_used_bytes *used_bytes;
    struct imagetool_fs_info_image_filesystems_inodes_used *inodes_used;
} imagetool_fs_info_image_filesystems_element;

/**
 * Usage of file systems.
 */
typedef struct imagetool_fs_info {
    struct imagetool_fs_info_image_filesystems_element **image_filesystems;
    size_t image_filesystems_len;
    yajl_val _residual;
} imagetool_fs_info;

/**
 * A numeric user.
 */
typedef struct imagetool_image_uid {
    int64_t value;
    yajl_val _residual;
} imagetool_image_uid;

/**
 * Text to text, in the order of insertion.
 */
typedef struct json_map_string_string {
    char **keys;
    char **values;
    size_t len;
} json_map_string_string;

/**
 * What a container of the image runs.
 */
typedef struct oci_image_spec_config {
    char *user;
    struct defs_map_string_object *exposed_ports;
    char **env;
    size_t env_len;
    char **entrypoint;
    size_t entrypoint_len;
    char **cmd;
    size_t cmd_len;
    struct defs_map_string_object *volumes;
    char *working_dir;
    struct json_map_string_string *labels;
    char *stop_signal;
    struct defs_health_check *healthcheck;
    yajl_val _residual;
} oci_image_spec_config;

/**
 * Layers of an image.
 */
typedef struct oci_image_spec_rootfs {
    char **diff_ids;
    size_t diff_ids_len;
    char *type;
    yajl_val _residual;
} oci_image_spec_rootfs;

/**
 * One step of how an image was made.
 */
typedef struct oci_image_spec_history_element {
    char *created;
    char *author;
    char *created_by;
    char *comment;
    bool empty_layer;
} oci_image_spec_history_element;

/**
 * An image's config.
 */
typedef struct oci_image_spec {
    char *created;
    char *author;
    char *architecture;
    char *os;
    struct oci_image_spec_config *config;
    struct oci_image_spec_rootfs *rootfs;
    struct oci_image_spec_history_element **history;
    size_t history_len;
    yajl_val _residual;
} oci_image_spec;

/**
 * An image with its config.
 */
typedef struct imagetool_image {
    char *id;
    char **repo_tags;
    size_t repo_tags_len;
    char **repo_digests;
    size_t repo_digests_len;
    char *top_layer;
    uint64_t size;
    char *created;
    char *loaded;
    struct imagetool_image_uid *uid;
    char *username;
    struct oci_image_spec *spec;
    struct defs_health_check *healthcheck;
    yajl_val _residual;
} imagetool_image;

/**
 * A numeric user.
 */
typedef struct imagetool_image_summary_uid {
    int64_t value;
    yajl_val _residual;
} imagetool_image_summary_uid;

/**
 * An image as lists show it.
 */
typedef struct imagetool_image_summary {
    char *id;
    char **repo_tags;
    size_t repo_tags_len;
    char **repo_digests;
    size_t repo_digests_len;
    char *top_layer;
    uint64_t size;
    char *created;
    char *loaded;
    struct imagetool_image_summary_uid *uid;
    char *username;
    struct json_map_string_string *labels;
    yajl_val _residual;
} imagetool_image_summary;

/**
 * Images as lists show them.
 */
typedef struct imagetool_images_list {
    struct imagetool_image_summary **images;
    size_t images_len;
    yajl_val _residual;
} imagetool_images_list;

/**
 * Text to number, in the order of insertion.
 */
typedef struct json_map_string_int64 {
    char **keys;
    int64_t *values;
    size_t len;
} json_map_string_int64;

/**
 * Record of an image.
 */
typedef struct storage_image {
    char *id;
    char *digest;
    char **names;
    size_t names_len;
    char *layer;
    char **mapped_layers;
    size_t mapped_layers_len;
    char *metadata;
    char **big_data_names;
    size_t big_data_names_len;
    struct json_map_string_int64 *big_data_sizes;
    struct json_map_string_string *big_data_digests;
    char *created;
    char *loaded;
    uint64_t size;
    yajl_val _residual;
} storage_image;

/**
 * A range of user ids.
 */
typedef struct storage_rootfs_uidmap_element {
    int container_id;
    int host_id;
    int size;
} storage_rootfs_uidmap_element;

/**
 * A range of group ids.
 */
typedef struct storage_rootfs_gidmap_element {
    int container_id;
    int host_id;
    int size;
} storage_rootfs_gidmap_element;

/**
 * Record of a container's root file system.
 */
typedef struct storage_rootfs {
    char *id;
    char **names;
    size_t names_len;
    char *image;
    char *layer;
    char *metadata;
    char *created;
    struct storage_rootfs_uidmap_element **uidmap;
    size_t uidmap_len;
    struct storage_rootfs_gidmap_element **gidmap;
    size_t gidmap_len;
    yajl_val _residual;
} storage_rootfs;

#endif /* ISULA_STORAGE_USE_LIBISULA */

#if !defined(ISULA_STORAGE_USE_ISULAD)

/**
 * A point in time.
 */
struct types_timestamp {
    /**
     * Whether `seconds` holds anything.
     */
    bool has_seconds;
    /**
     * Seconds since 1970-01-01T00:00:00Z.
     */
    int64_t seconds;
    /**
     * Whether `nanos` holds anything.
     */
    bool has_nanos;
    /**
     * Nanoseconds within the second, 0 to 999,999,999.
     */
    int32_t nanos;
};

/**
 * A point in time, under iSulad's name.
 */
typedef struct types_timestamp types_timestamp_t;

/**
 * Reads up to `len` bytes into `buf`: their number, 0 at the end, -1 on failure.
 */
typedef ssize_t (*io_read_func_t)(void *context, void *buf, size_t len);

/**
 * Ends a stream: 0, or -1 and a malloc'ed text in `err`.
 */
typedef int (*io_close_func_t)(void *context, char **err);

/**
 * A stream to read from.
 */
struct io_read_wrapper {
    /**
     * Handed to the functions.
     */
    void *context;
    /**
     * Reads.
     */
    io_read_func_t read;
    /**
     * Ends the stream; the layer store never calls it.
     */
    io_close_func_t close;
    /**
     * For the caller.
     */
    int io_type;
};

/**
 * Writes up to `len` bytes: their number, or -1 on failure.
 */
typedef ssize_t (*io_write_func_t)(void *context, const void *data, size_t len);

/**
 * A stream to write to.
 */
struct io_write_wrapper {
    /**
     * Handed to the functions.
     */
    void *context;
    /**
     * Writes.
     */
    io_write_func_t write_func;
    /**
     * Ends the stream.
     */
    io_close_func_t close_func;
    /**
     * For the caller.
     */
    int io_type;
};

#endif /* ISULA_STORAGE_USE_ISULAD */

#endif /* ISULA_STORAGE_TYPES_H */
