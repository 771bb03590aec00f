// SPDX-License-Identifier: MulanPSL-2.0
//! One thing at a time is damaged in stores that a real iSulad daemon wrote: every file, link and directory in turn, in
//! every way. Then the store still starts, all else is there, the damage is reported, nothing was deleted, and making the
//! damaged thing again heals it. What is expected of each class of things is in one table, [`TABLE`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;
mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use archive_common::layers_of;
use common::{TestRoot, need_root, run};
use isula_storage::digest::Digest;
use isula_storage::error::ErrorKind;
use isula_storage::id::{ContainerId, ImageId, LayerId};
use isula_storage::image::CreateImage;
use isula_storage::layer::{CreateLayer, Created, Layer};
use isula_storage::record::image::ImageRecord;
use isula_storage::record::rootfs::RootfsRecord;
use isula_storage::storage::{CreateContainer, Durability, Ownership, Storage, StorageOptions, Verdict};
use isula_storage::time::Timestamp;

/// What is done to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    /// Nothing is in it any more.
    Emptied,
    /// Its second half is missing.
    Halved,
    /// Something else is in it; a link leads nowhere; instead of a directory there is a file.
    Garbage,
    Deleted,
    /// Nobody may read it any more.
    Closed,
    /// It does not hide what is below it any more.
    Unmarked,
}
use Damage::{Closed, Deleted, Emptied, Garbage, Halved, Unmarked};

/// What a thing is to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    ImageLayerRecord,
    ImageLayerRecordDir,
    ContainerLayerRecord,
    ContainerLayerRecordDir,
    TarSplit,
    /// `link` or `lower` of a layer.
    LinkFile,
    /// A link in `l/`.
    ShortName,
    /// `work`, `merged`, `empty` of a layer, and `l`.
    DerivableDir,
    /// What the kernel keeps in `work`.
    KernelDir,
    ImageLayerDir,
    ImageLayerDiff,
    ImageFile,
    /// A directory, device or link in an image layer, of which tar-split says that it is there.
    ImageNode,
    /// A device that hides what is below.
    Whiteout,
    /// A directory that hides what is below.
    OpaqueDir,
    /// A file in a layer whose tar-split holds its headers.
    OwnImageFile,
    /// A directory, device or link in such a layer.
    OwnImageNode,
    ContainerLayerDir,
    ContainerDiff,
    ContainerContent,
    ImageRecord,
    ImageBigData,
    ImageDir,
    ContainerRecord,
    ContainerRecordDir,
    MountState,
    NeedCheck,
    BackingDevice,
    /// `overlay-layers` and the like.
    StoreDir,
}

/// What is missing from lists after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Nothing,
    /// The layer, and the images that have it.
    Layer,
    /// The layer alone: a container's.
    ContainerLayer,
    Image,
    Container,
    /// Whatever the directory held.
    All,
}

/// Where the damage is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    AtStart,
    /// By `check`.
    Check,
    /// By `check --deep`.
    Deep,
    /// Nobody can know.
    Nowhere,
}

/// What brings the thing back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heal {
    /// Nothing is needed.
    Nothing,
    /// `repair`, or the first use.
    Repair,
    /// Making layer, image and container again, and `repair`.
    Again,
    /// The container's own content is lost; deleting the container and making it again.
    NewContainer,
    /// Nothing: it is lost, or nobody knows of it.
    Lost,
}

struct Row {
    class: Class,
    damages: &'static [Damage],
    lost: Lost,
    told: Told,
    heal: Heal,
}

const fn row(class: Class, damages: &'static [Damage], lost: Lost, told: Told, heal: Heal) -> Row {
    Row { class, damages, lost, told, heal }
}

