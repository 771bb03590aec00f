/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for libisula's header of this name: types without tags, as libisula's generator makes them. */

#ifndef STUB_IMAGETOOL_IMAGES_LIST_H
#define STUB_IMAGETOOL_IMAGES_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isula_libutils/imagetool_image_summary.h"

typedef struct {
    imagetool_image_summary **images;
    size_t images_len;
    yajl_val _residual;
} imagetool_images_list;

#endif
