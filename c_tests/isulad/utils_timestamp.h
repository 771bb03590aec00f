/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for iSulad's header of this name. */

#ifndef STUB_UTILS_TIMESTAMP_H
#define STUB_UTILS_TIMESTAMP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct types_timestamp {
    bool has_seconds;
    int64_t seconds;
    bool has_nanos;
    int32_t nanos;
} types_timestamp_t;

#endif
