/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Stands in for iSulad's header of this name. */

#ifndef STUB_IO_WRAPPER_H
#define STUB_IO_WRAPPER_H

#include <stddef.h>
#include <sys/types.h>

typedef ssize_t (*io_write_func_t)(void *context, const void *data, size_t len);
typedef int (*io_close_func_t)(void *context, char **err);
typedef ssize_t (*io_read_func_t)(void *context, void *buf, size_t len);

struct io_write_wrapper {
    void *context;
    io_write_func_t write_func;
    io_close_func_t close_func;
    int io_type;
};

struct io_read_wrapper {
    void *context;
    io_read_func_t read;
    io_close_func_t close;
    int io_type;
};

#endif
