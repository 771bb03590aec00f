// SPDX-License-Identifier: MulanPSL-2.0
//! What the targets for records, references, documents and unpacking do with an input. Also replayed by `tests/fuzz_corpus.rs`.

use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use isula_storage::archive::fuzzing;
use isula_storage::digest::Digest;
use isula_storage::id::{ImageId, LayerId};
use isula_storage::imagedb::{Config, Familiar, ImageDb, ImageDbOptions, NoLayers};
use isula_storage::persist::{Durability, Ownership};
use isula_storage::record::image::ImageRecord;
use isula_storage::record::layer::LayerRecord;
use isula_storage::record::mount_point::MountPointRecord;
use isula_storage::record::rootfs::RootfsRecord;
use isula_storage::reference;
use isula_storage::spec::config::ImageConfig;
use isula_storage::spec::docker_archive;
use isula_storage::spec::docker_config::DockerConfig;
use isula_storage::spec::manifest::{Index, Manifest};
use isula_storage::spec::oci_layout;
use isula_storage::spec::schema1::Schema1;
use isula_storage::time::Timestamp;
use isula_storage::units::Bytes;

/// What is read as a record can be written, and what is written is read as the same record.
pub(crate) fn records(input: &[u8]) {
    if let Ok(record) = ImageRecord::parse(input) {
        let text = record.to_json().expect("a record that was read can be written");
        assert_eq!(ImageRecord::parse(&text).expect("what was written can be read"), record);
    }
    if let Ok(record) = LayerRecord::parse(input) {
        let text = record.to_json().expect("a record that was read can be written");
        assert_eq!(LayerRecord::parse(&text).expect("what was written can be read"), record);
    }
    if let Ok(record) = RootfsRecord::parse(input) {
        let text = record.to_json().expect("a record that was read can be written");
        assert_eq!(RootfsRecord::parse(&text).expect("what was written can be read"), record);
    }
    if let Ok(record) = MountPointRecord::parse(input) {
        let text = record.to_json().expect("a record that was read can be written");
        assert_eq!(MountPointRecord::parse(&text).expect("what was written can be read"), record);
    }
}

/// Configs and names of Docker's images: the chain ID follows from the diff IDs, and what is familiar stays so.
pub(crate) fn docker_images(input: &[u8]) {
    if let Ok(config) = Config::parse(input) {
        assert_eq!(config.chain_id, isula_storage::digest::chain_ids(&config.diff_ids).last().copied());
        assert!(config.check_history().is_ok() || config.history.len() > config.diff_ids.len());
        // White space around is no part of it.
        let spaced = [b" \n", input, b"\t"].concat();
        assert_eq!(Config::parse(&spaced).expect("the same with white space"), config);
    }
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(name) = Familiar::parse(text)
    {
        let again = Familiar::parse(&name.key()).expect("a familiar name is a name");
        assert_eq!((again.repository.as_str(), again.key()), (name.repository.as_str(), name.key()));
    }
}

/// What lies in Docker's store, whatever it is: its names, configs, and parents. Parts of the input end with 0xff 0xff; the
/// first is the file of names, of the others every third is the parent of the one before, as far as there is one.
pub(crate) fn docker_store(input: &[u8]) {
    let place = Place::in_memory();
    let root = place.0.join("root");
    let content = root.join("imagedb/content/sha256");
    fs::create_dir_all(&content).expect("directories");
    let mut parts = split(input).into_iter();
    let write = |path: PathBuf, bytes: &[u8]| {
        #[allow(clippy::disallowed_methods, reason = "not a durable write")]
        fs::write(path, bytes).expect("a file");
    };
    write(root.join("repositories.json"), parts.next().unwrap_or_default());
    let mut last: Option<Digest> = None;
    for (number, part) in parts.enumerate().take(9) {
        match last.filter(|_| number % 3 == 2) {
            Some(child) => {
                let metadata = root.join("imagedb/metadata/sha256").join(child.hex());
                fs::create_dir_all(&metadata).expect("a directory");
                // A number is that of an earlier part; else it is the text itself.
                write(metadata.join("parent"), part);
            }
            None => {
                let id = Digest::of(part);
                write(content.join(id.hex()), part);
                last = Some(id);
            }
        }
    }
    for ownership in [Ownership::ReadOnly, Ownership::Owner, Ownership::Owner] {
        let db = ImageDb::open(ImageDbOptions {
            root: root.clone(),
            ownership,
            durability: Durability::None,
            layers: std::sync::Arc::new(NoLayers),
        });
        looked_at(&db.expect("nothing that lies there keeps the store from opening"), ownership);
    }
}

