/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_IMAGETOOL_IMAGE_H
#define STUB_IMAGETOOL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isula_libutils/json_common.h"
#include "isula_libutils/defs.h"
#include "isula_libutils/oci_image_spec.h"

typedef struct {
    int64_t value;
    yajl_val _residual;
} imagetool_image_uid;

typedef struct {
    char *id;
    char **repo_tags;
    size_t repo_tags_len;
    char **repo_digests;
    size_t repo_digests_len;
    char *top_layer;
    uint64_t size;
    char *created;
    char *loaded;
    imagetool_image_uid *uid;
    char *username;
    oci_image_spec *spec;
    defs_health_check *healthcheck;
    yajl_val _residual;
} imagetool_image;

#endif