const FILE: &[Damage] = &[Emptied, Halved, Garbage, Deleted];
const DIR: &[Damage] = &[Emptied, Garbage, Deleted];

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row(Class::ImageLayerRecord,        FILE,                 Lost::Layer,          Told::AtStart, Heal::Again),
    row(Class::ImageLayerRecordDir,     DIR,                  Lost::Layer,          Told::AtStart, Heal::Again),
    row(Class::ContainerLayerRecord,    FILE,                 Lost::ContainerLayer, Told::AtStart, Heal::Repair),
    row(Class::ContainerLayerRecordDir, DIR,                  Lost::ContainerLayer, Told::AtStart, Heal::Repair),
    row(Class::TarSplit,                &[Emptied, Deleted],  Lost::Nothing,        Told::AtStart, Heal::Again),
    row(Class::TarSplit,                &[Halved, Garbage],   Lost::Nothing,        Told::Check,   Heal::Again),
    row(Class::LinkFile,                FILE,                 Lost::Nothing,        Told::Check,   Heal::Repair),
    row(Class::ShortName,               &[Emptied, Garbage, Deleted], Lost::Nothing, Told::Check,  Heal::Repair),
    row(Class::DerivableDir,            &[Deleted],           Lost::Nothing,        Told::Check,   Heal::Repair),
    row(Class::KernelDir,               &[Deleted],            Lost::Nothing,        Told::Nowhere, Heal::Nothing),
    row(Class::ImageLayerDir,           &[Garbage, Deleted],  Lost::Layer,          Told::AtStart, Heal::Again),
    row(Class::ImageLayerDir,           &[Emptied],           Lost::Nothing,        Told::Check,   Heal::Again),
    row(Class::ImageLayerDiff,          &[Garbage, Deleted],  Lost::Nothing,        Told::Check,   Heal::Again),
    row(Class::ImageLayerDiff,          &[Emptied],           Lost::Nothing,        Told::Deep,    Heal::Again),
    row(Class::ImageFile,               FILE,                 Lost::Nothing,        Told::Deep,    Heal::Again),
    row(Class::ImageNode,               &[Deleted],           Lost::Nothing,        Told::Deep,    Heal::Again),
    row(Class::Whiteout,                &[Garbage, Deleted],  Lost::Nothing,        Told::Deep,    Heal::Again),
    row(Class::OpaqueDir,               &[Deleted, Unmarked], Lost::Nothing,        Told::Deep,    Heal::Again),
    row(Class::OwnImageFile,            &[Closed],            Lost::Nothing,        Told::Deep,    Heal::Again),
    row(Class::OwnImageNode,            &[Garbage, Closed],   Lost::Nothing,        Told::Deep,    Heal::Again),
    row(Class::ContainerLayerDir,       &[Garbage, Deleted],  Lost::Nothing,        Told::AtStart, Heal::NewContainer),
    row(Class::ContainerLayerDir,       &[Emptied],           Lost::Nothing,        Told::Check,   Heal::NewContainer),
    row(Class::ContainerDiff,           &[Garbage, Deleted],  Lost::Nothing,        Told::Check,   Heal::NewContainer),
    row(Class::ContainerDiff,           &[Emptied],           Lost::Nothing,        Told::Nowhere, Heal::Lost),
    row(Class::ContainerContent,        FILE,                 Lost::Nothing,        Told::Nowhere, Heal::Lost),
    row(Class::ImageRecord,             FILE,                 Lost::Image,          Told::AtStart, Heal::Again),
    row(Class::ImageBigData,            FILE,                 Lost::Image,          Told::AtStart, Heal::Again),
    row(Class::ImageDir,                &[Emptied, Garbage],  Lost::Image,          Told::AtStart, Heal::Again),
    row(Class::ImageDir,                &[Deleted],           Lost::Image,          Told::Nowhere, Heal::Again),
    row(Class::ContainerRecord,         FILE,                 Lost::Container,      Told::AtStart, Heal::Again),
    row(Class::ContainerRecordDir,      DIR,                  Lost::Container,      Told::AtStart, Heal::Again),
    row(Class::MountState,              &[Emptied, Halved, Garbage], Lost::Nothing, Told::AtStart, Heal::Nothing),
    row(Class::MountState,              &[Deleted],           Lost::Nothing,        Told::Nowhere, Heal::Nothing),
    row(Class::NeedCheck,               FILE,                 Lost::Nothing,        Told::Nowhere, Heal::Lost),
    row(Class::BackingDevice,           &[Garbage, Deleted],  Lost::Nothing,        Told::Nowhere, Heal::Nothing),
    row(Class::StoreDir,                &[Emptied, Deleted],  Lost::All,            Told::Nowhere, Heal::Lost),
];

/// An image, and its big data by key.
type GoldenImage = (Arc<ImageRecord>, BTreeMap<String, Vec<u8>>);

/// A store as it should be.
#[derive(Clone)]
struct Golden {
    /// `running`, `imported`, `fresh`; `ours`, made by this library from the archives.
    name: &'static str,
    /// Where it lies untouched, with storage and run root below it.
    place: PathBuf,
    storage: &'static str,
    images: Vec<GoldenImage>,
    layers: Vec<Layer>,
    containers: Vec<Arc<RootfsRecord>>,
}

