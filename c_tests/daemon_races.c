/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Linked into the library that is built for the checker of races: what the compiler of Rust asks of the run-time library
 * of ThreadSanitizer, and the one of gcc has otherwise or not. */

#include <stdint.h>
#include <string.h>

enum { ACQUIRE_RELEASE = 4 };

void *__tsan_memcpy(void *to, const void *from, size_t len);
void *__tsan_memmove(void *to, const void *from, size_t len);
void *__tsan_memset(void *to, int byte, size_t len);
int64_t __tsan_atomic64_fetch_add(volatile int64_t *place, int64_t value, int order);
int64_t __tsan_atomic64_fetch_sub(volatile int64_t *place, int64_t value, int order);

/* Missing there; the plain ones are watched, too. */
void *__tsan_memcpy(void *to, const void *from, size_t len)
{
    return memcpy(to, from, len);
}

void *__tsan_memmove(void *to, const void *from, size_t len)
{
    return memmove(to, from, len);
}

void *__tsan_memset(void *to, int byte, size_t len)
{
    return memset(to, byte, len);
}

/* The last owner of a counted value sees what the others did by a fence behind its subtraction, and ThreadSanitizer knows
 * no fences. Here the subtraction itself orders. */
int64_t __tsan_atomic64_fetch_sub(volatile int64_t *place, int64_t value, int order)
{
    (void)order;
    return __tsan_atomic64_fetch_add(place, -value, ACQUIRE_RELEASE);
}
