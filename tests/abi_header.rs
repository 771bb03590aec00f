// SPDX-License-Identifier: MulanPSL-2.0
//! The committed C headers are what the build script makes now. `make header` (UPDATE_HEADERS=1) renews them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::path::Path;

#[test]
fn committed_headers_are_fresh() {
    let made = Path::new(env!("ISULA_STORAGE_HEADERS"));
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    for name in ["isula_storage.h", "isula_storage_types.h"] {
        let text = fs::read_to_string(made.join(name)).unwrap();
        if std::env::var_os("UPDATE_HEADERS").is_some() {
            fs::write(committed.join(name), &text).unwrap();
        }
        let old = fs::read_to_string(committed.join(name)).unwrap_or_default();
        let line = old.lines().zip(text.lines()).position(|(old, new)| old != new);
        assert!(old == text, "include/{name} is not fresh (line {line:?}): run `make header`");
    }
}
