/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_OCI_IMAGE_SPEC_H
#define STUB_OCI_IMAGE_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isula_libutils/json_common.h"
#include "isula_libutils/defs.h"

typedef struct {
    char *user;
    defs_map_string_object *exposed_ports;
    char **env;
    size_t env_len;
    char **entrypoint;
    size_t entrypoint_len;
    char **cmd;
    size_t cmd_len;
    defs_map_string_object *volumes;
    char *working_dir;
    json_map_string_string *labels;
    char *stop_signal;
    defs_health_check *healthcheck;
    yajl_val _residual;
} oci_image_spec_config;

typedef struct {
    char **diff_ids;
    size_t diff_ids_len;
    char *type;
    yajl_val _residual;
} oci_image_spec_rootfs;

typedef struct {
    char *created;
    char *author;
    char *created_by;
    char *comment;
    bool empty_layer;
} oci_image_spec_history_element;

typedef struct {
    char *created;
    char *author;
    char *architecture;
    char *os;
    oci_image_spec_config *config;
    oci_image_spec_rootfs *rootfs;
    oci_image_spec_history_element **history;
    size_t history_len;
    yajl_val _residual;
} oci_image_spec;

#endif
