// SPDX-License-Identifier: MulanPSL-2.0
//! Builds and runs the C programs of `c_tests/` against the library that was built for this test: plain, under
//! valgrind, and compiled with the address and undefined-behaviour sanitizers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod c_support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use c_support::{Program, Scratch, WARNINGS, built, library, needs_root, run, source};
use isula_storage::digest::Digest;

#[test]
fn layouts_are_those_of_isulad() {
    Program::new(&["layout.c"]).check(&[]);
}

#[test]
fn layouts_beside_libisula_and_isulad_are_the_same() {
    const FLAGS: &[&str] = &["-DISULA_STORAGE_USE_LIBISULA", "-DISULA_STORAGE_USE_ISULAD"];
    for count in 1..=FLAGS.len() {
        Program { sources: &["layout.c"], flags: &FLAGS[..count] }.check(&[]);
    }
}

#[test]
fn signatures_are_those_of_the_documents() {
    Program::new(&["signatures.c", "unit.c"]).check(&[]);
}

#[test]
fn errors_and_the_log_reach_the_caller() {
    Program::new(&["host.c"]).check(&["/root"]);
}

#[test]
fn the_log_of_isulad_is_used_where_the_process_has_it() {
    Program::new(&["isulad_log.c"]).check(&[]);
}

#[test]
fn every_pointer_argument_is_checked() {
    Program::new(&["arguments.c"]).check(&["/root", "/run"]);
}

#[test]
fn the_layer_store_works_on_plain_copies() {
    Program::new(&["layer_store.c"]).check(&["/root", "/run", "vfs"]);
}

#[test]
fn the_layer_store_works_on_overlay() {
    if needs_root() {
        Program::new(&["layer_store.c"]).check(&["/root", "/run", "overlay"]);
    }
}

#[test]
fn layers_become_archives_again_on_plain_copies() {
    Program::new(&["layer_diff.c"]).check(&["/root", "/run", "vfs"]);
}

#[test]
fn layers_become_archives_again_on_overlay() {
    if needs_root() {
        Program::new(&["layer_diff.c"]).check(&["/root", "/run", "overlay"]);
    }
}

#[cfg(feature = "remote-layer-store")]
#[test]
fn remote_layers_work() {
    if needs_root() {
        Program::new(&["remote.c"]).check(&["/maker", "/user", "/plain"]);
    }
}

#[test]
fn the_graph_driver_works_on_plain_copies() {
    Program::new(&["graphdriver.c"]).check(&["/root", "/run", "vfs"]);
}

#[test]
fn the_graph_driver_works_on_overlay() {
    if needs_root() {
        Program::new(&["graphdriver.c"]).check(&["/root", "/run", "overlay"]);
    }
}

#[test]
fn owners_are_shifted_as_the_host_or_the_daemon_says() {
    if needs_root() {
        for driver in ["vfs", "overlay"] {
            Program::new(&["userns.c"]).check(&["/root", "/run", driver]);
            Program { sources: &["userns.c"], flags: &["-DDAEMON_FUNCTION"] }
                .check(&["/root", "/run", driver]);
        }
    }
}

#[test]
fn the_storage_works_on_plain_copies() {
    Program::new(&["storage.c"]).check(&["/root", "/run", "vfs"]);
}

#[test]
fn the_storage_works_on_overlay() {
    if needs_root() {
        Program::new(&["storage.c"]).check(&["/root", "/run", "overlay"]);
    }
}

#[test]
fn the_flat_image_store_works() {
    Program::new(&["image_store.c"]).check(&["/root"]);
}

#[test]
fn the_flat_rootfs_store_works() {
    Program::new(&["rootfs_store.c"]).check(&["/root"]);
}

#[test]
fn a_program_may_bring_its_own_layers() {
    Program::new(&["interpose.c"]).check(&["/root", "/module"]);
}

#[test]
fn the_image_store_object_works() {
    Program::new(&["image_object.c"]).check(&["/images", "/other"]);
}

#[test]
fn the_docker_image_store_works() {
    Program::new(&["docker_images.c"]).check(&["/docker", "/root", "/run"]);
}

#[test]
fn names_of_images_are_kept_as_containerd_kept_them() {
    Program::new(&["containerd_images.c"]).check(&["/images"]);
}

#[test]
fn images_in_namespaces_are_kept_as_containerd_keeps_them() {
    Program::new(&["containerd_namespaced.c"]).check(&["/namespaced.db", "/plain.db", "/other.db"]);
}

#[test]
fn threads_do_not_disturb_each_other() {
    Program::new(&["threads.c"]).check(&["/root", "/run"]);
}

#[test]
fn streams_that_misbehave_leave_nothing_on_plain_copies() {
    Program::new(&["hostile.c"]).check(&["/root", "/run", "vfs"]);
}

