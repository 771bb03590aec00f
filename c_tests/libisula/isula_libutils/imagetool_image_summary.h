/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_IMAGETOOL_IMAGE_SUMMARY_H
#define STUB_IMAGETOOL_IMAGE_SUMMARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isula_libutils/json_common.h"

typedef struct {
    int64_t value;
    yajl_val _residual;
} imagetool_image_summary_uid;

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
    imagetool_image_summary_uid *uid;
    char *username;
    json_map_string_string *labels;
    yajl_val _residual;
} imagetool_image_summary;

#endif
