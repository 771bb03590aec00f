// SPDX-License-Identifier: MulanPSL-2.0
//! What the tests of layer archives share: scratch directories, the tar tools that serve as oracles, and trees as
//! comparable values.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use isula_storage::archive::{self, Applied, ApplyOptions, VerifyOptions};
use isula_storage::digest::Digest;
use isula_storage::error::Result;

/// All kinds of entries, names, owners, modes, times and attributes.
pub const EVERYTHING: &str = r#"
    mkdir -p dir/empty links; printf '' >f0; printf x >f1; head -c 511 /dev/zero >f511; head -c 513 /dev/urandom >f513
    seq 1 300000 >big
    ln f1 links/hard; ln f1 dir/hard2; ln -s ../f1 links/soft; ln links/soft links/soft2; ln -s /nowhere links/dangling
    chown 5:6 f1; chown 1000:2000 dir big; chown -h 7:8 links/soft; chmod 4755 f1; chmod 2711 f511; chmod 0 f513
    chmod 2775 dir; chmod 1777 dir/empty; printf 'name' >$'dir/\xff\xfe not utf-8'; printf n >'dir/"q\ '$'\n''newline'
    mkfifo -m 604 fifo; mknod -m 620 null c 1 3; mknod disk b 259 70000; chmod 1660 disk; ln fifo links/fifo
    l=$(printf 'n%.0s' {1..200}); mkdir -p "long/$l/$l"; echo deep >"long/$l/$l/$l"; ln -s "$l/$l/$l/$l" long/soft
    ln "long/$l/$l/$l" "long/$l/hard"; m=$(printf '\xfd%.0s' {1..255}); echo most >"$m"; ln -s "$m" "long/$m"
    c=$(printf 'c%.0s' {1..95}); echo 100 >"long/$c"; echo 101 >"long/${c}1"
    echo ids >ids; chown 4000000000:3000000000 ids; touch -d '1901-12-14 00:00:00.25' ids; echo late >late
    touch -d '2500-01-01' late; touch -h -d '2020-01-01 00:00:00.000000001' links/soft
    setfattr -n user.plain -v value f0; setfattr -n user.empty f0; setfattr -n user.bin -v 0x000aff3d0a f1
    setfattr -n user.a=b%c -v equals f0; setfattr -n user.dir -v d dir; setfattr -n trusted.mine -v t big
    setfattr -h -n trusted.link -v l links/soft; setfattr -n trusted.pipe -v p fifo
    setfattr -n security.capability -v 0x0100000202000000000000000000000000000000 big
    setfacl -m u:1234:rwx,g:4321:r-x,m::rx big; setfacl -m d:u:1234:rwx,d:g::r-x dir; setfacl -m u:5:r f0
    touch -d '2001-02-03 04:05:06' -h links/dangling dir/empty; touch -d '2002-02-02 02:02:02.5' dir long; chmod 711 .
"#;

/// Whether this process may make devices, owners and trusted attributes. Says so when it may not; on a build
/// machine (`CI` is set) that is a failure.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "tests that need root were skipped");
        eprintln!("skipped: needs root");
    }
    root
}

/// A directory that goes away with its value: in memory where that takes every attribute (tmpfs does since Linux
/// 6.6), else where the system keeps temporary files.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        builder.prefix("isula-archive-");
        let takes_attributes = |dir: &tempfile::TempDir| {
            rustix::fs::setxattr(dir.path(), "user.test", b"", rustix::fs::XattrFlags::empty())
                .and_then(|()| rustix::fs::removexattr(dir.path(), "user.test"))
                .is_ok()
        };
        let memory = builder.tempdir_in("/dev/shm").ok().filter(takes_attributes);
        Scratch(memory.unwrap_or_else(|| builder.tempdir().unwrap()))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A new directory in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

/// Runs a command that must succeed; gives what it wrote.
pub fn run(program: &str, arguments: &[&OsStr], dir: &Path) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (is it installed?)"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The same for a shell script.
pub fn shell(script: &str, dir: &Path) -> Vec<u8> {
    run("bash", &["-euc".as_ref(), script.as_ref()], dir)
}

/// A file, a directory or something else as the archive should have left it.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// File type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, i64),
    pub device: u64,
    /// Names with the same inode, this one included, in order; for files.
    pub links: Vec<PathBuf>,
    /// Digest of a file's content with its length, or a link's target.
    pub content: String,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:o} {}:{} {}.{:09} dev {:x} links {:?} {} xattrs",
            self.mode, self.uid, self.gid, self.mtime.0, self.mtime.1, self.device, self.links, self.content
        )?;
        for (name, value) in &self.xattrs {
            write!(f, " {}={}", name.escape_ascii(), value.escape_ascii())?;
        }
        Ok(())
    }
}

pub type Tree = BTreeMap<PathBuf, Node>;