/// One thing to damage.
struct Case<'a> {
    golden: &'a Golden,
    row: &'static Row,
    /// Relative to the place.
    path: PathBuf,
    /// The id of what it belongs to; empty for what belongs to none.
    id: String,
    damage: Damage,
}

fn open(place: &Path, storage: &str, ownership: Ownership) -> isula_storage::error::Result<Storage> {
    Storage::open(StorageOptions {
        ownership,
        durability: Durability::None,
        ..StorageOptions::new(place.join(storage), place.join("run"))
    })
}

impl Golden {
    fn new(all: &Path, name: &'static str) -> Golden {
        let place = all.join(name);
        let storage = if name == "fresh" { "." } else { "storage" };
        let store = open(&place, storage, Ownership::ReadOnly).unwrap();
        let images = store.images().list().unwrap().into_iter().map(|record| {
            let id = record.id.as_deref().unwrap();
            let data = |key: &String| (key.clone(), store.images().big_data(id, key).unwrap());
            let data = record.big_data_names.iter().map(data).collect();
            (record, data)
        });
        let containers = store.containers().map(|containers| containers.list().unwrap()).unwrap_or_default();
        Golden {
            name,
            images: images.collect(),
            layers: store.layers().list(),
            containers,
            storage,
            place: place.clone(),
        }
    }

    /// A store with what can be made of the archives.
    fn made_by_us(&self, all: &Path, archives: &HashMap<String, Vec<u8>>) -> Golden {
        let mut part = self.clone();
        part.layers.retain(|layer| archives.contains_key(layer.id.as_str()));
        part.images.retain(|(image, _)| {
            self.chain(image.layer.as_deref().unwrap()).iter().all(|id| archives.contains_key(id))
        });
        part.containers.clear();
        let place = all.join("ours");
        fs::create_dir_all(place.join("storage")).unwrap();
        fs::create_dir_all(place.join("run")).unwrap();
        let storage = open(&place, "storage", Ownership::Owner).unwrap();
        let case =
            Case { golden: &part, row: &TABLE[0], path: PathBuf::new(), id: String::new(), damage: Deleted };
        case.make_again(&storage, archives);
        storage.close().unwrap();
        let made = Golden::new(all, "ours");
        assert!(made.layers.len() == part.layers.len() && !made.images.is_empty());
        made
    }

    fn is_container(&self, id: &str) -> bool {
        self.layers.iter().any(|layer| layer.id.as_str() == id && layer.writable)
    }

    /// A layer and what it stands on.
    fn chain(&self, top: &str) -> Vec<String> {
        let mut chain = Vec::new();
        let mut next = Some(top.to_owned());
        while let Some(layer) = next.and_then(|id| self.layers.iter().find(|layer| layer.id.as_str() == id)) {
            chain.push(layer.id.to_string());
            next = layer.parent.as_ref().map(ToString::to_string);
        }
        chain
    }

