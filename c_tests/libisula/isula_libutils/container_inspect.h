/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_CONTAINER_INSPECT_H
#define STUB_CONTAINER_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isula_libutils/json_common.h"

typedef struct {
    char *lower_dir;
    char *merged_dir;
    char *upper_dir;
    char *work_dir;
    char *device_id;
    char *device_name;
    char *device_size;
    yajl_val _residual;
} container_inspect_graph_driver_data;

typedef struct {
    container_inspect_graph_driver_data *data;
    char *name;
    yajl_val _residual;
} container_inspect_graph_driver;

#endif
