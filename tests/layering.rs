// SPDX-License-Identifier: MulanPSL-2.0
//! The house rules that a compiler does not check: who may know whom, how long a module is, what must not be left
//! in the sources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// May be used by every room.
const LEAVES: &[&str] = &["error", "id", "digest", "reference", "time", "units", "json"];

/// Which rooms a room may use beside the leaves and itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("spec", &[]),
    ("record", &[]),
    ("sys", &[]),
    ("persist", &["sys"]),
    ("archive", &["sys"]),
    ("driver", &["archive", "persist", "sys"]),
    // `persist` is spoken to with the directories of `sys::fs`.
    ("layer", &["driver", "persist", "record", "sys"]),
    // An image store asks layers through a small trait and reports problems as the layer store does.
    ("image", &["layer", "persist", "record", "spec", "sys"]),
    ("rootfs", &["layer", "persist", "record", "sys"]),
    ("imagedb", &["persist", "spec", "layer", "sys"]),
    ("metadata", &["persist", "spec", "layer", "sys"]),
    (
        "storage",
        &[
            "archive", "driver", "image", "imagedb", "layer", "metadata", "persist", "record", "rootfs",
            "spec",
        ],
    ),
    ("ffi", &["image", "imagedb", "layer", "metadata", "record", "rootfs", "spec", "storage"]),
];

/// Longest module in lines.
const MOST_LINES: usize = 600;

struct Source {
    /// Relative to `src`.
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "target" || name == ".git" || name == "golden" {
            continue;
        }
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    files_below(&root().join("src"), &mut files);
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(root().join("src")).unwrap().to_owned(),
        })
        .collect()
}

/// The module path of a file: `layer/store.rs` is `[layer, store]`, `layer/mod.rs` is `[layer]`.
fn module_path(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// Blanks comments and string literals, keeping line numbers.
fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let mut i = 0;
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    while i < chars.len() {
        let rest = &chars[i..];
        let starts = |what: &str| what.chars().enumerate().all(|(n, c)| rest.get(n) == Some(&c));
        let word_before = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
        let len = if starts("//") {
            rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
        } else if starts("/*") {
            let mut depth = 0usize;
            let mut n = 0;
            loop {
                match (rest.get(n), rest.get(n + 1)) {
                    (Some('/'), Some('*')) => (depth, n) = (depth + 1, n + 2),
                    (Some('*'), Some('/')) => (depth, n) = (depth - 1, n + 2),
                    (None, _) => break n,
                    _ => n += 1,
                }
                if depth == 0 {
                    break n;
                }
            }
        } else if !word_before && (starts("r\"") || starts("r#") && raw_hashes(&rest[1..]).is_some()) {
            let hashes = raw_hashes(&rest[1..]).unwrap();
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = 2 + hashes;
            (body..rest.len())
                .find(|n| rest[*n..].starts_with(&close))
                .map_or(rest.len(), |n| n + close.len())
        } else if starts("\"") {
            let mut n = 1;
            while n < rest.len() && rest[n] != '"' {
                n += if rest[n] == '\\' { 2 } else { 1 };
            }
            (n + 1).min(rest.len())
        } else if starts("'\\") {
            // A character literal with an escape; `'a'` and lifetimes need no care, `'"'` does.
            rest.iter().skip(2).position(|c| *c == '\'').map_or(1, |n| n + 3)
        } else if starts("'\"'") {
            3
        } else {
            0
        };
        if len == 0 {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(rest[..len].iter().copied().map(blank));
            i += len;
        }
    }
    out
}

/// After an `r`: the number of `#` before the opening quote of a raw string.
fn raw_hashes(after: &[char]) -> Option<usize> {
    let hashes = after.iter().take_while(|c| **c == '#').count();
    (after.get(hashes) == Some(&'"')).then_some(hashes)
}

/// The code before the unit tests, which may use what they like.
fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]\nmod ").map_or(code, |at| &code[..at])
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first names of a path after `crate::`: one, or those of a group `{a::b, c}`.
fn first_names(after: &str) -> Vec<String> {
    let after = after.trim_start();
    let Some(group) = after.strip_prefix('{') else {
        return vec![identifier(after).to_owned()];
    };
    let mut depth = 0usize;
    let mut names = Vec::new();
    let mut item = String::new();
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.push(std::mem::take(&mut item)),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c != ',' || depth > 0 {
            item.push(c);
        }
    }
    names.push(item);
    names.iter().map(|item| identifier(item.trim()).to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Every room that the code names by `crate::…`, or by `super::…` where that leads to the root.
fn rooms_used(code: &str, module: &[String]) -> BTreeSet<(usize, String)> {
    let mut used = BTreeSet::new();
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        for name in first_names(&code[at + "crate::".len()..]) {
            used.insert((line(at), name));
        }
    }
    let climb = "super::".repeat(module.len());
    for (at, _) in code.match_indices(&climb) {
        if !climb.is_empty() {
            for name in first_names(&code[at + climb.len()..]) {
                used.insert((line(at), name));
            }
        }
    }
    used
}