    /// What a path below the place is, and the id of what it belongs to.
    fn classify(&self, path: &Path) -> Option<(Class, String)> {
        let full = self.place.join(path);
        let kind = fs::symlink_metadata(&full).unwrap().file_type();
        let below = path.strip_prefix(self.storage).unwrap_or(path);
        let parts: Vec<&str> = below.iter().map(|part| part.to_str().unwrap()).collect();
        let of = |id: &str, image, container| {
            (if self.is_container(id) { container } else { image }, id.to_owned())
        };
        let alone = |class| (class, String::new());
        Some(match parts[..] {
            [] | ["run"] => return None,
            ["run", _] => alone(Class::StoreDir),
            ["run", _, file] => (Class::MountState, file.trim_end_matches(".json").to_owned()),
            ["NEED_CHECK"] => alone(Class::NeedCheck),
            ["overlay", "l"] => alone(Class::DerivableDir),
            ["overlay", "backingFsBlockDev"] => alone(Class::BackingDevice),
            ["overlay", "l", _] => {
                let target = fs::read_link(&full).unwrap();
                (Class::ShortName, target.iter().nth(1).unwrap().to_str().unwrap().to_owned())
            }
            [_] => alone(Class::StoreDir),
            ["overlay-layers", id] => of(id, Class::ImageLayerRecordDir, Class::ContainerLayerRecordDir),
            ["overlay-layers", id, "layer.json"] => {
                of(id, Class::ImageLayerRecord, Class::ContainerLayerRecord)
            }
            ["overlay-layers", id, _] => (Class::TarSplit, id.to_owned()),
            ["overlay-images", id] => (Class::ImageDir, id.to_owned()),
            ["overlay-images", id, "images.json"] => (Class::ImageRecord, id.to_owned()),
            ["overlay-images", id, _] => (Class::ImageBigData, id.to_owned()),
            ["overlay-containers", id] => (Class::ContainerRecordDir, id.to_owned()),
            ["overlay-containers", id, _] => (Class::ContainerRecord, id.to_owned()),
            ["overlay", id] => of(id, Class::ImageLayerDir, Class::ContainerLayerDir),
            ["overlay", id, "diff"] => of(id, Class::ImageLayerDiff, Class::ContainerDiff),
            ["overlay", id, "link" | "lower"] => (Class::LinkFile, id.to_owned()),
            ["overlay", id, "work", _] => (Class::KernelDir, id.to_owned()),
            ["overlay", id, _] => (Class::DerivableDir, id.to_owned()),
            ["overlay", id, "diff", ..] => {
                let whiteout = kind.is_char_device() && rdev(&full) == 0;
                let class = match (whiteout, kind.is_file()) {
                    (true, _) => Class::Whiteout,
                    _ if is_opaque(&full) => Class::OpaqueDir,
                    (_, true) if self.name == "ours" => Class::OwnImageFile,
                    (_, true) => Class::ImageFile,
                    _ if self.name == "ours" => Class::OwnImageNode,
                    _ => Class::ImageNode,
                };
                of(id, class, Class::ContainerContent)
            }
            _ => panic!("{}: what is that?", path.display()),
        })
    }

    fn cases(&self) -> Vec<Case<'_>> {
        let mut paths = Vec::new();
        walk(&self.place, Path::new(""), &mut paths);
        let mut cases = Vec::new();
        for path in paths {
            // All else is the same whoever made the store.
            let is_content = path.iter().nth(3).is_some_and(|part| part == "diff") && path.iter().count() > 4;
            if self.name == "ours" && !is_content {
                continue;
            }
            let Some((class, id)) = self.classify(&path) else { continue };
            for row in TABLE.iter().filter(|row| row.class == class) {
                let damages = row.damages.iter().filter(|damage| applies(&self.place.join(&path), **damage));
                cases.extend(damages.map(|damage| Case {
                    golden: self,
                    row,
                    path: path.clone(),
                    id: id.clone(),
                    damage: *damage,
                }));
            }
        }
        cases
    }
}

fn rdev(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).unwrap().rdev()
}

const OPAQUE: &str = "trusted.overlay.opaque";

fn is_opaque(path: &Path) -> bool {
    rustix::fs::lgetxattr(path, OPAQUE, &mut [0u8; 8][..]).is_ok()
}

fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) {
    found.push(below.to_owned());
    let path = root.join(below);
    if fs::symlink_metadata(&path).unwrap().is_dir() {
        for entry in fs::read_dir(&path).unwrap() {
            walk(root, &below.join(entry.unwrap().file_name()), found);
        }
    }
}

/// Whether such a thing can be damaged so, and then is another.
fn applies(path: &Path, damage: Damage) -> bool {
    let stat = fs::symlink_metadata(path).unwrap();
    match damage {
        Closed => return !stat.is_symlink(),
        Unmarked => return is_opaque(path),
        _ => {}
    }
    if stat.is_dir() {
        return damage != Halved && (damage != Emptied || fs::read_dir(path).unwrap().next().is_some());
    }
    if !stat.is_file() && !stat.is_symlink() {
        return matches!(damage, Garbage | Deleted);
    }
    match damage {
        Emptied => stat.len() > 0,
        Halved => stat.is_file() && stat.len() > 1,
        Garbage | Deleted => true,
        Closed | Unmarked => false,
    }
}

