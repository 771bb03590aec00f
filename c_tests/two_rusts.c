/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Two libraries in one program that are both made of Rust: each catches its own panics and has its own threads. */

#include "test.h"

int other_rust(int count);

int main(void)
{
    CHECK(other_rust(3) == 1);
    FAILS(layer_store_delete(NULL) == -1, EINVAL);
    CHECK(other_rust(0) == 1);
    CHECK(test_same(isula_storage_last_error(), "layer_store_delete: id is NULL"));
    return DONE();
}