#[test]
fn each_room_uses_only_what_the_plan_allows() {
    let mut breaches = Vec::new();
    for source in sources() {
        let module = module_path(&source.path);
        let Some(room) = module.first().cloned() else { continue };
        let code = code_only(&source.text);
        if room == "bin" {
            continue;
        }
        let allowed: &[&str] = if LEAVES.contains(&room.as_str()) {
            &[]
        } else {
            let row = MAY_USE.iter().find(|(name, _)| *name == room);
            row.unwrap_or_else(|| panic!("src/{}: room {room} is not in the plan", source.path.display())).1
        };
        for (line, used) in rooms_used(without_tests(&code), &module) {
            if used == room || LEAVES.contains(&used.as_str()) || allowed.contains(&used.as_str()) {
                continue;
            }
            breaches.push(format!("src/{}:{line}: {room} must not use {used}", source.path.display()));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_reader_of_paths_sees_what_a_breach_looks_like() {
    let module = |text: &str| module_path(Path::new(text));
    let rooms = |text: &str, path: &str| -> Vec<String> {
        rooms_used(without_tests(&code_only(text)), &module(path)).into_iter().map(|(_, room)| room).collect()
    };
    assert_eq!(rooms("use crate::sys::fs::Dir;", "image/mod.rs"), ["sys"]);
    assert_eq!(rooms("use crate::{a::{b, c}, d, e::f};", "image/mod.rs"), ["a", "d", "e"]);
    assert_eq!(rooms("let x = crate::ffi::X;", "image/index.rs"), ["ffi"]);
    assert_eq!(rooms("use super::super::driver::X;", "image/index.rs"), ["driver"]);
    assert_eq!(rooms("use super::driver::X;", "image/mod.rs"), ["driver"]);
    assert_eq!(rooms("use super::X;", "image/index.rs"), [""; 0]);
    assert_eq!(rooms("// use crate::ffi;\n/* crate::ffi */ let s = \"crate::ffi\";", "a.rs"), [""; 0]);
    assert_eq!(rooms("let s = r#\"crate::ffi\"#; let c = '\"'; crate::b::c();", "a.rs"), ["b"]);
    assert_eq!(rooms("use crate::a;\n#[cfg(test)]\nmod tests { use crate::b; }", "c.rs"), ["a"]);
}

/// The command-line tool speaks to the Rust API only.
#[test]
fn the_tool_uses_the_library_from_outside() {
    for source in sources() {
        if module_path(&source.path).first().is_some_and(|room| room == "bin") {
            let code = code_only(&source.text);
            for room in ["sys", "ffi", "archive", "persist::replace_file"] {
                let path = format!("isula_storage::{room}");
                assert!(!code.contains(&path), "src/{} uses {path}", source.path.display());
            }
        }
    }
}

#[test]
fn modules_are_short() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= MOST_LINES, "src/{} has {lines} lines: split it", source.path.display());
    }
}

#[test]
fn nothing_unfinished_is_left_in_the_sources() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in code_only(&source.text).lines().enumerate() {
            for word in ["todo!", "unimplemented!", "dbg!"] {
                if line.contains(word) {
                    found.push(format!("src/{}:{}: {word}", source.path.display(), number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_source_file_names_its_licence_on_top() {
    let mut files = Vec::new();
    for dir in ["src", "tests", "benches", "examples", "fuzz", "include", "c_tests", ".ci"] {
        files_below(&root().join(dir), &mut files);
    }
    for name in ["build.rs", "Makefile"] {
        files.push(root().join(name));
    }
    let is_source = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name == "Makefile"
            || path.ends_with(".ci/run")
            || path
                .extension()
                .is_some_and(|ext| ["rs", "c", "cc", "cpp", "h", "py", "sh"].iter().any(|e| ext == *e))
    };
    for path in files.iter().filter(|path| is_source(path)) {
        let text = fs::read_to_string(path).unwrap();
        let top: Vec<&str> = text.lines().take(3).collect();
        assert!(
            top.iter().any(|line| line.contains("SPDX-License-Identifier: MulanPSL-2.0")),
            "{} has no SPDX line on top",
            path.display()
        );
    }
}
