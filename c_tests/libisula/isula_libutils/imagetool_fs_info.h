/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_IMAGETOOL_FS_INFO_H
#define STUB_IMAGETOOL_FS_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isula_libutils/json_common.h"

typedef struct {
    char *mountpoint;
    yajl_val _residual;
} imagetool_fs_info_image_filesystems_fs_id;

typedef struct {
    uint64_t value;
    yajl_val _residual;
} imagetool_fs_info_image_filesystems_used_bytes;

typedef struct {
    uint64_t value;
    yajl_val _residual;
} imagetool_fs_info_image_filesystems_inodes_used;

typedef struct {
    int64_t timestamp;
    imagetool_fs_info_image_filesystems_fs_id *fs_id;
    imagetool_fs_info_image_filesystems_used_bytes *used_bytes;
    imagetool_fs_info_image_filesystems_inodes_used *inodes_used;
} imagetool_fs_info_image_filesystems_element;

typedef struct {
    imagetool_fs_info_image_filesystems_element **image_filesystems;
    size_t image_filesystems_len;
    yajl_val _residual;
} imagetool_fs_info;

#endif
