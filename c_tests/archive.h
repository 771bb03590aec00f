/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A small ustar archive in memory, and a stream over memory. */

#ifndef ISULA_STORAGE_C_TESTS_ARCHIVE_H
#define ISULA_STORAGE_C_TESTS_ARCHIVE_H

#include <string.h>

#include "isula_storage.h"

#define ARCHIVE_BLOCK 512
#define ARCHIVE_CAPACITY (64 * ARCHIVE_BLOCK)

struct archive {
    char bytes[ARCHIVE_CAPACITY];
    size_t len;
};

/* Octal digits with a NUL behind them. */
static inline void archive_octal(char *field, size_t digits, unsigned long value)
{
    field[digits] = '\0';
    while (digits-- > 0) {
        field[digits] = (char)('0' + (value & 7));
        value >>= 3;
    }
}

/* Adds a file, or a directory when `content` is NULL. */
static inline void archive_add(struct archive *archive, const char *name, const char *content)
{
    char *header = archive->bytes + archive->len;
    size_t size = content == NULL ? 0 : strlen(content);
    unsigned long sum = 0;

    memset(header, 0, ARCHIVE_BLOCK);
    strncpy(header, name, 99);
    archive_octal(header + 100, 7, content == NULL ? 0755 : 0644);
    archive_octal(header + 108, 7, 0);
    archive_octal(header + 116, 7, 0);
    archive_octal(header + 124, 11, size);
    archive_octal(header + 136, 11, 1600000000);
    memset(header + 148, ' ', 8);
    header[156] = content == NULL ? '5' : '0';
    memcpy(header + 257, "ustar\0" "00", 8);
    for (size_t i = 0; i < ARCHIVE_BLOCK; i++) {
        sum += (unsigned char)header[i];
    }
    archive_octal(header + 148, 6, sum);
    header[155] = ' ';
    archive->len += ARCHIVE_BLOCK;
    if (size > 0) {
        memset(archive->bytes + archive->len, 0, ARCHIVE_BLOCK);
        memcpy(archive->bytes + archive->len, content, size);
        archive->len += (size + ARCHIVE_BLOCK - 1) / ARCHIVE_BLOCK * ARCHIVE_BLOCK;
    }
}

/* The two empty blocks at the end. */
static inline void archive_end(struct archive *archive)
{
    memset(archive->bytes + archive->len, 0, 2 * ARCHIVE_BLOCK);
    archive->len += 2 * ARCHIVE_BLOCK;
}

/* A stream over memory that hands out at most `step` bytes at a time, and fails at `fail_at` if that is not 0. */
struct memory_stream {
    const char *bytes;
    size_t len;
    size_t step;
    size_t fail_at;
    size_t position;
    int closed;
};

static inline ssize_t memory_read(void *context, void *buf, size_t len)
{
    struct memory_stream *stream = context;
    size_t rest = stream->len - stream->position;

    if (stream->fail_at != 0 && stream->position >= stream->fail_at) {
        return -1;
    }
    if (len > rest) {
        len = rest;
    }
    if (stream->step != 0 && len > stream->step) {
        len = stream->step;
    }
    memcpy(buf, stream->bytes + stream->position, len);
    stream->position += len;
    return (ssize_t)len;
}

static inline int memory_close(void *context, char **err)
{
    struct memory_stream *stream = context;

    (void)err;
    stream->closed = 1;
    return 0;
}

#endif
