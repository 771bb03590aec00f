// SPDX-License-Identifier: MulanPSL-2.0
//! How programs are linked with the library: the lines of README.md, run as they stand there against an installed
//! library; the static library beside libraries that it could clash with; taking the shared one in and out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a command and gives what it printed; anything but exit code 0 fails the test.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

/// Where `make install` has put the library that was built for this test.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        // cargo puts the libraries beside this test.
        let built = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
        let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("linking");
        if place.exists() {
            fs::remove_dir_all(&place).unwrap();
        }
        let release = place.join("release");
        fs::create_dir_all(&release).unwrap();
        for name in ["libisula_storage.so", "libisula_storage.a"] {
            symlink(built.join(name), release.join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_isula-storage"), release.join("isula-storage")).unwrap();
        let prefix = place.join("prefix");
        let mut make = Command::new("make");
        make.arg("-C").arg(source("")).arg("place").env_remove("MAKEFLAGS");
        make.arg(format!("RELEASE={}", release.display())).arg(format!("PREFIX={}", prefix.display()));
        run(&mut make);
        prefix
    })
}

fn library() -> PathBuf {
    installed().join("lib")
}

/// Whether this is root; if not, what needs it is skipped, which fails where everything has to run.
fn needs_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("skipped: needs root");
    }
    root
}

/// Memory where there is any: what is tested here is not the disk.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// Takes away what a program left mounted below a directory, whatever became of it.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let ours: Vec<&str> = points.filter(|point| Path::new(point).starts_with(&self.0)).collect();
        for point in ours.into_iter().rev() {
            let _gone = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// The names that the shared library has, which `c_harness` compares with `c_tests/exports.txt`.
fn exports() -> BTreeSet<String> {
    let names = symbols(&["-D", "--defined-only"], &library().join("libisula_storage.so"));
    names.into_iter().map(|(_, name)| name).collect()
}

/// Symbols of a file: kind and name, as nm prints them.
fn symbols(arguments: &[&str], file: &Path) -> BTreeSet<(char, String)> {
    let text = run(Command::new("nm").args(arguments).arg(file));
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().rev();
            let (name, kind) = (words.next()?, words.next()?);
            Some((kind.chars().next()?, name.split('@').next()?.to_owned()))
        })
        .collect()
}

/// A C compiler that finds the header and the library; the link line is to follow the sources.
fn compiler(dir: &Path, name: &str) -> Command {
    let mut compiler = Command::new("gcc");
    compiler.arg("-std=c11").args(WARNINGS).args(["-g", "-D_GNU_SOURCE"]);
    compiler.arg(format!("-DEXPECTED_VERSION=\"{}\"", env!("CARGO_PKG_VERSION")));
    if cfg!(feature = "remote-layer-store") {
        compiler.arg("-DENABLE_REMOTE_LAYER_STORE");
    }
    compiler.arg("-I").arg(installed().join("include")).arg("-L").arg(library());
    compiler.current_dir(dir).arg("-o").arg(name);
    compiler
}

/// A program that finds the shared library.
fn program(dir: &Path, name: &str) -> Command {
    let mut program = Command::new(dir.join(name));
    program.env("LD_LIBRARY_PATH", library());
    program
}

/// A C source of `c_tests`.
fn c_test(name: &str) -> PathBuf {
    source("c_tests").join(name)
}

/// The two link lines of README.md: shared, static.
fn link_lines() -> [Vec<String>; 2] {
    let readme = fs::read_to_string(source("README.md")).unwrap();
    ["shared", "static"].map(|kind| {
        let start = format!("| {kind} | `");
        let line = readme.lines().find_map(|line| line.strip_prefix(&start)).expect("a link line");
        line.trim_end_matches("` |").split(' ').map(str::to_owned).collect()
    })
}

#[test]
fn the_link_lines_of_the_readme_work() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, line) in link_lines().iter().enumerate() {
        run(compiler(dir.path(), "program").args(["signatures.c", "unit.c"].map(c_test)).args(line));
        let needed = run(Command::new("readelf").arg("-d").arg(dir.path().join("program")));
        assert_eq!(needed.contains("libisula_storage.so.0"), kind == 0, "{needed}");
        run(&mut program(dir.path(), "program"));
    }
}