/// The tree below `root`, the root itself under the empty path.
pub fn tree(root: &Path) -> Tree {
    let mut nodes = Tree::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let path = if relative.as_os_str().is_empty() { root.to_owned() } else { root.join(&relative) };
        let meta = match std::fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            // An overlay lists a whiteout in a directory that only one layer has, though it hides nothing there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path != root => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let kind = meta.mode() & 0o170_000;
        let content = match kind {
            0o100_000 => digest_of(&path),
            0o120_000 => {
                let target = std::fs::read_link(&path).unwrap().into_os_string().into_vec();
                format!("-> {}", target.escape_ascii())
            }
            _ => String::new(),
        };
        if kind == 0o040_000 {
            for entry in std::fs::read_dir(&path).unwrap() {
                todo.push(relative.join(entry.unwrap().file_name()));
            }
        } else {
            inodes.entry((meta.dev(), meta.ino())).or_default().push(relative.clone());
        }
        let node = Node {
            mode: meta.mode(),
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            device: if matches!(kind, 0o020_000 | 0o060_000) { meta.rdev() } else { 0 },
            links: Vec::new(),
            content,
            xattrs: xattrs(&path),
        };
        nodes.insert(relative, node);
    }
    for mut names in inodes.into_values() {
        names.sort();
        for name in &names {
            nodes.get_mut(name).unwrap().links = names.clone();
        }
    }
    nodes
}

/// Size of a file and digest of its blocks that are not zero, with their places: what is a hole is not read.
fn digest_of(path: &Path) -> String {
    use rustix::fs::SeekFrom;
    use std::os::unix::fs::FileExt;
    const BLOCK: u64 = 4096;
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut digester = isula_storage::digest::Digester::new();
    let mut at = 0;
    while at < size {
        let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap();
        at = data / BLOCK * BLOCK;
        while at < end {
            let mut block = [0u8; BLOCK as usize];
            let count = file.read_at(&mut block, at).unwrap();
            if block.iter().any(|byte| *byte != 0) {
                digester.update(&at.to_le_bytes());
                digester.update(&block[..count]);
            }
            at += BLOCK;
        }
    }
    format!("{size} {}", digester.finish())
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 1 << 16];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    names.truncate(length);
    let mut found = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    found
}

/// Differences between two trees, one a line.
pub fn differences(left: &Tree, right: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, node) in left {
        match right.get(path) {
            None => found.push(format!("{}: only left: {node:?}", path.display())),
            Some(other) if other != node => {
                found.push(format!("{}:\n    left  {node:?}\n    right {other:?}", path.display()));
            }
            Some(_) => {}
        }
    }
    for (path, node) in right {
        if !left.contains_key(path) {
            found.push(format!("{}: only right: {node:?}", path.display()));
        }
    }
    found
}

/// Fails unless two directories hold the same, whatever the times of the directories not named by the archive.
pub fn assert_same_trees(left: &Path, right: &Path) {
    let found = differences(&tree(left), &tree(right));
    assert!(found.is_empty(), "{} and {} differ:\n{}", left.display(), right.display(), found.join("\n"));
}

/// Unpacks `layer` into the existing directory `target`; gives the tar-split stream as well.
pub fn apply_with(layer: &[u8], target: &Path, options: &ApplyOptions) -> Result<(Applied, Vec<u8>)> {
    let dir = File::open(target).unwrap();
    let mut split = Vec::new();
    let mut source = layer;
    let applied = archive::apply(&mut source, dir.as_fd(), &mut split, options)?;
    Ok((applied, split))
}

/// The same with default options.
pub fn apply(layer: &[u8], target: &Path) -> Result<(Applied, Vec<u8>)> {
    apply_with(layer, target, &ApplyOptions::default())
}

/// The tar rebuilt from a tree and its tar-split stream.
pub fn rebuild(split: &[u8], target: &Path) -> Result<(Digest, Vec<u8>)> {
    let dir = File::open(target).unwrap();
    let mut tar = Vec::new();
    let mut source = split;
    let (digest, size) = archive::rebuild(&mut source, dir.as_fd(), &mut tar)?;
    assert_eq!(size.0, tar.len() as u64);
    assert_eq!(digest, Digest::of(&tar));
    Ok((digest, tar))
}

/// The verdict on the tree of an overlay.
pub fn verify(split: &[u8], target: &Path) -> Result<archive::Verdict> {
    verify_with(split, target, &VerifyOptions::default())
}

/// The verdict on a tree.
pub fn verify_with(split: &[u8], target: &Path, options: &VerifyOptions) -> Result<archive::Verdict> {
    let dir = File::open(target).unwrap();
    let mut source = split;
    archive::verify(&mut source, dir.as_fd(), options)
}

/// Unpacks a tar and checks what must hold of every archive: digests and sizes are right, the tree verifies, and the
/// rebuilt tar is the tar.
pub fn apply_and_check(tar: &[u8], target: &Path) -> (Applied, Vec<u8>) {
    let (applied, split) = apply(tar, target).unwrap_or_else(|error| panic!("{}", error.report()));
    let mut plain = Vec::new();
    archive::decompressed(Box::new(std::io::Cursor::new(tar))).unwrap().read_to_end(&mut plain).unwrap();
    assert_eq!(applied.diff_id, Digest::of(&plain));
    assert_eq!(applied.tar_size.0, plain.len() as u64);
    assert_eq!(applied.compressed_digest, Digest::of(tar));
    assert_eq!(applied.compressed_size.0, tar.len() as u64);
    assert_eq!(verify(&split, target).unwrap(), archive::Verdict::Valid);
    let (digest, rebuilt) = rebuild(&split, target).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_eq!(digest, applied.diff_id);
    assert!(rebuilt == plain, "the rebuilt tar differs");
    (applied, split)
}