fn apply(path: &Path, damage: Damage) {
    let stat = fs::symlink_metadata(path).unwrap();
    match damage {
        Closed => return fs::set_permissions(path, fs::Permissions::from_mode(0o001)).unwrap(),
        Unmarked => return rustix::fs::removexattr(path, OPAQUE).unwrap(),
        _ => {}
    }
    if stat.is_file() && damage != Deleted {
        let content = fs::read(path).unwrap();
        let content = match damage {
            Emptied => Vec::new(),
            Halved => content[..content.len() / 2].to_vec(),
            _ => (0x80..=0xff).cycle().step_by(7).take(content.len().max(64)).collect(),
        };
        return fs::write(path, content).unwrap();
    }
    if stat.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
    match damage {
        Deleted | Closed | Unmarked => {}
        Emptied if stat.is_dir() => fs::create_dir(path).unwrap(),
        Garbage if stat.is_symlink() => symlink("../nowhere/diff", path).unwrap(),
        Emptied => fs::write(path, "").unwrap(),
        Halved | Garbage => fs::write(path, "garbage").unwrap(),
    }
}

/// Digests of all contents, with a path of each. What is derivable is left out.
fn contents(place: &Path, storage: &str) -> HashMap<Digest, PathBuf> {
    let mut paths = Vec::new();
    walk(place, Path::new(""), &mut paths);
    let mut found = HashMap::new();
    for path in paths {
        let full = place.join(&path);
        let below = path.strip_prefix(storage).unwrap_or(&path);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let derivable = below.starts_with("run")
            || (below.starts_with("overlay")
                && below.iter().count() == 3
                && (name == "link" || name == "lower"))
            || below.iter().any(|part| part == "merged")
            // Counts changes.
            || (name == "generation" && below.starts_with("overlay-images/.isula-storage"));
        let stat = fs::symlink_metadata(&full).unwrap();
        if stat.is_file() && stat.len() > 0 && !derivable {
            found.insert(Digest::of(&fs::read(&full).unwrap()), path);
        }
    }
    found
}

fn assert_kept(
    before: &HashMap<Digest, PathBuf>,
    place: &Path,
    storage: &str,
    may_go: impl Fn(&str) -> bool,
) {
    let after = contents(place, storage);
    let mut gone: Vec<_> = before.iter().filter(|(digest, _)| !after.contains_key(digest)).collect();
    gone.retain(|(_, path)| !may_go(&path.to_string_lossy()));
    assert!(gone.is_empty(), "content is gone: {:?}", gone.iter().map(|(_, path)| path).collect::<Vec<_>>());
}

/// What is listed: images, layers, containers.
fn listed(storage: &Storage) -> [BTreeSet<String>; 3] {
    let containers = storage.containers().map(|containers| containers.list().unwrap()).unwrap_or_default();
    [
        storage.images().list().unwrap().iter().map(|image| image.id.clone().unwrap()).collect(),
        storage.layers().list().iter().map(|layer| layer.id.to_string()).collect(),
        containers.iter().map(|record| record.id.clone().unwrap()).collect(),
    ]
}

