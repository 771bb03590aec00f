/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_STORAGE_ROOTFS_H
#define STUB_STORAGE_ROOTFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isula_libutils/json_common.h"

typedef struct {
    int container_id;
    int host_id;
    int size;
} storage_rootfs_uidmap_element;

typedef struct {
    int container_id;
    int host_id;
    int size;
} storage_rootfs_gidmap_element;

typedef struct {
    char *id;
    char **names;
    size_t names_len;
    char *image;
    char *layer;
    char *metadata;
    char *created;
    storage_rootfs_uidmap_element **uidmap;
    size_t uidmap_len;
    storage_rootfs_gidmap_element **gidmap;
    size_t gidmap_len;
    yajl_val _residual;
} storage_rootfs;

#endif
