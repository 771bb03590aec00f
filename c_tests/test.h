/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What every test program uses: checks that go on after a failure, a layer archive in memory, text that is not UTF-8. */

#ifndef ISULA_STORAGE_C_TESTS_TEST_H
#define ISULA_STORAGE_C_TESTS_TEST_H

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isula_storage.h"

static int test_failures;

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            const char *test_last = isula_storage_last_error();                                   \
            fprintf(stderr, "%s:%d: failed: %s (errno %d; last error: %s)\n", __FILE__, __LINE__, \
                    #condition, errno, test_last == NULL ? "none" : test_last);                   \
            test_failures++;                                                                      \
        }                                                                                         \
    } while (0)

/* The call fails with this errno, and leaves a text. */
#define FAILS(condition, code)                         \
    do {                                               \
        errno = 0;                                     \
        CHECK(condition);                              \
        CHECK(errno == (code));                        \
        CHECK(isula_storage_last_error() != NULL);     \
    } while (0)

/* The call succeeds and leaves errno alone. */
#define WORKS(condition)         \
    do {                         \
        errno = ENOTTY;          \
        CHECK(condition);        \
        CHECK(errno == ENOTTY);  \
    } while (0)

#define DONE() (test_failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE)

/* Text that is not UTF-8. */
#define NOT_UTF8 "\xff\xfe"

/* 64 hexadecimal digits. */
#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define ID_C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define ID_ABSENT "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

static inline int test_same(const char *left, const char *right)
{
    return left == right || (left != NULL && right != NULL && strcmp(left, right) == 0);
}

#endif
