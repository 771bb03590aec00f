// SPDX-License-Identifier: MulanPSL-2.0
// The header in C++: it compiles, links, and the member that is a keyword there goes by another name.

#include "isula_storage.h"
#include "isula_storage.h"

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>

static_assert(sizeof(image_store_t) == 176, "size of image_store_t");
static_assert(offsetof(image_store_t, delete_) == 16, "offset of delete_");
static_assert(sizeof(storage_image) == 128, "size of storage_image");

int main(int argc, char **argv)
{
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s DIR\n", argv[0]);
        return 2;
    }
    image_store_t store = {};
    const std::string dir = std::string(argv[1]) + "/images";
    if (new_image_store(true, false, dir.c_str(), &store) != 0) {
        std::fprintf(stderr, "%s\n", isula_storage_last_error());
        return 1;
    }
    const bool absent_is_fine = store.delete_("absent", &store) == 0;
    free_image_store(&store);
    const bool closed = layer_store_lookup("absent") == nullptr && errno == ENODEV;
    return absent_is_fine && closed ? 0 : 1;
}