/// The program of README.md, by the commands that are there.
#[test]
fn the_commands_of_the_readme_work() {
    let dir = tempfile::tempdir().unwrap();
    let readme = fs::read_to_string(source("README.md")).unwrap();
    let code = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a program");
    let store = dir.path().join("images");
    assert!(code.contains("/var/lib/example/images"));
    let code = code.replace("/var/lib/example/images", store.to_str().unwrap());
    fs::write(dir.path().join("example.c"), code).unwrap();
    let commands: Vec<&str> = readme.lines().filter(|line| line.starts_with("    cc ")).collect();
    assert_eq!(commands.len(), 2);
    for command in commands {
        let mut shell = Command::new("sh");
        shell.args(["-ec", command]).current_dir(dir.path());
        shell.env("PKG_CONFIG_PATH", library().join("pkgconfig")).env_remove("PKG_CONFIG_LIBDIR");
        run(&mut shell);
        let name = command.rsplit(' ').next().unwrap();
        run(&mut program(dir.path(), name));
        assert!(store.is_dir());
        let dynamic = run(Command::new("readelf").arg("-d").arg(dir.path().join(name)));
        assert_eq!(dynamic.contains("NEEDED"), name == "example", "{dynamic}");
        fs::remove_dir_all(&store).unwrap();
    }
}

/// Whoever asks pkg-config gets the structs that the library was built with.
#[test]
fn pkg_config_tells_of_the_build_with_remote_layers() {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    let command = "cc -I \"$2\" \"$1\" $(pkg-config --cflags --libs isula-storage) -o layout && ./layout";
    shell.args(["-ec", command, "sh"]).arg(c_test("layout.c")).arg(source("src/ffi")).current_dir(dir.path());
    shell.env("PKG_CONFIG_PATH", library().join("pkgconfig")).env_remove("PKG_CONFIG_LIBDIR");
    run(shell.env("LD_LIBRARY_PATH", library()));
}

#[test]
fn only_names_of_the_interface_are_global_in_the_static_library() {
    let symbols = symbols(&["--extern-only", "--defined-only"], &library().join("libisula_storage.a"));
    let names: BTreeSet<String> = symbols.iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(names, exports());
    let weak: Vec<&str> =
        symbols.iter().filter(|(kind, _)| *kind == 'W').map(|(_, name)| name.as_str()).collect();
    assert_eq!(weak, ["free_layer_list", "storage_layers_get_by_compress_digest"]);
}

