// SPDX-License-Identifier: MulanPSL-2.0
//! An image of five layers made of what is installed on this machine: a base system, many small files, large files, a
//! layer of whiteouts and one of odd metadata. No network.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use isula_storage::digest::Digester;
use serde_json::json;

use crate::cli_support::common::run;
use crate::cli_support::images::{Layout, Tar};

/// Larger ones are for the layer of large files.
const SMALL: u64 = 64 << 10;

/// The layers as plain archives, as gzip archives, and the OCI layout of the latter.
pub(crate) struct Image {
    pub plain: Vec<PathBuf>,
    pub packed: Vec<PathBuf>,
    pub layout: PathBuf,
    pub entries: u64,
    pub bytes: u64,
}

impl Image {
    /// Makes the image in `work`; at 100 percent about 48,000 entries and 1.1 GB.
    pub(crate) fn make(work: &Path, percent: u64) -> Image {
        let files = installed();
        let mut taken = BTreeSet::new();
        let base = choose(&files, &mut taken, percent * 60, percent * (170 << 20) / 100, |path, _| {
            ["/etc", "/usr/sbin", "/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share/zoneinfo"]
                .iter()
                .any(|dir| path.starts_with(dir))
        });
        let small =
            choose(&files, &mut taken, percent * 390, percent * (420 << 20) / 100, |_, size| size <= SMALL);
        let large =
            choose(&files, &mut taken, percent * 20, percent * (480 << 20) / 100, |_, size| size > SMALL);
        let plain: Vec<PathBuf> = (1..=5).map(|number| work.join(format!("layer{number}.tar"))).collect();
        pack(&base, &plain[0], &[]);
        pack(&small, &plain[1], &["--transform=flags=r;s,^,opt/source/,"]);
        pack(&large, &plain[2], &["--transform=flags=r;s,^,opt/compilers/,"]);
        whiteouts(&small, &plain[3], usize::try_from(percent * 30).unwrap());
        odd(work, &plain[4], percent * 5);
        for layer in &plain {
            run(Command::new("gzip").args(["-k", "-n"]).arg(layer));
        }
        let image = Image::open(work);
        layout(work, &plain, &image.packed);
        image
    }

    /// The image made in `work` before.
    pub(crate) fn open(work: &Path) -> Image {
        let plain: Vec<PathBuf> = (1..=5).map(|number| work.join(format!("layer{number}.tar"))).collect();
        Image {
            packed: plain.iter().map(|layer| layer.with_extension("tar.gz")).collect(),
            layout: work.join("layout"),
            entries: plain.iter().map(|layer| count(layer)).sum(),
            bytes: plain.iter().map(|layer| fs::metadata(layer).unwrap().len()).sum(),
            plain,
        }
    }
}

/// Regular files and symbolic links below /usr and /etc, in order, with their sizes.
fn installed() -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from("/usr"), PathBuf::from("/etc")];
    while let Some(dir) = pending.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let (Ok(meta), path) = (entry.metadata(), entry.path()) else { continue };
            if meta.is_dir() {
                pending.push(path);
            } else if (meta.is_file() && meta.nlink() == 1 && !path.starts_with("/usr/share/man"))
                || meta.is_symlink()
            {
                found.push((path, meta.len()));
            }
        }
    }
    found.sort();
    found
}

fn choose(
    files: &[(PathBuf, u64)],
    taken: &mut BTreeSet<PathBuf>,
    most: u64,
    mut bytes: u64,
    fits: impl Fn(&Path, u64) -> bool,
) -> Vec<PathBuf> {
    let mut chosen = Vec::new();
    for (path, size) in files {
        if chosen.len() as u64 >= most || bytes == 0 {
            break;
        }
        if fits(path, *size) && *size <= bytes && taken.insert(path.clone()) {
            bytes -= size;
            chosen.push(path.clone());
        }
    }
    chosen
}

