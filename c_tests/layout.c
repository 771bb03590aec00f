/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The layout of every struct: the header against the list (when this is compiled), and the header against the built
 * library (when this runs). Compiled once more beside the types of libisula and iSulad.
 */

#if defined(ISULA_STORAGE_USE_LIBISULA)
#include "isula_libutils/container_inspect.h"
#include "isula_libutils/imagetool_fs_info.h"
#include "isula_libutils/imagetool_image.h"
#include "isula_libutils/imagetool_images_list.h"
#include "isula_libutils/json_common.h"
#include "isula_libutils/oci_image_spec.h"
#include "isula_libutils/storage_image.h"
#include "isula_libutils/storage_rootfs.h"
#endif

#if defined(ISULA_STORAGE_USE_ISULAD)
#include "io_wrapper.h"
#include "utils_timestamp.h"
#endif

#include "test.h"

#include <stddef.h>

#define STRUCT(rust, name, size) _Static_assert(sizeof(name) == (size), "size of " #name);
#define FIELD(rust, name, field, offset, ...)                                               \
    _Static_assert(offsetof(name, field) == (offset), "offset of " #name "." #field);       \
    _Static_assert(_Generic(((name *)0)->field, __VA_ARGS__: 1, default: 0), "type of " #name "." #field);
#include "layout.def"
#undef STRUCT
#undef FIELD

#define STRUCT(rust, name, size) { #name, NULL, 0, sizeof(name) },
#define FIELD(rust, name, field, offset, ...) \
    { #name, #field, offsetof(name, field), sizeof(((name *)0)->field) },
static const struct isula_storage_layout_entry header[] = {
#include "layout.def"
};

int main(void)
{
    size_t len = 0;
    const struct isula_storage_layout_entry *library = isula_storage_abi_layout(&len);

    CHECK(library != NULL);
    CHECK(len == sizeof(header) / sizeof(header[0]));
    for (size_t i = 0; i < len && i < sizeof(header) / sizeof(header[0]); i++) {
        CHECK(test_same(library[i].structure, header[i].structure));
        CHECK(test_same(library[i].field, header[i].field));
        CHECK(library[i].offset == header[i].offset);
        CHECK(library[i].size == header[i].size);
        if (test_failures != 0) {
            fprintf(stderr, "first difference: %s.%s\n", header[i].structure,
                    header[i].field == NULL ? "" : header[i].field);
            break;
        }
    }
    FAILS(isula_storage_abi_layout(NULL) == NULL, EINVAL);
    return DONE();
}
