#!/usr/bin/env python3
# SPDX-License-Identifier: MulanPSL-2.0
"""The library from Python, without a compiler: makes an image, mounts it, lists it, and finds it again.

usage: dlopen.py LIBRARY ROOT RUN_ROOT DRIVER IMAGE_ID NAME CONFIG MANIFEST LAYER_ID=DIFF_ID=TAR...

LIBRARY is a path of libisula_storage.so; the others are as for engine.c.
"""

import atexit
import ctypes
import os
import sys
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_size_t, c_ssize_t, c_void_p

READ = ctypes.CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, c_size_t)


class InitOptions(ctypes.Structure):
    """struct storage_module_init_options, with room for the members of a build for remote layers."""

    _fields_ = [
        ("storage_run_root", c_char_p), ("storage_root", c_char_p), ("driver_name", c_char_p),
        ("driver_opts", c_void_p), ("driver_opts_len", c_size_t), ("integration_check", c_bool),
        ("reserved", c_void_p * 2),
    ]


class LayerOpts(ctypes.Structure):
    """struct layer_opts"""

    _fields_ = [
        ("parent", c_char_p), ("names", c_void_p), ("names_len", c_size_t), ("writable", c_bool),
        ("uncompressed_digest", c_char_p), ("compressed_digest", c_char_p), ("opts", c_void_p),
    ]


class ReadWrapper(ctypes.Structure):
    """struct io_read_wrapper"""

    _fields_ = [("context", c_void_p), ("read", READ), ("close", c_void_p), ("io_type", c_int)]


def open_library(path):
    """Loads the library and declares what is used of it."""
    library = ctypes.CDLL(path)
    library.isula_storage_version.restype = c_char_p
    library.isula_storage_last_error.restype = c_char_p
    library.isula_storage_free_string.argtypes = [c_void_p]
    library.layer_store_create.argtypes = [c_char_p, POINTER(LayerOpts), POINTER(ReadWrapper), c_void_p]
    library.layer_store_mount.restype = c_void_p
    library.layer_store_umount.argtypes = [c_char_p, c_bool]
    library.image_store_create.restype = c_void_p
    library.image_store_create.argtypes = [
        c_char_p, POINTER(c_char_p), c_size_t, c_char_p, c_char_p, c_void_p, c_char_p]
    library.image_store_exists.restype = c_bool
    library.image_store_lookup.restype = c_void_p
    return library


class Engine:
    """The few calls of this example; a failure becomes an exception with the library's text."""

    def __init__(self, path, root, run_root, driver):
        self.library = open_library(path)
        self.options = InitOptions(os.fsencode(run_root), os.fsencode(root), driver.encode())

    def check(self, succeeded):
        if not succeeded:
            raise RuntimeError(self.library.isula_storage_last_error().decode())

    def take(self, pointer):
        """Copies a malloc'ed text and frees it."""
        self.check(pointer)
        text = ctypes.string_at(pointer).decode()
        self.library.isula_storage_free_string(pointer)
        return text

    def open(self):
        self.check(self.library.layer_store_init(byref(self.options)) == 0)
        self.check(self.library.image_store_init(byref(self.options)) == 0)

    def close(self):
        self.library.image_store_free()
        self.library.layer_store_exit()

    def make_layer(self, layer, diff_id, path, parent):
        with open(path, "rb") as file:
            def read(_context, buffer, length):
                data = file.read(length)
                ctypes.memmove(buffer, data, len(data))
                return len(data)

            content = ReadWrapper(None, READ(read), None, 0)
            opts = LayerOpts(parent=parent and parent.encode(), uncompressed_digest=f"sha256:{diff_id}".encode())
            self.check(self.library.layer_store_create(layer.encode(), byref(opts), byref(content), None) == 0)

    def make_image(self, image, name, top_layer, config, manifest):
        if not self.library.image_store_exists(image.encode()):
            names = (c_char_p * 1)(name.encode())
            self.take(self.library.image_store_create(image.encode(), names, 1, top_layer.encode(), None, None, None))
        for key, path in ((f"sha256:{image}", config), ("manifest", manifest)):
            with open(path, "rb") as file:
                self.check(self.library.image_store_set_big_data(image.encode(), key.encode(), file.read()) == 0)

    def list_root(self, layer):
        root = self.take(self.library.layer_store_mount(layer.encode()))
        try:
            return sorted(os.listdir(root))
        finally:
            self.check(self.library.layer_store_umount(layer.encode(), False) == 0)


def main(arguments):
    if len(arguments) < 9:
        sys.exit(__doc__)
    path, root, run_root, driver, image, name, config, manifest, *layers = arguments
    engine = Engine(path, root, run_root, driver)
    print("library   ", engine.library.isula_storage_version().decode())
    atexit.register(engine.close)  # also after an error: closing what is not open is fine
    engine.open()
    top = None
    for layer in layers:
        layer_id, diff_id, tar = layer.split("=", 2)
        engine.make_layer(layer_id, diff_id, tar, top)
        top = layer_id
    engine.make_image(image, name, top, config, manifest)
    print("root      ", *engine.list_root(top))
    engine.close()

    engine.open()
    print("found     ", engine.take(engine.library.image_store_lookup(name.encode()))[:12], name)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RuntimeError as error:
        sys.exit(f"dlopen.py: {error}")