impl Case<'_> {
    fn expected(&self, lost: Lost) -> [BTreeSet<String>; 3] {
        let images = self.golden.images.iter().filter(|(image, _)| match lost {
            Lost::Image => image.id.as_deref() != Some(&self.id),
            Lost::Layer => !self.golden.chain(image.layer.as_deref().unwrap()).contains(&self.id),
            _ => true,
        });
        let is_lost = |id: &str| matches!(lost, Lost::Layer | Lost::ContainerLayer) && id == self.id;
        let layers = self.golden.layers.iter().filter(|layer| !is_lost(layer.id.as_str()));
        let containers = self
            .golden
            .containers
            .iter()
            .filter(|record| lost != Lost::Container || record.id.as_deref() != Some(&self.id));
        [
            images.map(|(image, _)| image.id.clone().unwrap()).collect(),
            layers.map(|layer| layer.id.to_string()).collect(),
            containers.map(|record| record.id.clone().unwrap()).collect(),
        ]
    }

    /// Whether a container has nothing to do with the damage.
    fn is_apart(&self, container: &str) -> bool {
        self.id.is_empty() || !self.golden.chain(container).contains(&self.id)
    }

    /// Whether it can be made again here: iSulad keeps no headers, so only from an archive that lies in the repository.
    fn can_be_made(&self, archives: &HashMap<String, Vec<u8>>) -> bool {
        let layer = self.golden.layers.iter().any(|layer| layer.id.as_str() == self.id && !layer.writable);
        !layer || archives.contains_key(&self.id)
    }

    fn run(&self, place: &Path, archives: &HashMap<String, Vec<u8>>) {
        run(Command::new("cp").arg("-a").arg(&self.golden.place).arg(place));
        apply(&place.join(&self.path), self.damage);
        let before = contents(place, self.golden.storage);
        let deep = self.row.told == Told::Deep;

        // Who only looks sees it, and changes nothing.
        if self.row.lost != Lost::All {
            let reader = open(place, self.golden.storage, Ownership::ReadOnly).unwrap();
            let found = reader.check(deep).unwrap().findings;
            let about = |text: &str| self.id.is_empty() || text.contains(&self.id);
            let told = found.iter().any(|finding| about(&finding.subject) || about(&finding.reason));
            match self.row.told {
                // Nothing is left to be told of.
                Told::Nowhere if self.row.class == Class::ImageDir => {}
                _ if self.golden.layers.is_empty() => {}
                Told::Nowhere => assert!(found.is_empty(), "{found:?}"),
                // The run root is of no concern to a check.
                Told::AtStart if self.row.class == Class::MountState => {}
                _ => assert!(told, "nothing is told of it: {found:?}"),
            }
            if self.row.heal == Heal::Repair && !self.golden.layers.is_empty() {
                assert!(
                    found.iter().any(|finding| finding.derivable) || self.row.lost != Lost::Nothing,
                    "{found:?}"
                );
            }
            drop(reader);
            assert_eq!(
                contents(place, self.golden.storage).len(),
                before.len(),
                "a reader changed something"
            );
        }

        let storage = open(place, self.golden.storage, Ownership::Owner).unwrap();
        let problems = storage.problems();
        if self.row.lost == Lost::All {
            storage.close().unwrap();
            return assert_kept(&before, place, self.golden.storage, |_| false);
        }
        assert_eq!(listed(&storage), self.expected(self.row.lost), "listed; problems {problems:?}");
        if self.row.told == Told::AtStart {
            assert!(problems.iter().any(|problem| problem.subject.contains(&self.id)), "{problems:?}");
        }
        for record in &self.golden.containers {
            let id = record.id.as_deref().unwrap();
            if self.is_apart(id) {
                let merged = storage.mount_container(id).unwrap();
                assert!(merged.join("bin/busybox").exists(), "container {id}");
            }
            storage.layers().unmount(id, true).unwrap();
        }
        for layer in &self.golden.layers {
            let id = layer.id.as_str();
            // The large ones are compared at the end, if they are what was damaged.
            let small = layer.uncompressed_digest.is_some() && layer.uncompressed_size < 64 << 10;
            if small && !self.golden.chain(id).contains(&self.id) && storage.layers().exists(id) {
                assert_eq!(storage.layers().check(id).unwrap(), Verdict::Valid, "layer {id}");
            }
        }
        storage.close().unwrap();
        assert_kept(&before, place, self.golden.storage, |_| false);
        if self.row.heal == Heal::Lost || (self.row.heal == Heal::Again && !self.can_be_made(archives)) {
            return;
        }

        let storage = open(place, self.golden.storage, Ownership::Owner).unwrap();
        if self.row.heal == Heal::Again {
            storage.check(deep).unwrap();
            self.make_again(&storage, archives);
        }
        if self.row.heal == Heal::NewContainer {
            assert!(storage.delete_container(&self.id).unwrap());
            self.make_containers(&storage);
        }
        if self.row.heal != Heal::Nothing {
            let report = storage.repair(false).unwrap();
            assert!(report.left.iter().all(|finding| !finding.derivable), "{report:?}");
        }
        storage.close().unwrap();
        // What was made again is derived anew, and a container that was deleted is gone.
        assert_kept(&before, place, self.golden.storage, |path| {
            path.ends_with(".tar-split.gz")
                || path.ends_with("images.json")
                || (self.row.heal == Heal::NewContainer && path.contains(&self.id))
        });

        let storage = open(place, self.golden.storage, Ownership::Owner).unwrap();
        assert_eq!(storage.problems(), [], "healed");
        assert_eq!(listed(&storage), self.expected(Lost::Nothing), "healed");
        assert_eq!(storage.check(deep).unwrap().findings, [], "healed");
        for record in &self.golden.containers {
            let id = record.id.as_deref().unwrap();
            let merged = storage.mount_container(id).unwrap();
            assert!(merged.join("bin/busybox").exists(), "container {id}");
            assert!(!merged.join("opt/dir1/one").exists(), "container {id}");
            storage.layers().unmount(id, true).unwrap();
        }
        storage.close().unwrap();
    }

    /// What a daemon does that is told to load the image again and to make the container again.
    fn make_again(&self, storage: &Storage, archives: &HashMap<String, Vec<u8>>) {
        for layer in self.golden.layers.iter().filter(|layer| !layer.writable) {
            let Some(archive) = archives.get(layer.id.as_str()) else { continue };
            let create = CreateLayer {
                parent: layer.parent.clone(),
                compressed_digest: layer.compressed_digest.clone(),
                uncompressed_digest: layer.uncompressed_digest.clone(),
                ..CreateLayer::default()
            };
            let made = storage.layers().create(&layer.id, &create, Some(&mut archive.as_slice()));
            match made.unwrap_or_else(|error| panic!("{}", error.report())) {
                Created::New(id) | Created::Existing(id) => storage.layers().release(&id).unwrap(),
            }
        }
        for (record, data) in &self.golden.images {
            let id = record.id.as_deref().unwrap();
            let create = CreateImage {
                id: Some(ImageId::new(id).unwrap()),
                names: record.names.clone(),
                layer: record.layer.clone(),
                metadata: record.metadata.clone(),
                created: Some(Timestamp::parse(record.created.as_deref().unwrap()).unwrap()),
                digest: record.digest.clone(),
            };
            match storage.create_image(&create) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => panic!("{}", error.report()),
            }
            for (key, data) in data {
                storage.images().set_big_data(id, key, data).unwrap();
            }
            storage.refresh_size(id).unwrap();
        }
        self.make_containers(storage);
    }

    fn make_containers(&self, storage: &Storage) {
        for record in &self.golden.containers {
            let id = record.id.as_deref().unwrap();
            if storage.containers().unwrap().exists(id) {
                continue;
            }
            let container = CreateContainer {
                id: ContainerId::new(id).unwrap(),
                image: record.image.clone().unwrap(),
                mount_label: None,
                storage_options: Vec::new(),
            };
            storage.create_container(&container).unwrap();
        }
    }
}

