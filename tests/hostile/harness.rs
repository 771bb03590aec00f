// SPDX-License-Identifier: MulanPSL-2.0
//! A storage beside a canary, and what must hold of both after each case.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use isula_storage::digest::{Digest, Digester};
use isula_storage::error::{ErrorKind, Result};
use isula_storage::id::LayerId;
use isula_storage::layer::{CreateLayer, Created, LayerStore};
use isula_storage::storage::{Storage, StorageOptions};

use crate::archive_common::{self, Tar, Tree, differences};
use crate::common::{LoopExt4, TestRoot, loop_ext4, mounts_below};

/// What is said of the layers here, which no image has.
const UNUSED: &str = "no image, container or layer uses it";

pub(crate) const DRIVERS: [&str; 2] = ["overlay", "vfs"];

/// Fewer entries and bytes where a case is about many, as under valgrind.
pub(crate) fn at_most(usual: usize, small: usize) -> usize {
    if std::env::var_os("HOSTILE_SMALL").is_some() { small } else { usual }
}

/// Where a world lies.
enum Place {
    Disk(LoopExt4),
    Memory(TestRoot),
}

impl Place {
    fn path(&self) -> PathBuf {
        match self {
            Place::Disk(disk) => disk.path(),
            Place::Memory(root) => root.path().to_owned(),
        }
    }
}

/// A storage with one layer, and a canary beside it.
pub(crate) struct World {
    pub(crate) driver: &'static str,
    storage: Option<Storage>,
    options: StorageOptions,
    canary: Tree,
    /// Every name below the store when it has the base layer only.
    idle: BTreeSet<PathBuf>,
    descriptors: Vec<PathBuf>,
    place: Place,
}

/// Runs cases in a world of each driver, on an ext4 of this many bytes.
pub(crate) fn on_each_driver(size: u64, cases: impl Fn(&World)) {
    if !crate::common::need_root() {
        return;
    }
    for driver in DRIVERS {
        let world = World::on_disk(driver, size, &[]);
        cases(&world);
        world.end();
    }
}

impl World {
    pub(crate) fn on_disk(driver: &'static str, size: u64, options: &[&str]) -> World {
        World::new(driver, Place::Disk(loop_ext4(size)), options)
    }

    pub(crate) fn in_memory(driver: &'static str, options: &[&str]) -> World {
        World::new(driver, Place::Memory(TestRoot::in_memory("hostile")), options)
    }

    fn new(driver: &'static str, place: Place, options: &[&str]) -> World {
        let path = place.path();
        let script = "mkdir -p canary/etc canary/target; echo secret >canary/etc/passwd; chmod 600 canary/etc/passwd
            ln -s etc/passwd canary/link; setfattr -n user.bird -v alive canary/etc; touch -d @1 canary/etc canary; touch -d @2 canary/target";
        archive_common::shell(script, &path);
        let canary = archive_common::tree(&path.join("canary"));
        let options = StorageOptions {
            driver: driver.to_owned(),
            driver_options: options.iter().map(ToString::to_string).collect(),
            ..StorageOptions::new(path.join("store/root"), path.join("store/run"))
        };
        let mut world = World {
            driver,
            storage: Some(open(&options)),
            options,
            canary,
            idle: BTreeSet::new(),
            descriptors: Vec::new(),
            place,
        };
        let base = Tar::new()
            .dir("etc/")
            .file("etc/passwd", "root:x:0:0")
            .dir("d/")
            .file("d/keep", "kept")
            .symlink("up", "../../..")
            .symlink("esc", path.join("canary").to_str().unwrap());
        world.make(base_id(), None, &mut base.end().as_slice()).unwrap();
        world.layers().release(&base_id()).unwrap();
        // A layer that comes and goes: what that leaves behind belongs to an idle store.
        let made = world.create("first", &Tar::new().file("f", "x").end()).unwrap();
        world.delete(&made);
        let in_trash = |path: &PathBuf| path.parent().is_some_and(|dir| dir.ends_with("trash"));
        (world.idle, world.descriptors) = world.settled(|names, descriptors| {
            !names.iter().any(in_trash)
                && !descriptors.iter().any(|path| path.to_string_lossy().contains("/trash/"))
        });
        world
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.place.path()
    }

    pub(crate) fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    pub(crate) fn layers(&self) -> &LayerStore {
        self.storage().layers()
    }

    fn make(&self, id: LayerId, parent: Option<LayerId>, stream: &mut (dyn Read + Send)) -> Result<LayerId> {
        let create = CreateLayer { parent, ..CreateLayer::default() };
        match self.layers().create(&id, &create, Some(stream))? {
            Created::New(id) => Ok(id),
            Created::Existing(id) => panic!("layer {id} exists"),
        }
    }