fn split(input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(2).position(|pair| pair == [0xff, 0xff]) {
        parts.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    parts.push(rest);
    parts
}

fn looked_at(db: &ImageDb, ownership: Ownership) {
    let all = db.map();
    assert_eq!(all.len(), db.len());
    for head in db.heads() {
        assert!(db.children(&head.id).is_empty(), "a head has no children");
    }
    for image in &all {
        assert_eq!(db.get(&image.id).expect("what is listed can be had"), *image);
        assert_eq!(db.search(&image.id.hex()).expect("an image is found by its id"), image.id);
        if ownership == Ownership::Owner {
            // No circle can be made, whatever was there before.
            assert!(db.set_parent(&image.id, &image.id).is_err());
            if let Some(first) = all.first() {
                drop(db.set_parent(&image.id, &first.id));
            }
        }
    }
    for name in db.all_names() {
        // Names that are none are kept, but nobody can ask for them.
        drop(db.by_name(&name.name));
    }
    if ownership == Ownership::Owner {
        let names = db.all_names();
        let id = Digest::of(b"x");
        if db.add_name("fuzz:1", &id, true).is_ok() {
            assert_eq!(db.by_name("fuzz:1").expect("it was named"), id);
            assert!(names.iter().all(|name| name.name == "fuzz:1" || db.all_names().contains(name)));
        }
    }
}

/// Names, ids, digests, times and sizes: positions are in the text, what is valid stays so when it is made again.
pub(crate) fn references(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for host in [None, Some("docker.io"), Some("")] {
        if let Ok(name) = reference::normalize(text, host) {
            assert!(name.len() <= text.len() + ":latest".len());
        }
        assert!(text.ends_with(reference::strip_host(text, host)));
        drop(reference::parse_digest(text, host));
    }
    if let Ok(tagged) = reference::default_tag(text) {
        assert_eq!(reference::default_tag(&tagged).expect("a tagged name stays"), tagged);
    }
    for (position, mark) in [(reference::tag_position(text), ':'), (reference::digest_position(text), '@')] {
        assert!(position.is_none_or(|at| text[at..].starts_with(mark)));
    }
    assert!(text.starts_with(reference::without_tag(text)));
    if reference::is_valid_name(text) {
        // What follows 32 characters of a digest is not looked at, as in the reference.
        assert!(text.len() <= 255);
    }
    reference::is_digest_name(text);
    assert!(!reference::big_data_file_name(text).contains('\0') || text.contains('\0'));
    reference::parse_user_group(text);
    reference::parse_integer(text);
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
    }
    for valid in [LayerId::new(text).is_ok(), ImageId::new(text).is_ok()] {
        assert!(!valid || (!text.contains('/') && !text.starts_with('.') && (1..=255).contains(&text.len())));
    }
    if let Ok(time) = Timestamp::parse(text)
        && let Some(utc) = time.to_utc_text()
    {
        // The epoch has two spellings, and years at the edge may leave the range by their offset.
        assert!(Timestamp::parse(&utc).map_or(true, |again| again == time));
    }
    if let Ok(size) = Bytes::parse(text) {
        assert!(i64::try_from(size.0).is_ok());
    }
}

/// Documents of others.
pub(crate) fn documents(input: &[u8]) {
    drop(ImageConfig::parse(input));
    drop(Index::parse(input));
    if let Ok(manifest) = Manifest::parse(input) {
        drop(oci_layout::check_types(&manifest));
    }
    if let Ok(config) = DockerConfig::parse(input) {
        let text = config.to_text();
        assert_eq!(
            DockerConfig::parse(text.as_bytes()).expect("what was written can be read").to_text(),
            text
        );
    }
    if let Ok(manifest) = Schema1::parse(input)
        && let Ok(layers) = manifest.layers()
    {
        let diff_ids = vec![None; layers.len()];
        drop(manifest.to_config(&layers, &diff_ids));
    }
    drop(docker_archive::parse_manifest(input));
    drop(oci_layout::check_layout(input));
}

/// Unpacks a layer below a directory of temporary files. Nothing beside the two targets changes.
pub(crate) fn unpacking(input: &[u8]) {
    for unpack in [fuzzing::unpacking, fuzzing::unpacking_signed] {
        let place = Place::new();
        let (alone, together) = (place.dir("alone"), place.dir("together"));
        #[allow(clippy::disallowed_methods, reason = "not a durable write")]
        fs::write(place.0.join("canary"), "alive").expect("a file beside them");
        unpack(input, alone.as_fd(), together.as_fd());
        assert_eq!(fs::read(place.0.join("canary")).expect("the file beside them"), b"alive");
        let mut names: Vec<_> = fs::read_dir(&place.0)
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["alone", "canary", "together"], "something was made outside");
    }
}

/// A directory that goes away with its value.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        Place::below(&std::env::temp_dir())
    }

    /// Where nothing waits for a disk, for what is only files and directories.
    fn in_memory() -> Place {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Place::below(memory) } else { Place::new() }
    }

    fn below(dir: &Path) -> Place {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("isula-storage-fuzz-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a directory for temporary files");
        Place(path)
    }

    fn dir(&self, name: &str) -> File {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("a directory");
        File::open(path).expect("a directory")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if fs::remove_dir_all(&self.0).is_err() {
            // Without privileges a directory that its owner may not write keeps what is in it.
            open_up(&self.0);
            fs::remove_dir_all(&self.0).expect("the directory can be removed");
        }
    }
}

fn open_up(dir: &Path) {
    drop(fs::set_permissions(dir, Permissions::from_mode(0o700)));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
