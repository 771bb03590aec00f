/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A second unit with the header: it defines nothing that could collide. */

#include "isula_storage.h"

size_t other_unit_size(void);

size_t other_unit_size(void)
{
    return sizeof(image_store_t);
}