/// Names that are global in what cargo makes of this crate, and those that libisula has: all are defined once more, in a
/// way that fails when one is used.
#[test]
fn the_static_library_clashes_with_nothing() {
    // Functions of libisula that iSulad's own storage module calls.
    const LIBISULA: &str = "append_json_map_string_int64 append_json_map_string_string \
        docker_image_config_v2_generate_json docker_image_config_v2_parse_data docker_image_config_v2_parse_file \
        dup_json_map_string_string free_container_inspect_graph_driver free_defs_health_check \
        free_docker_image_config_v2 free_image_devmapper_device_info free_image_devmapper_deviceset_metadata \
        free_image_devmapper_transaction free_image_manifest_v1_compatibility \
        free_imagetool_fs_info_image_filesystems_element free_imagetool_fs_info free_imagetool_image \
        free_imagetool_image_summary free_imagetool_images_list free_json_map_string_string \
        free_json_map_string_int64 free_oci_image_manifest free_oci_image_spec free_registry_manifest_schema1 \
        free_registry_manifest_schema2 free_storage_entry free_storage_image free_storage_layer \
        free_storage_mount_point free_storage_rootfs isula_crc_update new_isula_crc_table \
        oci_image_manifest_parse_file oci_image_spec_parse_file storage_entry_parse_data \
        storage_image_generate_json storage_image_parse_file storage_layer_generate_json \
        storage_layer_parse_file storage_mount_point_generate_json storage_mount_point_parse_file \
        storage_rootfs_generate_json storage_rootfs_parse_data storage_rootfs_parse_file";
    // What a program may have from a zstd, bzip2, xz or zlib of its own, and zstd's hooks.
    const PACKERS: &str = "ZSTD_versionNumber ZSTD_decompressStream ZSTD_createDStream BZ2_bzDecompress \
        lzma_stream_decoder lzma_code inflate XXH64 ZSTD_trace_compress_begin ZSTD_trace_compress_end \
        ZSTD_trace_decompress_begin ZSTD_trace_decompress_end rust_eh_personality";
    let release = installed().parent().unwrap().join("release");
    // Not nm: it asks plugins about the bitcode in Rust's standard library.
    let text =
        run(Command::new("readelf").args(["--syms", "--wide"]).arg(release.join("libisula_storage.a")));
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() == 8 && ["GLOBAL", "WEAK"].contains(&words[4]) && words[6] != "UND" {
            names.insert(words[7]);
        }
    }
    assert!(names.len() > 1000 && names.contains("ZSTD_decompressStream") && names.contains("lzma_code"));
    names.extend(LIBISULA.split_whitespace().chain(PACKERS.split_whitespace()));
    let exports = exports();
    // What the compiler's own library has is hidden there and used by all.
    let mut assembly = String::from(".text\n");
    for name in names.iter().filter(|name| !exports.contains(**name) && !name.starts_with("DW.ref.")) {
        writeln!(assembly, ".globl \"{name}\"\n\"{name}\":").unwrap();
    }
    assembly.push_str("ud2\n.section .note.GNU-stack,\"\",@progbits\n");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("own.s"), assembly).unwrap();
    run(Command::new("gcc").current_dir(dir.path()).args(["-c", "own.s"]));
    let [_, line] = link_lines();
    for flag in ["-pie", "-no-pie", "-rdynamic"] {
        let mut compiler = compiler(dir.path(), "clash");
        run(compiler.arg(flag).arg("own.o").arg(c_test("image_store.c")).args(&line));
        run(program(dir.path(), "clash").arg(dir.path().join(format!("root{flag}"))));
    }
}

/// Another static library with Rust's standard library inside, in one program.
#[test]
fn the_static_library_links_beside_another_one_made_of_rust() {
    let dir = tempfile::tempdir().unwrap();
    let rust = r#"
        #[unsafe(no_mangle)]
        pub extern "C" fn other_rust(count: i32) -> i32 {
            let caught = std::panic::catch_unwind(|| {
                let all: Vec<i32> = (0..count).collect();
                all[count as usize]
            });
            std::thread::spawn(move || caught.is_err()).join().unwrap() as i32
        }
    "#;
    fs::write(dir.path().join("other.rs"), rust).unwrap();
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(dir.path()).args(["--edition=2024", "--crate-type=staticlib", "other.rs"]);
    run(&mut rustc);
    let [_, line] = link_lines();
    for order in [["libother.a", ""], ["", "libother.a"]] {
        let mut compiler = compiler(dir.path(), "both");
        compiler.arg(c_test("two_rusts.c")).args(order.iter().take(1).filter(|name| !name.is_empty()));
        compiler.args(&line).args(order.iter().skip(1).filter(|name| !name.is_empty()));
        // The other one unwinds too, and names libgcc_s in its own link line.
        run(compiler.arg("-lgcc_s"));
        run(&mut program(dir.path(), "both"));
    }
}

/// A program's own `storage_layers_get_by_compress_digest` and `free_layer_list` win.
#[test]
fn a_program_may_bring_its_own_layers_however_it_is_linked() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, line) in link_lines().iter().enumerate() {
        for flag in ["-rdynamic", "-O0"] {
            run(compiler(dir.path(), "own").arg(flag).arg(c_test("interpose.c")).args(line));
            let roots = ["flat", "module"].map(|name| dir.path().join(format!("{name}{kind}{flag}")));
            run(program(dir.path(), "own").args(roots));
        }
    }
}

