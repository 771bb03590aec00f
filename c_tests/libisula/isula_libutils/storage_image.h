/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_STORAGE_IMAGE_H
#define STUB_STORAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isula_libutils/json_common.h"

typedef struct {
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
    json_map_string_int64 *big_data_sizes;
    json_map_string_string *big_data_digests;
    char *created;
    char *loaded;
    uint64_t size;
    yajl_val _residual;
} storage_image;

#endif