#[test]
fn streams_that_misbehave_leave_nothing_on_overlay() {
    if needs_root() {
        Program::new(&["hostile.c"]).check(&["/root", "/run", "overlay"]);
    }
}

#[test]
fn cplusplus_programs_use_the_header() {
    Program::new(&["cplusplus.cpp"]).check(&["/root"]);
}

/// Compiles to nothing: whether it would, without a warning, with both compilers in both languages.
fn compiles(name: &Path, cplusplus: bool, standards: &[&str], extra: &[&str]) {
    for compiler in if cplusplus { ["g++", "clang++"] } else { ["gcc", "clang"] } {
        for standard in standards {
            for remote in [&[][..], &["-DENABLE_REMOTE_LAYER_STORE"]] {
                let mut command = Command::new(compiler);
                command.arg(format!("-std={standard}")).args(WARNINGS).arg("-fsyntax-only").args(remote);
                command.arg("-D_POSIX_C_SOURCE=200809L").arg("-DEXPECTED_VERSION=\"0\"");
                command.args(["-x", if cplusplus { "c++" } else { "c" }]);
                for dir in ["include", "src/ffi", "c_tests/libisula", "c_tests/isulad"] {
                    command.arg("-I").arg(source(dir));
                }
                run(command.args(extra).arg(name));
            }
        }
    }
}

const C: [&str; 2] = ["c11", "gnu17"];
const CPLUSPLUS: [&str; 2] = ["c++17", "gnu++17"];

/// The header alone, as each language, is complete.
#[test]
fn the_header_stands_alone() {
    for header in ["include/isula_storage.h", "include/isula_storage_types.h"] {
        compiles(&source(header), false, &C, &[]);
        compiles(&source(header), true, &CPLUSPLUS, &[]);
    }
}

/// Beside the headers of libisula and iSulad, whose structs have no tags: each type is left out that is there already, and
/// none that is not.
#[test]
fn the_header_stands_beside_those_of_libisula_and_isulad() {
    let with = |dir: &str, define: &'static str| -> Vec<String> {
        let mut words = vec![define.to_owned()];
        for entry in fs::read_dir(source(dir)).unwrap() {
            words.extend(["-include".to_owned(), entry.unwrap().path().display().to_string()]);
        }
        words
    };
    let libisula = with("c_tests/libisula/isula_libutils", "-DISULA_STORAGE_USE_LIBISULA");
    let isulad = with("c_tests/isulad", "-DISULA_STORAGE_USE_ISULAD");
    for words in [libisula.clone(), isulad.clone(), [libisula, isulad].concat()] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for unit in
            ["include/isula_storage.h", "c_tests/layout.c", "c_tests/signatures.c", "c_tests/minimal.c"]
        {
            compiles(&source(unit), false, &C, &words);
        }
        for unit in ["include/isula_storage.h", "c_tests/cplusplus.cpp"] {
            compiles(&source(unit), true, &CPLUSPLUS, &words);
        }
    }
}

fn symbols(arguments: &[&str]) -> BTreeSet<String> {
    let mut nm = Command::new("nm");
    let text = run(nm.args(arguments).arg(library().join("libisula_storage.so")));
    text.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
}

#[test]
fn exports_are_exactly_those_listed() {
    let listed = fs::read_to_string(source("c_tests/exports.txt")).unwrap();
    let mut listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    if cfg!(feature = "remote-layer-store") {
        let remote = fs::read_to_string(source("c_tests/exports-remote.txt")).unwrap();
        listed.extend(remote.lines().map(str::to_owned));
    }
    let exported = symbols(&["-D", "--defined-only"]);
    let missing: Vec<_> = listed.difference(&exported).collect();
    let surplus: Vec<_> = exported.difference(&listed).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing: {missing:?}, not listed: {surplus:?}");
}

/// Undefined symbols carry the version of the library that has them: glibc's, and those of libgcc_s, which every
/// program with Rust's standard library needs to unwind a stack.
#[test]
fn nothing_is_needed_beyond_libc() {
    for symbol in symbols(&["-D", "--undefined-only"]) {
        let version = symbol.split_once('@').map(|(_, version)| version.trim_start_matches('@'));
        let known =
            version.is_some_and(|version| version.starts_with("GLIBC_") || version.starts_with("GCC_"));
        // Hooks that the toolchain leaves open for whoever has them.
        let hook = ["__gmon_start__", "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable"];
        assert!(known || hook.contains(&symbol.as_str()), "undefined symbol {symbol}");
    }
    let mut readelf = Command::new("readelf");
    let text = run(readelf.arg("-d").arg(library().join("libisula_storage.so")));
    let entry = |tag: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.contains(tag));
        lines.map(|line| line[line.find('[').unwrap() + 1..line.find(']').unwrap()].to_owned()).collect()
    };
    assert!(text.contains("NODELETE"), "{text}");
    assert_eq!(entry("(SONAME)"), BTreeSet::from(["libisula_storage.so.0".to_owned()]));
    let allowed = ["libc.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-x86-64.so.2"];
    let needed = entry("(NEEDED)");
    assert!(needed.iter().all(|name| allowed.contains(&name.as_str())), "needed: {needed:?}");
}