/// The 38 functions that the rest of iSulad links from its storage module.
const DAEMON: &str = "free_graphdriver_status graphdriver_get_status free_layer free_layer_list \
    free_storage_module_init_options storage_broken_rw_layer_delete storage_dec_hold_refs storage_get_all_images \
    storage_get_images_fs_usage storage_get_img_count storage_get_img_top_layer storage_get_metadata_by_container_id \
    storage_image_exist storage_img_add_name storage_img_create storage_img_delete storage_img_get \
    storage_img_get_image_id storage_img_get_names storage_img_get_summary storage_img_set_big_data \
    storage_img_set_image_size storage_img_set_loaded_time storage_img_set_names storage_inc_hold_refs \
    storage_layer_chain_delete storage_layer_create storage_layer_get storage_layer_try_repair_lowers \
    storage_layers_get_by_compress_digest storage_module_exit storage_module_init storage_rootfs_create \
    storage_rootfs_delete storage_rootfs_fs_usgae storage_rootfs_get_dir storage_rootfs_mount storage_rootfs_umount";

/// The functions of iSulad's design document of the layer store.
const LAYER_DOCUMENT: &str = "layer_store_init layer_store_exit layer_store_create layer_inc_hold_refs \
    layer_dec_hold_refs layer_get_hold_refs layer_store_delete layer_store_exists layer_store_list \
    layer_store_by_compress_digest layer_store_by_uncompress_digest layer_store_lookup layer_store_mount \
    layer_store_umount layer_store_get_layer_fs_info layer_store_get_metadata_by_layer_id";

#[test]
fn every_function_of_the_documents_is_exported() {
    let text = fs::read_to_string(source("c_tests/exports.txt")).unwrap();
    let exports: BTreeSet<&str> = text.lines().collect();
    let wanted: BTreeSet<&str> = DAEMON.split_whitespace().collect();
    assert_eq!(wanted.len(), 38);
    let wanted = wanted.into_iter().chain(LAYER_DOCUMENT.split_whitespace());
    let missing: Vec<&str> = wanted.filter(|name| !exports.contains(*name)).collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");
}

/// A program that needs exactly these 38 of the library links, with no symbol left open, and runs on a store of its own.
#[test]
fn a_program_with_exactly_the_symbols_of_the_daemon_runs() {
    let dir = tempfile::tempdir_in(memory()).unwrap();
    let mut object = compiler(dir.path(), "minimal.o");
    run(object.arg("-c").arg(c_test("minimal.c")));
    let ours = exports();
    let needed = symbols(&["--undefined-only"], &dir.path().join("minimal.o"));
    let needed: BTreeSet<&str> =
        needed.iter().map(|(_, name)| name.as_str()).filter(|name| ours.contains(*name)).collect();
    assert_eq!(needed, DAEMON.split_whitespace().collect());
    let drivers: &[&str] = if needs_root() { &["vfs", "overlay"] } else { &["vfs"] };
    for (kind, line) in link_lines().iter().enumerate() {
        let mut compiler = compiler(dir.path(), "minimal");
        run(compiler.args(["-Wl,--no-undefined", "-Wl,-z,defs", "minimal.o"]).args(line));
        for driver in drivers {
            let root = dir.path().join(format!("{driver}{kind}"));
            let _unmounted = Unmount(root.clone());
            run(program(dir.path(), "minimal").arg(&root).arg(driver));
        }
    }
}

/// Taken out with dlclose and in again: the code stays, with its store.
#[test]
fn a_program_may_load_the_library_at_run_time() {
    let dir = tempfile::tempdir_in(memory()).unwrap();
    run(compiler(dir.path(), "reopen").arg(c_test("reopen.c")).args(["-ldl", "-lpthread"]));
    let mut command = Command::new(dir.path().join("reopen"));
    run(command.arg(library().join("libisula_storage.so.0")).arg(dir.path().join("root")));
}