    /// A layer on the base layer, from any stream.
    pub(crate) fn create_from(&self, what: &str, stream: &mut (dyn Read + Send)) -> Result<LayerId> {
        self.make(id_of(what), Some(base_id()), stream)
    }

    pub(crate) fn create(&self, what: &str, mut layer: &[u8]) -> Result<LayerId> {
        self.create_from(what, &mut layer)
    }

    pub(crate) fn create_on(&self, what: &str, parent: &LayerId, mut layer: &[u8]) -> Result<LayerId> {
        self.make(id_of(what), Some(parent.clone()), &mut layer)
    }

    /// A layer on another one, taken away at once: plain copies copy the other one's tree for it.
    pub(crate) fn stands(&self, what: &str, parent: &LayerId) {
        let child = id_of(&format!("{what}, child"));
        let mut tar: &[u8] = &Tar::new().file("on-top", "x").end();
        self.make(child.clone(), Some(parent.clone()), &mut tar)
            .unwrap_or_else(|error| panic!("{what}: {}", error.report()));
        self.delete(&child);
    }

    pub(crate) fn delete(&self, id: &LayerId) {
        self.layers().release(id).unwrap();
        self.layers().delete(id.as_str()).unwrap_or_else(|error| panic!("{}", error.report()));
    }

    /// Where a layer's own files are; those of a copy are all that it consists of.
    pub(crate) fn content(&self, id: &LayerId) -> PathBuf {
        let merged = self.layers().driver().mount_path(id);
        if self.driver == "vfs" { merged } else { merged.parent().unwrap().join("diff") }
    }

    /// The archive becomes a layer with these paths of its own, and everything that holds of layers holds of it.
    pub(crate) fn taken(&self, what: &str, layer: &[u8], paths: &[&str]) {
        self.taken_and(what, layer, |content| {
            for path in paths {
                let path = content.join(path);
                assert!(std::fs::symlink_metadata(&path).is_ok(), "{what}: {} is not there", path.display());
            }
        });
    }

    /// The same, with a look at the content.
    pub(crate) fn taken_and(&self, what: &str, layer: &[u8], look: impl FnOnce(&Path)) {
        let id = self
            .create(what, layer)
            .unwrap_or_else(|error| panic!("{}: {what}: {}", self.driver, error.report()));
        self.assert_sound(what);
        look(&self.content(&id));
        self.assert_exact(what, &id, layer);
        self.mounted(what, &id, |_| ());
        self.stands(what, &id);
        self.delete(&id);
        self.assert_clean(what);
    }

    /// Looks at a layer as a container sees it.
    pub(crate) fn mounted(&self, what: &str, id: &LayerId, look: impl FnOnce(&Path)) {
        let at =
            self.layers().mount(id.as_str()).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
        look(&at);
        self.layers()
            .unmount(id.as_str(), false)
            .unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    }