/// Archives files with the directories that lead to them.
fn pack(files: &[PathBuf], to: &Path, more: &[&str]) {
    let mut names = BTreeSet::new();
    for file in files {
        for path in file.ancestors().filter(|path| *path != Path::new("/")) {
            if !names.insert(path.to_owned()) {
                break;
            }
        }
    }
    let mut list = Vec::new();
    for name in &names {
        list.extend_from_slice(name.strip_prefix("/").unwrap().as_os_str().as_bytes());
        list.push(0);
    }
    let list_file = to.with_extension("list");
    fs::write(&list_file, list).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--format=gnu", "--no-recursion", "--null"]);
    tar.args(more).arg("-cf").arg(to).args(["-C", "/", "-T"]).arg(&list_file);
    run(&mut tar);
    fs::remove_file(list_file).unwrap();
}

fn whiteouts(files: &[PathBuf], to: &Path, most: usize) {
    let mut tar = Tar::new(std::io::BufWriter::new(fs::File::create(to).unwrap()));
    let mut hidden = 0;
    for file in files.iter().step_by(7) {
        let name = file.file_name().unwrap().to_string_lossy();
        let parent = file.parent().unwrap().to_string_lossy();
        let path = format!("opt/source{parent}/.wh.{name}");
        if hidden < most && path.len() < 100 {
            tar.file(&path, &[]);
            hidden += 1;
        }
    }
    tar.dir("opt/compilers/usr/lib/");
    tar.file("opt/compilers/usr/lib/.wh..wh..opq", &[]);
    tar.finish().flush().unwrap();
}

/// Links, devices, modes, owners, attributes, sparse files, long names.
fn odd(work: &Path, to: &Path, count: u64) {
    let tree = work.join("odd");
    fs::create_dir(&tree).unwrap();
    for number in 0..count {
        let dir = tree.join(format!("d{}", number / 50));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(format!("{}-{number}", "n".repeat((number % 200) as usize)));
        match number % 8 {
            0 => symlink("../target", &path).unwrap(),
            1 => fs::File::create(&path).and_then(|file| file.set_len(1 << 20)).unwrap(),
            2 => fs::hard_link(dir.join("first"), &path).or_else(|_| fs::write(&path, b"x")).unwrap(),
            3 => fs::create_dir(&path).unwrap(),
            _ => fs::write(&path, format!("content {number}\n").repeat(number as usize % 90)).unwrap(),
        }
        if number % 8 > 3 {
            let file = fs::File::open(&path).unwrap();
            let id = u32::try_from(number % 1000).unwrap();
            rustix::fs::fchown(
                &file,
                Some(rustix::fs::Uid::from_raw(id)),
                Some(rustix::fs::Gid::from_raw(id)),
            )
            .unwrap();
            let mode = [0o4755, 0o600, 0o2711, 0o444][usize::try_from(number / 8 % 4).unwrap()];
            rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode)).unwrap();
            if number % 8 == 7 {
                let empty = rustix::fs::XattrFlags::empty();
                rustix::fs::fsetxattr(&file, "trusted.note", b"value", empty).unwrap();
            }
            if number % 50 == 4 {
                fs::hard_link(&path, dir.join("first")).unwrap();
            }
        }
    }
    let mut tar = Command::new("tar");
    tar.args(["--format=posix", "--xattrs", "--xattrs-include=*", "-S", "-cf"]).arg(to).arg("-C");
    run(tar.arg(&tree).arg("."));
    fs::remove_dir_all(tree).unwrap();
}

fn count(layer: &Path) -> u64 {
    let listed = Command::new("tar").arg("-tf").arg(layer).output().unwrap();
    listed.stdout.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn digest(path: &Path) -> String {
    let mut digester = Digester::new();
    let mut file = fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = std::io::Read::read(&mut file, &mut buffer).unwrap();
        if len == 0 {
            return digester.finish().to_string();
        }
        digester.update(&buffer[..len]);
    }
}

fn layout(work: &Path, plain: &[PathBuf], packed: &[PathBuf]) {
    let dir = work.join("layout");
    let mut layout = Layout::new(&dir);
    let diff_ids: Vec<String> = plain.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "created": "2020-01-02T03:04:05Z", "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let layers: Vec<_> = packed
        .iter()
        .map(|layer| {
            let digest = digest(layer);
            let name = digest.strip_prefix("sha256:").unwrap();
            fs::hard_link(layer, dir.join("blobs/sha256").join(name)).unwrap();
            let size = fs::metadata(layer).unwrap().len();
            json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size })
        })
        .collect();
    let config = layout.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let manifest = layout.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    layout.list(manifest, Some("bench:1"), None);
    layout.finish();
}
