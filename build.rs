// SPDX-License-Identifier: MulanPSL-2.0
//! Build script: the C headers, the layout table, the SONAME. Writes to the build directory only; `make header` copies
//! the headers to `include/`, and a test compares.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let ffi = root.join("src/ffi");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/ffi");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libisula_storage.so.0");
    // A store has threads of its own: the code must not go away under them when a program calls dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // zstd leaves two tracing hooks open that a program could define: without them nothing is undefined beyond libc.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodynamic-undefined-weak");

    write(&out.join("layout.rs"), &layout(&fs::read_to_string(ffi.join("layout.def"))?)?)?;
    println!("cargo::rustc-env=ISULA_STORAGE_HEADERS={}", out.display());
    // The headers are committed: a program can be built without them being made again. The test would tell.
    if let Err(error) = headers(&ffi, &out) {
        println!("cargo::warning=the C headers could not be made: {error}");
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Fallible<()> {
    #[allow(clippy::disallowed_methods, reason = "not a durable write: the build directory")]
    Ok(fs::write(path, text)?)
}

/// Makes the table of `layout.rs` from the lines of `layout.def`, for the features of this build.
fn layout(list: &str) -> Fallible<String> {
    let remote = env::var_os("CARGO_FEATURE_REMOTE_LAYER_STORE").is_some();
    let mut table = String::from("/// The table.\nstatic LAYOUT: &[CLayoutEntry] = &[\n");
    let mut active = true;
    for line in list.lines() {
        match line {
            "#if defined(ENABLE_REMOTE_LAYER_STORE)" => active = remote,
            "#else" => active = !active,
            "#endif" => active = true,
            _ if !active => {}
            _ => {
                if let Some(entry) = entry(line) {
                    writeln!(table, "    {},", entry.ok_or_else(|| format!("layout.def: {line}"))?)?;
                }
            }
        }
    }
    table.push_str("];\n");
    Ok(table)
}

/// The macro call for one line; `None` for lines that are none, `Some(None)` for malformed ones.
fn entry(line: &str) -> Option<Option<String>> {
    let (kind, rest) = line.split_once('(')?;
    let mut parts = rest.strip_suffix(')')?.splitn(5, ',').map(str::trim);
    let mut next = || parts.next();
    let call = match kind {
        "STRUCT" => (|| Some(format!("entry!({}, {:?}, {})", next()?, next()?, next()?)))(),
        "FIELD" => (|| {
            let (rust, name, field, offset) = (next()?, next()?, next()?, next()?);
            let raw = if field == "type" { "r#type" } else { field };
            Some(format!("entry!({rust}, {name:?}, {raw}, {field:?}, {offset})"))
        })(),
        _ => return None,
    };
    Some(call)
}

fn headers(ffi: &Path, out: &Path) -> Fallible<()> {
    let types = ffi.join("types");
    // Nothing in these files uses the types: all of them are asked for.
    let libisula = body(ffi, &[types.join("libisula.rs")], |config| {
        config.style = cbindgen::Style::Both;
        config.export.include = config.export.rename.keys().cloned().collect();
        config.export.include.sort(); // the order of a map is another each time
    })?;
    let isulad = body(ffi, &[types.join("time.rs"), types.join("stream.rs")], |config| {
        config.export.include =
            ["types_timestamp_t", "CIoReadWrapper", "CIoWriteWrapper"].map(str::to_owned).to_vec();
    })?;
    write(&out.join("isula_storage_types.h"), &types_header(&libisula, &isulad))?;

    let mut sources = Vec::new();
    for dir in [types.as_path(), ffi] {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let other =
                ["mod.rs", "libisula.rs", "time.rs", "stream.rs"].iter().any(|name| path.ends_with(name));
            if path.extension().is_some_and(|extension| extension == "rs") && !other {
                sources.push(path);
            }
        }
    }
    sources.sort();
    let main = body(ffi, &sources, |config| {
        // It is in the other header, where cbindgen does not see now that it is a struct.
        config.export.rename.insert("CIoReadWrapper".to_owned(), "struct io_read_wrapper".to_owned());
        config.export.rename.insert("CIoWriteWrapper".to_owned(), "struct io_write_wrapper".to_owned());
    })?;
    write(&out.join("isula_storage.h"), &main_header(&main))
}

/// What cbindgen makes of some files.
fn body(ffi: &Path, sources: &[PathBuf], adjust: impl FnOnce(&mut cbindgen::Config)) -> Fallible<String> {
    let mut config = cbindgen::Config::from_file(ffi.join("cbindgen.toml"))?;
    adjust(&mut config);
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in sources {
        builder = builder.with_src(source);
    }
    let mut text = Vec::new();
    builder.generate()?.write(&mut text);
    // cbindgen ends a member that depends on a feature outside of its `#if`.
    Ok(String::from_utf8(text)?.trim().replace("\n#endif\n    ;\n", ";\n#endif\n"))
}

const GENERATED: &str = "Generated from src/ffi by the build script: change that and run `make header`.";

fn types_header(libisula: &str, isulad: &str) -> String {
    format!(
        r#"/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Types of libisula and iSulad that the interface of isula-storage uses. Included by isula_storage.h.
 *
 * ISULA_STORAGE_USE_LIBISULA   the program includes libisula's own headers first: its types are left out
 * ISULA_STORAGE_USE_ISULAD     the program includes iSulad's utils_timestamp.h and io_wrapper.h first: theirs are left out
 *
 * {GENERATED}
 */

#ifndef ISULA_STORAGE_TYPES_H
#define ISULA_STORAGE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if !defined(ISULA_STORAGE_USE_LIBISULA)

{libisula}

#endif /* ISULA_STORAGE_USE_LIBISULA */

#if !defined(ISULA_STORAGE_USE_ISULAD)

{isulad}

#endif /* ISULA_STORAGE_USE_ISULAD */

#endif /* ISULA_STORAGE_TYPES_H */
"#
    )
}

fn main_header(body: &str) -> String {
    format!(
        r#"/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * isula-storage: crash-safe storage of images and layers for container engines.
 *
 * - Text is UTF-8 and ends with a NUL.
 * - A pointer argument that must not be NULL gives EINVAL when it is; text that is not UTF-8 gives EILSEQ.
 * - A call that fails returns -1, NULL, false or (size_t)-1 and sets errno; isula_storage_last_error() says what was
 *   tried on which thing and why it failed. A call that succeeds leaves errno alone.
 * - An internal error (a panic that was caught) gives EIO; the store takes no changes then until it is opened again.
 * - Outputs are written on success only. What they point to is from malloc and belongs to the caller.
 * - Any thread may call any function at any time, unless it says otherwise.
 * - After fork() one of the two processes may go on with the stores that are open; the other must leave them alone.
 *
 * ENABLE_REMOTE_LAYER_STORE    as in iSulad: two more members of struct storage_module_init_options. The library must
 *                              be built with its feature remote-layer-store, and pthread_rwlock_t must be declared
 *                              (POSIX 2001 or later)
 *
 * {GENERATED}
 */

#ifndef ISULA_STORAGE_H
#define ISULA_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(ENABLE_REMOTE_LAYER_STORE)
#include <pthread.h>
#endif

#include "isula_storage_types.h"

/* C has the member `delete` of an image store; C++, where that is a keyword, has `delete_`. */
#if !defined(__cplusplus)
#define delete_ delete
#endif

{body}

#if !defined(__cplusplus)
#undef delete_
#endif

#endif /* ISULA_STORAGE_H */
"#
    )
}