    /// The layer gives its exact tar back.
    pub(crate) fn assert_exact(&self, what: &str, id: &LayerId, mut layer: &[u8]) {
        let mut plain = isula_storage::archive::decompressed(Box::new(&mut layer)).unwrap();
        let mut digester = Digester::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match plain.read(&mut buffer).unwrap() {
                0 => break,
                count => digester.update(&buffer[..count]),
            }
        }
        let (digest, _) = self
            .layers()
            .export(id.as_str(), &mut std::io::sink())
            .unwrap_or_else(|error| panic!("{}: {what}: {}", self.driver, error.report()));
        assert_eq!(digest, digester.finish(), "{what}");
    }

    /// The archive is refused with this kind and these words in the error, and leaves nothing behind.
    pub(crate) fn refused(&self, what: &str, mut layer: &[u8], kind: ErrorKind, words: &str) {
        self.stream_refused(what, &mut layer, kind, words);
    }

    pub(crate) fn stream_refused(
        &self,
        what: &str,
        stream: &mut (dyn Read + Send),
        kind: ErrorKind,
        words: &str,
    ) {
        match self.create_from(what, stream) {
            Ok(id) => panic!("{}: {what}: taken as {id}", self.driver),
            Err(error) => {
                assert_eq!(error.kind(), kind, "{}: {what}: {}", self.driver, error.report());
                assert!(error.report().contains(words), "{}: {what}: {}", self.driver, error.report());
            }
        }
        self.assert_clean(what);
    }

    /// Nothing outside has changed, and the store finds nothing wrong with itself.
    pub(crate) fn assert_sound(&self, what: &str) {
        let canary = archive_common::tree(&self.path().join("canary"));
        let found = differences(&self.canary, &canary);
        assert!(found.is_empty(), "{}: {what}: changed outside:\n{}", self.driver, found.join("\n"));
        let beside: BTreeSet<_> = names_in(&self.path());
        let expected = BTreeSet::from(["canary".into(), "store".into()]);
        assert!(beside.is_subset(&expected), "{}: {what}: made outside: {beside:?}", self.driver);
        for place in ["/evil", "/tmp/evil", "evil", "/dev/evil", "/proc/self/cwd/evil"] {
            assert!(std::fs::symlink_metadata(place).is_err(), "{}: {what}: {place}", self.driver);
        }
        let report = self.storage().check(true).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
        let found: Vec<_> =
            report.findings.into_iter().filter(|finding| !finding.reason.starts_with(UNUSED)).collect();
        assert!(found.is_empty(), "{}: {what}: {found:?}", self.driver);
        assert_eq!(report.quarantined, 0, "{}: {what}", self.driver);
    }

    /// The same, and there is nothing but the base layer, in memory, on disk, among mounts and descriptors.
    pub(crate) fn assert_clean(&self, what: &str) {
        self.assert_sound(what);
        let ids: Vec<_> = self.layers().list().into_iter().map(|layer| layer.id).collect();
        assert_eq!(ids, [base_id()], "{}: {what}", self.driver);
        let (names, descriptors) =
            self.settled(|names, descriptors| *names == self.idle && *descriptors == self.descriptors);
        let left: Vec<_> = names.symmetric_difference(&self.idle).collect();
        assert!(left.is_empty(), "{}: {what}: left over or gone: {left:?}", self.driver);
        assert_eq!(descriptors, self.descriptors, "{}: {what}: descriptors", self.driver);
        assert_eq!(mounts_below(&self.path()).len(), self.idle_mounts(), "{}: {what}", self.driver);
    }

    /// Names below the store and descriptors into it, when they are as expected, or at last: data of deleted layers go in
    /// the background.
    fn settled(
        &self,
        expected: impl Fn(&BTreeSet<PathBuf>, &Vec<PathBuf>) -> bool,
    ) -> (BTreeSet<PathBuf>, Vec<PathBuf>) {
        let mut tries = 0..4000;
        loop {
            let found = (self.names(), self.open_descriptors());
            if expected(&found.0, &found.1) || tries.next().is_none() {
                return found;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The place itself if it is a file system, and the home of the overlay driver, which is bound on itself.
    fn idle_mounts(&self) -> usize {
        usize::from(matches!(self.place, Place::Disk(_))) + usize::from(self.driver == "overlay")
    }

    /// Every name below the store.
    fn names(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut todo = vec![self.path().join("store")];
        while let Some(dir) = todo.pop() {
            // What is removed meanwhile is not there; the caller looks again.
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    todo.push(entry.path());
                }
                found.insert(entry.path());
            }
        }
        found
    }

    /// Descriptors of this process that lead into this world; other tests run beside this one.
    fn open_descriptors(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let mut open: Vec<_> = entries
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .filter(|path| path.starts_with(self.path()))
            .collect();
        open.sort();
        open
    }

    /// Closes the store, does something, and opens it again.
    pub(crate) fn closed<T>(&mut self, meanwhile: impl FnOnce() -> T) -> T {
        self.storage.take().unwrap().close().unwrap_or_else(|error| panic!("{}", error.report()));
        let done = meanwhile();
        self.storage = Some(open(&self.options));
        done
    }

    /// Closes the store: nothing stays open or mounted; opened again, it is as it was.
    pub(crate) fn end(mut self) {
        self.assert_clean("at the end");
        self.storage.take().unwrap().close().unwrap_or_else(|error| panic!("{}", error.report()));
        assert_eq!(self.open_descriptors(), Vec::<PathBuf>::new(), "{}: closed", self.driver);
        let place = usize::from(matches!(self.place, Place::Disk(_)));
        assert_eq!(mounts_below(&self.path()).len(), place, "{}: closed", self.driver);
        self.storage = Some(open(&self.options));
        let mut problems = self.storage().problems();
        problems.retain(|problem| !problem.reason.starts_with(UNUSED));
        assert!(problems.is_empty(), "{problems:?}");
        self.assert_clean("opened again");
    }
}

fn open(options: &StorageOptions) -> Storage {
    Storage::open(options.clone()).unwrap_or_else(|error| panic!("{}", error.report()))
}

fn names_in(dir: &Path) -> BTreeSet<std::ffi::OsString> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

pub(crate) fn base_id() -> LayerId {
    id_of("base")
}

pub(crate) fn id_of(what: &str) -> LayerId {
    LayerId::new(&Digest::of(what.as_bytes()).hex()).unwrap()
}
