/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_JSON_COMMON_H
#define STUB_JSON_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct yajl_val_s;
typedef struct yajl_val_s *yajl_val;

typedef struct {
    char **keys;
    char **values;
    size_t len;
} json_map_string_string;

typedef struct {
    char **keys;
    int64_t *values;
    size_t len;
} json_map_string_int64;

#endif