/// A name of bytes as a path.
pub fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// The layers of a docker-archive among the golden images, base first.
pub fn layers_of(image: &str) -> Vec<Vec<u8>> {
    let scratch = Scratch::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(image);
    run("tar", &["-xzf".as_ref(), file.as_os_str()], scratch.path());
    let manifest = std::fs::read(scratch.path().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    layers.iter().map(|name| std::fs::read(scratch.path().join(name.as_str().unwrap())).unwrap()).collect()
}

/// Writes tars that no tool would write.
#[derive(Default, Clone)]
pub struct Tar(pub Vec<u8>);

/// One header, ustar unless changed.
#[derive(Clone)]
pub struct Header {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub device: (u32, u32),
    pub size: u64,
    pub magic: [u8; 8],
}

impl Header {
    pub fn new(name: impl AsRef<[u8]>, kind: u8) -> Self {
        Header {
            name: name.as_ref().to_vec(),
            link: Vec::new(),
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 1_000_000_000,
            device: (0, 0),
            size: 0,
            magic: *b"ustar\x0000",
        }
    }

    pub fn block(&self) -> [u8; 512] {
        let mut block = [0u8; 512];
        block[..self.name.len().min(100)].copy_from_slice(&self.name[..self.name.len().min(100)]);
        block[100..108].copy_from_slice(format!("{:07o}\0", self.mode).as_bytes());
        block[108..116].copy_from_slice(format!("{:07o}\0", self.uid).as_bytes());
        block[116..124].copy_from_slice(format!("{:07o}\0", self.gid).as_bytes());
        if self.size < 1 << 33 {
            block[124..136].copy_from_slice(format!("{:011o}\0", self.size).as_bytes());
        } else {
            block[124] = 0x80;
            block[128..136].copy_from_slice(&self.size.to_be_bytes());
        }
        block[136..148].copy_from_slice(format!("{:011o}\0", self.mtime).as_bytes());
        block[156] = self.kind;
        block[157..157 + self.link.len().min(100)].copy_from_slice(&self.link[..self.link.len().min(100)]);
        block[257..265].copy_from_slice(&self.magic);
        block[329..337].copy_from_slice(format!("{:07o}\0", self.device.0).as_bytes());
        block[337..345].copy_from_slice(format!("{:07o}\0", self.device.1).as_bytes());
        sign(&mut block);
        block
    }
}

/// Sets the checksum of a header block.
pub fn sign(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

impl Tar {
    pub fn new() -> Self {
        Tar::default()
    }

    pub fn header(mut self, header: &Header) -> Self {
        self.0.extend_from_slice(&header.block());
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Content with its padding.
    pub fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let header = Header { size: content.len() as u64, ..Header::new(name, b'0') };
        self.header(&header).content(content)
    }

    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.header(&Header { mode: 0o755, ..Header::new(name, b'5') })
    }

    pub fn link(self, kind: u8, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.header(&Header { link: target.as_ref().to_vec(), ..Header::new(name, kind) })
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.link(b'2', name, target)
    }

    pub fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.link(b'1', name, target)
    }

    /// An extended header of any kind: `x`, `g`, `L`, `K`.
    pub fn extended(self, kind: u8, body: &[u8]) -> Self {
        let header = Header { size: body.len() as u64, ..Header::new("extended", kind) };
        self.header(&header).content(body)
    }

    /// PAX records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(keyword, value)| record(keyword, value)).collect();
        self.extended(b'x', &body)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// One PAX record with its right length.
pub fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut bytes = format!("{length} {keyword}=").into_bytes();
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
    bytes
}

/// A mounted overlay, unmounted with its value.
pub struct Overlay(PathBuf);

impl Overlay {
    /// Mounts `lowers`, topmost first, read-only on `target`.
    pub fn mount(lowers: &[PathBuf], target: &Path) -> Self {
        let lowers: Vec<_> = lowers.iter().map(|path| path.to_str().unwrap()).collect();
        // One lower alone is no overlay to the kernel; an empty one below changes nothing.
        let empty = target.with_extension("empty");
        std::fs::create_dir_all(&empty).unwrap();
        let options = format!("lowerdir={}:{}", lowers.join(":"), empty.display());
        let arguments = ["-t", "overlay", "overlay", "-o", &options];
        let mut arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        arguments.push(target.as_os_str());
        run("mount", &arguments, target);
        Overlay(target.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Lazily: a process that another test just forked may hold a descriptor for a moment.
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(std::thread::panicking() || done.is_ok_and(|status| status.success()));
    }
}