fn archives() -> HashMap<String, Vec<u8>> {
    let ids = [
        "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3",
        "af454b0b288549991b1ba85e7b664837cab7880c65a8606b0a75ddaf6fe78b7b",
        "2e36010176f580c7d91271f93622a79a2cabc2d9358fc4601da74f97abbcfbe8",
    ];
    ids.map(str::to_owned).into_iter().zip(layers_of("opq.tar.gz")).collect()
}

#[test]
fn whatever_is_damaged_all_else_works_nothing_is_deleted_and_making_it_again_heals_it() {
    if !need_root() {
        return;
    }
    let all = TestRoot::in_memory("damage");
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/isulad-trees.tar.xz");
    let pristine = all.join("pristine");
    fs::create_dir(&pristine).unwrap();
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xJpf"])
        .arg(archive)
        .arg("-C")
        .arg(&pristine));
    let archives = archives();
    for id in archives.keys() {
        LayerId::new(id).unwrap();
    }
    let mut goldens = ["running", "imported", "fresh"].map(|name| Golden::new(&pristine, name)).to_vec();
    let ours = goldens[1].made_by_us(&pristine, &archives);
    goldens.push(ours);
    let only = std::env::var("DAMAGE_ONLY").unwrap_or_default();
    let mut cases: Vec<Case<'_>> = goldens.iter().flat_map(Golden::cases).collect();
    let total = cases.len();
    let classes: BTreeSet<Class> = cases.iter().map(|case| case.row.class).collect();
    assert_eq!(classes.len(), TABLE.iter().map(|row| row.class).collect::<BTreeSet<_>>().len());
    assert!(total > 500, "only {total} cases");
    cases.retain(|case| {
        format!("{} {:?} {:?}", case.path.display(), case.row.class, case.damage).contains(&only)
    });

    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((number, case)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, cases.get(at)?)))
                {
                    let place = TestRoot::below(all.path(), &format!("case-{number}"));
                    let copy = place.join("store");
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case.run(&copy, &archives))) {
                        let why = panic
                            .downcast_ref::<String>()
                            .cloned()
                            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                        let what = format!(
                            "{} {} {:?} {:?}: {}",
                            case.golden.name,
                            case.path.display(),
                            case.row.class,
                            case.damage,
                            why.unwrap_or_default()
                        );
                        failures.lock().unwrap().push(what);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