/// A program that links the archive instead of the shared library.
#[test]
fn the_static_library_links() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("static");
    let mut compiler = Command::new("gcc");
    compiler.arg("-std=c11").args(WARNINGS).arg("-D_POSIX_C_SOURCE=200809L");
    compiler.arg(format!("-DEXPECTED_VERSION=\"{}\"", env!("CARGO_PKG_VERSION")));
    compiler.arg("-I").arg(source("include"));
    compiler.args(["signatures.c", "unit.c"].map(|name| source("c_tests").join(name)));
    compiler.arg(built().join("libisula_storage.a")).args(["-lgcc_s", "-lpthread", "-ldl", "-lm"]);
    run(compiler.arg("-o").arg(&program));
    run(&mut Command::new(program));
}

/// The program in the document, with what it says that it prints.
#[test]
fn the_example_of_containerd_images_prints_what_the_document_says() {
    let text = fs::read_to_string(source("docs/containerd-images.md")).unwrap();
    let block = |start: &str| {
        let (_, rest) = text.split_once(start).unwrap();
        rest.split_once("\n```").unwrap().0.to_owned() + "\n"
    };
    let dir = Scratch::new();
    let (code, program) = (dir.path().join("example.c"), dir.path().join("example"));
    fs::write(&code, block("```c\n")).unwrap();
    let mut compiler = Command::new("gcc");
    compiler.arg("-std=c11").args(WARNINGS).arg("-I").arg(source("include"));
    compiler.arg(&code).arg("-o").arg(&program);
    compiler.arg("-L").arg(library()).arg(format!("-Wl,-rpath,{}", library().display()));
    run(compiler.arg("-lisula_storage"));
    for _ in 0..2 {
        let mut command = Command::new(c_support::VALGRIND[0]);
        command.args(&c_support::VALGRIND[1..]).arg(&program);
        let printed = run(command.args(["plain.db", "namespaces.db"]).current_dir(dir.path()));
        assert_eq!(printed, block("```text\n"));
    }
}

/// The two programs that show how to use the library, on a small image.
#[test]
fn the_examples_run() {
    let dir = Scratch::new();
    let file = |name: &str, text: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    fs::create_dir(dir.path().join("etc")).unwrap();
    file("etc/hostname", b"example\n");
    let mut tar = Command::new("tar");
    run(tar.current_dir(dir.path()).args(["-cf", "layer.tar", "etc"]));
    let diff_id = Digest::of(&fs::read(dir.path().join("layer.tar")).unwrap());
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let id = Digest::of(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{id}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{diff_id}","size":1}}]}}"#,
        config.len()
    );
    let layer = format!("{0}={0}={1}", diff_id.hex(), dir.path().join("layer.tar").display());
    let engine = dir.path().join("engine");
    let mut compiler = Command::new("gcc");
    compiler.arg("-std=c11").args(WARNINGS).arg("-D_GNU_SOURCE").arg("-I").arg(source("include"));
    compiler.arg(source("examples/engine.c")).arg("-o").arg(&engine);
    compiler.arg("-L").arg(library()).arg(format!("-Wl,-rpath,{}", library().display()));
    run(compiler.arg("-lisula_storage"));

    let config = file("config", config.as_bytes());
    let manifest = file("manifest", manifest.as_bytes());
    let image = |command: &mut Command, name: &str| {
        command.arg(dir.path().join(name)).arg(dir.path().join(format!("{name}-run"))).arg("vfs");
        command.args([&id.hex(), "example:1"]).args([&config, &manifest]).arg(&layer);
        run(command)
    };
    for (attempt, first) in ["made", "was there"].iter().enumerate() {
        let text = image(&mut Command::new(&engine), "c");
        assert!(text.contains(first), "attempt {attempt}: {text}");
        assert!(text.contains("root       etc\n") && text.ends_with("found everything again\n"), "{text}");
    }
    let mut python = Command::new("python3");
    python.arg(source("examples/dlopen.py")).arg(library().join("libisula_storage.so"));
    let text = image(&mut python, "python");
    assert!(text.contains("root       etc\n") && text.contains("found"), "{text}");
}
