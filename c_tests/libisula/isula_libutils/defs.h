/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_DEFS_H
#define STUB_DEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isula_libutils/json_common.h"

typedef struct {
    char unuseful;
} defs_map_string_object_element;

typedef struct {
    char **keys;
    defs_map_string_object_element **values;
    size_t len;
} defs_map_string_object;

typedef struct {
    char **test;
    size_t test_len;
    int64_t interval;
    int64_t timeout;
    int64_t start_period;
    int retries;
    bool exit_on_unhealthy;
    yajl_val _residual;
} defs_health_check;

#endif
