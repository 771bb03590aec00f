// SPDX-License-Identifier: MulanPSL-2.0
//! Stores on a file system whose quotas are only counted. What the kernel does about them is tested in `tests/vm`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use parking_lot::RwLock;

use super::*;
use crate::driver::overlay2::{Overlay, Overlay2};
use crate::driver::{DriverOptions, GraphDriver, LayerKind, NewLayer, Removed};
use crate::id::LayerId;
use crate::persist::{Durability, with_hook};
use crate::sys::quota::fake::Fake;
use crate::sys::testing::TestRoot;
use crate::units::Inodes;

const MIB: u64 = 1 << 20;

/// A file system for stores.
struct Disk {
    root: TestRoot,
    fake: Arc<Fake>,
}

impl Disk {
    fn new() -> Disk {
        let root = TestRoot::in_memory("projects");
        let fake = Arc::new(Fake::new(root.path()));
        Disk { root, fake }
    }

    fn home(&self, store: &str) -> PathBuf {
        self.root.join(store).join("overlay")
    }

    fn try_open(&self, store: &str, more: &[&str], read_only: bool) -> Result<Overlay2> {
        let mut options = vec!["overlay2.skip_mount_home=true".to_owned()];
        options.extend(more.iter().map(ToString::to_string));
        let options = DriverOptions {
            root: self.root.join(store),
            name: "overlay2".into(),
            options,
            durability: Durability::None,
            read_only,
            owner_shift: None,
        };
        let home = self.home(store);
        let overlay =
            Overlay::open_with(&home, &options, &|dir, _| Projects::detect(dir, self.fake.clone()))?;
        Ok(Overlay2 { name: "overlay2", home, shares: false, open: RwLock::new(Some(Arc::new(overlay))) })
    }

    fn open(&self, store: &str) -> Overlay2 {
        self.try_open(store, &[], false).unwrap_or_else(|error| panic!("{}", error.report()))
    }

    fn dir(&self, store: &str, path: &str) -> Dir {
        Dir::open(&self.home(store).join(path)).unwrap()
    }

    fn project(&self, store: &str, path: &str) -> Project {
        self.fake.project(&self.dir(store, path)).unwrap()
    }

    /// What the store has written down: projects and limits.
    fn ledger(&self, store: &str) -> BTreeMap<u32, Bytes> {
        let ledger = Ledger::new(self.dir(store, STATE));
        let ids = ledger.all().unwrap();
        ids.into_iter().map(|id| (id, ledger.find(id).unwrap().unwrap())).collect()
    }
}

fn id(name: &str) -> LayerId {
    LayerId::new(name).unwrap()
}

fn create(driver: &Overlay2, name: &str, size: Option<&str>) -> Result<()> {
    let options: Vec<_> = size.map(|size| ("size".to_owned(), size.to_owned())).into_iter().collect();
    let (id, kind) = (id(name), LayerKind::ReadWrite);
    driver.create(&NewLayer { id: &id, parent: None, kind, storage_options: &options, mount_label: None })
}

fn limited(driver: &Overlay2, name: &str, size: &str) {
    create(driver, name, Some(size)).unwrap_or_else(|error| panic!("{name}: {}", error.report()));
}

#[test]
fn a_limited_layer_is_a_project_of_its_own_that_goes_with_it() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "one", "1M");
    limited(&driver, "two", "5000");
    create(&driver, "free", None).unwrap();
    let [one, two] = ["one", "two"].map(|name| disk.project("a", name));
    assert!(one.inherited && two.inherited && one.id != two.id && one.id.min(two.id) >= LEAST);
    assert_eq!(disk.project("a", "free"), Project { id: 0, inherited: false });
    for name in ["diff", "work", "merged"] {
        assert_eq!(disk.project("a", &format!("one/{name}")).id, one.id, "{name}");
    }
    // Whole KiB, as the reference.
    let limits = BTreeMap::from([(one.id, Bytes(MIB)), (two.id, Bytes(4096))]);
    assert_eq!(disk.fake.limits(), limits);
    assert_eq!(disk.ledger("a"), BTreeMap::from([(one.id, Bytes(MIB)), (two.id, Bytes(5000))]));
    let link = disk.home("a").join(format!(".isula-storage/projects/{}", two.id));
    assert_eq!(std::fs::read_link(link).unwrap(), PathBuf::from("5000"));
    assert_eq!(driver.limit(&id("one")).unwrap(), Some(Bytes(MIB)));
    assert_eq!(driver.limit(&id("free")).unwrap(), None);
    assert_eq!(driver.limit(&id("absent")).unwrap(), None);

    let removed = driver.remove(&id("one")).unwrap();
    assert_eq!(disk.fake.limits(), limits, "as long as there are data, they are limited");
    removed.remove();
    assert_eq!(disk.fake.limits(), BTreeMap::from([(two.id, Bytes(4096))]));
    assert_eq!(disk.ledger("a").into_keys().collect::<Vec<_>>(), [two.id]);
}

#[test]
fn limits_are_there_after_a_restart_and_also_for_who_only_reads() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "one", "1M");
    let (limits, ledger) = (disk.fake.limits(), disk.ledger("a"));
    drop(driver);
    let driver = disk.open("a");
    assert_eq!((disk.fake.limits(), disk.ledger("a")), (limits, ledger));
    assert_eq!(driver.limit(&id("one")).unwrap(), Some(Bytes(MIB)));
    let reader = disk.try_open("a", &[], true).unwrap();
    assert_eq!(reader.limit(&id("one")).unwrap(), Some(Bytes(MIB)));
    assert_eq!(reader.strays().unwrap(), [""; 0]);
    assert_eq!(reader.examine(&id("one"), None).unwrap(), []);
    let usage = |driver: &Overlay2| driver.usage(&id("one")).unwrap().unwrap();
    assert_eq!(usage(&reader), usage(&driver));
}

#[test]
fn usage_is_what_the_file_system_counts_and_else_what_is_found() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "one", "1M");
    create(&driver, "free", None).unwrap();
    let usage = |name: &str| driver.usage(&id(name)).unwrap().unwrap();
    // No walk would find these.
    disk.fake.use_elsewhere(disk.project("a", "one").id, 1000);
    let (path, usage_of_one) = usage("one");
    assert_eq!(path, disk.home("a").join("one/diff"));
    assert_eq!(usage_of_one.inodes, Inodes(1006), "the layer's directory, five in it, and the others");
    assert!(usage_of_one.bytes >= Bytes(1000 * 4096));
    let (path, usage_of_free) = usage("free");
    assert_eq!((path, usage_of_free.inodes), (disk.home("a").join("free/diff"), Inodes(1)));
    // Off: it is counted by hand.
    disk.fake.switch(false, false);
    assert_eq!(usage("one").1.inodes, Inodes(1));
    assert_eq!(driver.limit(&id("one")).unwrap(), None);
    disk.fake.switch(true, true);
    // The reference gave it: others may have it, too.
    disk.fake.set_project(&disk.dir("a", "free"), Project { id: 5, inherited: true }).unwrap();
    disk.fake.set_project(&disk.dir("a", "free/diff"), Project { id: 5, inherited: true }).unwrap();
    assert_eq!(usage("free").1.inodes, Inodes(1));
}

#[test]
fn stores_and_strangers_on_one_file_system_never_share_a_project() {
    let disk = Disk::new();
    let (a, b) = (disk.open("a"), disk.open("b"));
    limited(&a, "one", "1M");
    let one = disk.project("a", "one").id;
    // Who counts on from the largest, and who only said something.
    disk.fake.use_elsewhere(one + 1, 1);
    disk.fake.set_limit(one + 2, Bytes(MIB)).unwrap();
    limited(&a, "two", "1M");
    assert_eq!(disk.project("a", "two").id, one + 3);
    // Another store at the same numbers.
    let open = b.open.read().clone().unwrap();
    open.projects.as_ref().unwrap().range.lock().next = one;
    limited(&b, "one", "1M");
    assert_eq!(disk.project("b", "one").id, one + 4);
    for driver in [&a, &b] {
        driver.remove(&id("one")).unwrap().remove();
    }
    let ours = disk.project("a", "two").id;
    drop((a, b, open));
    disk.open("b");
    disk.open("a");
    assert_eq!(disk.fake.limits().into_keys().collect::<Vec<_>>(), [one + 2, ours]);
}

#[test]
fn who_takes_the_same_project_at_the_same_moment_is_seen() {
    let disk = Disk::new();
    let driver = disk.open("a");
    disk.fake.contest(3);
    limited(&driver, "one", "1M");
    let project = disk.project("a", "one").id;
    assert_eq!(disk.fake.record(project).unwrap().used.inodes, Inodes(6), "it is alone there");
    assert_eq!(disk.ledger("a").into_keys().collect::<Vec<_>>(), [project], "the others are not ours");
    assert_eq!(disk.fake.limits().into_keys().collect::<Vec<_>>(), [project]);
}

#[test]
fn a_project_that_is_just_being_taken_is_not_freed_by_a_sweep_beside() {
    let disk = Disk::new();
    let driver = disk.open("a");
    let projects = driver.open.read().as_ref().unwrap().projects.clone().unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    disk.fake.beside(move || {
        let (swept, told) = std::sync::mpsc::channel();
        let sweeper = std::thread::spawn(move || {
            projects.sweep();
            swept.send(()).ok();
        });
        // It may wait for the creation that this is part of: then it goes on afterwards.
        told.recv_timeout(Duration::from_millis(200)).ok();
        done.send(sweeper).unwrap();
    });
    limited(&driver, "one", "1M");
    ended.recv().unwrap().join().unwrap();
    let project = disk.project("a", "one").id;
    assert_eq!(disk.ledger("a"), BTreeMap::from([(project, Bytes(MIB))]));
    assert_eq!(disk.fake.limits(), BTreeMap::from([(project, Bytes(MIB))]));
}

#[test]
fn a_project_that_was_freed_already_is_nobody_s_to_free_again() {
    let disk = Disk::new();
    let driver = disk.open("a");
    let projects = driver.open.read().as_ref().unwrap().projects.clone().unwrap();
    // Somebody else prepares it for something that is not there yet.
    disk.fake.set_limit(3_000_000, Bytes(MIB)).unwrap();
    projects.give_back(3_000_000);
    assert_eq!(disk.fake.limits(), BTreeMap::from([(3_000_000, Bytes(MIB))]));
}

#[test]
fn projects_that_are_still_counted_are_waited_for_together() {
    let disk = Disk::new();
    let driver = disk.open("a");
    let projects = driver.open.read().as_ref().unwrap().projects.clone().unwrap();
    let ids = [3_000_000, 3_000_001];
    ids.iter().for_each(|id| assert!(projects.ledger().unwrap().add(*id, Bytes(0)).unwrap()));
    ids.iter().for_each(|id| disk.fake.use_elsewhere(*id, 1));
    projects.give_all_back(ids.to_vec());
    let mut asked = disk.fake.asked();
    asked.retain(|id| ids.contains(id));
    assert!(asked.len() > 2 && asked.chunks(2).all(|round| round == ids), "{asked:?}");
}

#[test]
fn a_file_system_with_few_projects_is_used_to_the_last() {
    let disk = Disk::new();
    disk.fake.set_largest(u32::from(u16::MAX));
    let driver = disk.open("a");
    limited(&driver, "short", "1M");
    let short = disk.project("a", "short").id;
    assert!(short <= MOST_OF_16_BITS, "{short}");
    assert_eq!(disk.ledger("a").len(), 1);

    let open = driver.open.read().clone().unwrap();
    let projects = open.projects.as_ref().unwrap();
    *projects.range.lock() = Range { least: 5, most: 8, next: 7 };
    disk.fake.use_elsewhere(8, 1);
    for name in ["a", "b", "c"] {
        limited(&driver, name, "1M");
    }
    let taken: HashSet<u32> = ["a", "b", "c"].map(|name| disk.project("a", name).id).into();
    assert_eq!(taken, HashSet::from([5, 6, 7]));
    let error = create(&driver, "d", Some("1M")).unwrap_err();
    assert_eq!(
        error.report(),
        "create layer d: limit the layer to 1.0 MiB: no project is free: 4 were tried"
    );
    assert_eq!(error.errno(), libc::EUSERS);
    assert!(!driver.exists(&id("d")).unwrap());
    assert_eq!(disk.ledger("a").len(), 4);
    driver.remove(&id("b")).unwrap().remove();
    limited(&driver, "d", "1M");
}

#[test]
fn a_quota_that_is_switched_off_later_is_told_and_what_was_limited_can_go() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "old", "1M");
    let text = "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option";
    for (accounted, enforced) in [(true, false), (false, false)] {
        disk.fake.switch(accounted, enforced);
        let error = create(&driver, "new", Some("1M")).unwrap_err();
        assert_eq!((error.shown(), error.errno()), (Some(text), libc::EOPNOTSUPP));
        assert!(error.report().contains("project quota was switched off"), "{}", error.report());
        assert!(!driver.exists(&id("new")).unwrap());
        create(&driver, "free", None).unwrap();
        driver.remove(&id("free")).unwrap().remove();
    }
    assert_eq!(disk.ledger("a").len(), 1);
    driver.remove(&id("old")).unwrap().remove();
    assert_eq!((disk.ledger("a").len(), disk.fake.limits().len()), (1, 1), "nobody can be asked");
    // The next that can be asked: the next limited layer, or the next start.
    disk.fake.switch(true, true);
    limited(&driver, "new", "1M");
    assert_eq!((disk.ledger("a").len(), disk.fake.limits().len()), (1, 1));
}

#[test]
fn a_limit_that_cannot_be_set_leaves_nothing_behind() {
    let disk = Disk::new();
    let driver = disk.open("a");
    disk.fake.refuse_limits(Some(libc::EIO));
    let error = create(&driver, "one", Some("1M")).unwrap_err();
    assert_eq!(error.errno(), libc::EIO);
    assert!(!driver.exists(&id("one")).unwrap());
    assert_eq!(disk.dir("a", ".isula-storage/staging").entries().unwrap().len(), 0);
    assert_eq!(disk.ledger("a"), BTreeMap::new());
    disk.fake.refuse_limits(None);
    limited(&driver, "one", "1M");
}

#[test]
fn a_creation_that_fails_at_any_step_takes_its_limit_back() {
    let disk = Disk::new();
    let driver = Arc::new(disk.open("a"));
    let mut failed = 0;
    loop {
        let mut left = failed;
        let fail = move |name: &str| match left {
            0 => Err(Error::new(ErrorKind::Os(libc::EIO), name)),
            _ => {
                left -= 1;
                Ok(())
            }
        };
        if with_hook(fail, || create(&driver, "one", Some("1M"))).is_ok() {
            break;
        }
        assert_eq!((disk.ledger("a").len(), disk.fake.limits().len()), (0, 0), "step {failed}");
        failed += 1;
    }
    assert!(failed >= 5, "{failed}");
    assert_eq!((disk.ledger("a").len(), disk.fake.limits().len()), (1, 1));
}

#[test]
fn what_a_crash_leaves_of_limits_is_found_and_freed_by_the_next_start() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "alive", "1M");
    limited(&driver, "staged", "2M");
    limited(&driver, "discarded", "3M");
    let state = disk.home("a").join(STATE);
    drop(driver);
    let ledger = Ledger::new(Dir::open(&state).unwrap());
    // Written down only; limited, and the data are gone already; being made; being removed.
    ledger.add(3_000_001, Bytes(MIB)).unwrap();
    ledger.add(3_000_002, Bytes(MIB)).unwrap();
    disk.fake.set_limit(3_000_002, Bytes(MIB)).unwrap();
    for (name, place) in [("staged", STAGING), ("discarded", TRASH)] {
        let (from, to) = (disk.dir("a", "."), Dir::open(&state.join(place)).unwrap());
        from.rename(name, &to, name).unwrap();
    }
    // Of somebody who lost it, still in use; and a name that is no number.
    ledger.add(3_000_003, Bytes(0)).unwrap();
    disk.fake.use_elsewhere(3_000_003, 2);
    std::os::unix::fs::symlink("5", state.join("projects/007")).unwrap();
    let reader = disk.try_open("a", &[], true).unwrap();
    assert_eq!(
        reader.strays().unwrap(),
        [
            "project 3000002 has a limit of 1.0 MiB and is of no layer any more",
            "project 3000003 still has 8.0 KiB in 2 files, which are in no layer",
        ]
    );
    drop(reader);

    let driver = disk.open("a");
    let alive = disk.project("a", "alive").id;
    assert_eq!(disk.fake.limits(), BTreeMap::from([(alive, Bytes(MIB))]));
    assert_eq!(disk.ledger("a").into_keys().collect::<HashSet<_>>(), HashSet::from([alive, 3_000_003]));
    assert_eq!(driver.strays().unwrap().len(), 1);
    limited(&driver, "staged", "1M");
}

#[test]
fn a_lost_limit_is_told_and_set_again() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "one", "1M");
    let project = disk.project("a", "one").id;
    let limits = disk.fake.limits();
    disk.fake.set_limit(project, Bytes(0)).unwrap();
    let told = driver.examine(&id("one"), None).unwrap();
    assert_eq!(told, [Defect::derivable("its limit of 1.0 MiB is lost")]);
    driver.validate(&id("one"), None).unwrap();
    assert_eq!(disk.fake.limits(), limits);
    assert_eq!(driver.examine(&id("one"), None).unwrap(), []);
    drop(driver);
    disk.fake.set_limit(project, Bytes(0)).unwrap();
    let driver = disk.open("a");
    assert_eq!(disk.fake.limits(), limits);
    // What an administrator changed stays.
    disk.fake.set_limit(project, Bytes(7 * MIB)).unwrap();
    drop(driver);
    disk.open("a");
    assert_eq!(disk.fake.limits(), BTreeMap::from([(project, Bytes(7 * MIB))]));
}

#[test]
fn a_full_layer_has_room_to_be_mounted_and_no_longer() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "one", "5M");
    let project = disk.project("a", "one").id;
    let limits = disk.fake.limits();
    let open = driver.open.read().clone().unwrap();
    let projects = open.projects.as_ref().unwrap();
    let layer = disk.dir("a", "one");
    assert!(projects.make_room(&layer).is_none(), "it has room");
    disk.fake.use_elsewhere(project, 1200);
    {
        let _room = projects.make_room(&layer).unwrap();
        assert_eq!(disk.fake.limits(), BTreeMap::from([(project, Bytes(6 * MIB))]));
    }
    assert_eq!(disk.fake.limits(), limits);
    // The process ended meanwhile.
    disk.fake.limit_inodes(project, Inodes(9));
    std::mem::forget(projects.make_room(&layer).unwrap());
    drop((open, driver));
    let driver = disk.open("a");
    assert_eq!(disk.fake.limits(), limits);
    assert_eq!(disk.fake.inode_limits(), BTreeMap::from([(project, Inodes(9))]), "it is not ours");
    create(&driver, "free", None).unwrap();
    let open = driver.open.read().clone().unwrap();
    let make_room = |name: &str| open.projects.as_ref().unwrap().make_room(&disk.dir("a", name)).is_some();
    assert!(!make_room("free"));
    // The reference gave it: others may have it, too.
    disk.fake.set_project(&disk.dir("a", "free"), Project { id: 5, inherited: true }).unwrap();
    disk.fake.set_limit(5, Bytes(MIB)).unwrap();
    disk.fake.use_elsewhere(5, 300);
    assert!(make_room("one") && !make_room("free"));
}

#[test]
fn a_damaged_layer_can_be_removed_and_its_project_goes_with_it() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "one", "1M");
    let diff = disk.home("a").join("one/diff");
    std::fs::remove_dir(&diff).unwrap();
    std::os::unix::fs::symlink("/", &diff).unwrap();
    driver.remove(&id("one")).unwrap().remove();
    assert!(!disk.home("a").join("one").exists());
    assert_eq!((disk.fake.limits().len(), disk.ledger("a").len()), (0, 0));
}

/// Root in a container can give its own root directory another project.
#[test]
fn the_content_of_a_layer_does_not_tell_whose_project_it_has() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "one", "1M");
    limited(&driver, "two", "2M");
    let two = disk.project("a", "two");
    disk.fake.set_project(&disk.dir("a", "one/diff"), two).unwrap();
    assert_eq!(driver.limit(&id("one")).unwrap(), Some(Bytes(MIB)));
    create(&driver, "free", None).unwrap();
    disk.fake.set_limit(5, Bytes(3 * MIB)).unwrap();
    disk.fake.set_project(&disk.dir("a", "free/diff"), Project { id: 5, inherited: true }).unwrap();
    assert_eq!(driver.limit(&id("free")).unwrap(), None);
    driver.remove(&id("free")).unwrap().remove();
    driver.remove(&id("one")).unwrap().remove();
    assert_eq!(disk.fake.limits(), BTreeMap::from([(two.id, Bytes(2 * MIB)), (5, Bytes(3 * MIB))]));
    assert_eq!(disk.ledger("a"), BTreeMap::from([(two.id, Bytes(2 * MIB))]));
}

#[test]
fn what_cannot_be_moved_away_stays_of_its_own_project() {
    let disk = Disk::new();
    disk.open("a");
    disk.fake.set_project(&disk.dir("a", "."), Project { id: 77, inherited: true }).unwrap();
    let driver = disk.open("a");
    limited(&driver, "one", "1M");
    let own = disk.project("a", "one");
    let actions: [&dyn Fn() -> Result<()>; 2] =
        [&|| driver.quarantine(&id("one"), "doubt").map(drop), &|| {
            driver.remove(&id("one")).map(Removed::remove)
        }];
    for action in actions {
        let mut failed = 0;
        loop {
            let mut left = failed;
            let fail = move |name: &str| match left {
                0 => Err(Error::new(ErrorKind::Os(libc::EIO), name)),
                _ => {
                    left -= 1;
                    Ok(())
                }
            };
            if with_hook(fail, action).is_ok() || !disk.home("a").join("one").exists() {
                break;
            }
            assert_eq!(disk.project("a", "one"), own, "step {failed}");
            failed += 1;
        }
        assert!(failed > 0);
        if let Some(aside) = driver.quarantined().unwrap().first() {
            driver.restore(aside).unwrap();
        }
    }
}

#[test]
fn what_lies_aside_keeps_its_limit_until_it_is_given_up() {
    let disk = Disk::new();
    let driver = disk.open("a");
    limited(&driver, "one", "1M");
    let limits = disk.fake.limits();
    let aside = driver.quarantine(&id("one"), "doubt").unwrap().unwrap();
    drop(driver);
    let driver = disk.open("a");
    assert_eq!((disk.fake.limits(), driver.strays().unwrap()), (limits.clone(), Vec::new()));
    driver.restore(&aside).unwrap();
    assert_eq!(driver.limit(&id("one")).unwrap(), Some(Bytes(MIB)));
    let aside = driver.quarantine(&id("one"), "doubt").unwrap().unwrap();
    driver.purge(&aside).unwrap().remove();
    assert_eq!((disk.fake.limits().len(), disk.ledger("a").len()), (0, 0));
}

#[test]
fn projects_that_the_reference_gave_are_freed_when_nobody_else_has_them() {
    let disk = Disk::new();
    let driver = disk.open("a");
    for (name, project) in [("one", 1), ("two", 2)] {
        create(&driver, name, None).unwrap();
        for path in [name.to_owned(), format!("{name}/diff")] {
            disk.fake.set_project(&disk.dir("a", &path), Project { id: project, inherited: true }).unwrap();
        }
        disk.fake.set_limit(project, Bytes(MIB)).unwrap();
    }
    // Another store of the reference counts from 1 as well.
    disk.fake.use_elsewhere(2, 1);
    assert_eq!(driver.limit(&id("two")).unwrap(), Some(Bytes(MIB)));
    for name in ["one", "two"] {
        driver.remove(&id(name)).unwrap().remove();
    }
    assert_eq!(disk.fake.limits(), BTreeMap::from([(2, Bytes(MIB))]));
    disk.fake.use_elsewhere(2, 0);
    drop(driver);
    disk.open("a");
    assert_eq!((disk.fake.limits().len(), disk.ledger("a").len()), (0, 0));
}

#[test]
fn in_a_home_with_a_project_layers_are_moved_as_part_of_it() {
    let disk = Disk::new();
    drop(disk.open("a"));
    let home = Project { id: 77, inherited: true };
    disk.fake.set_project(&disk.dir("a", "."), home).unwrap();
    let driver = disk.open("a");
    assert_eq!(disk.project("a", ".isula-storage/staging"), home, "image layers are counted to the home");
    limited(&driver, "one", "1M");
    create(&driver, "free", None).unwrap();
    let own = disk.project("a", "one");
    assert!(own.inherited && own.id != 77 && disk.project("a", "one/work").id == own.id);
    assert_eq!(disk.project("a", "free"), home);
    assert_eq!(driver.limit(&id("free")).unwrap(), None, "the limit of the home is not its own");
    let aside = driver.quarantine(&id("one"), "doubt").unwrap().unwrap();
    let moved = |path: PathBuf| disk.fake.project(&Dir::open(&path).unwrap()).unwrap();
    // What is moved is of the home's project, what is below keeps its own.
    assert_eq!((moved(aside.path.clone()), moved(aside.path.join("work"))), (home, own));
    driver.restore(&aside).unwrap();
    assert_eq!((disk.project("a", "one"), disk.project("a", "one/diff")), (own, own));
    driver.remove(&id("one")).unwrap().remove();
    assert_eq!((disk.fake.limits().len(), disk.ledger("a").len()), (0, 0));
}

#[test]
fn a_default_size_is_for_containers_only_and_wants_a_file_system_that_can() {
    let disk = Disk::new();
    for key in ["overlay2.size", "overlay2.basesize"] {
        let driver = disk.try_open(key, &[&format!("{key}=10M")], false).unwrap();
        create(&driver, "default", None).unwrap();
        create(&driver, "zero", Some("0")).unwrap();
        create(&driver, "own", Some("1M")).unwrap();
        let image = id("image");
        let layer = NewLayer {
            id: &image,
            parent: None,
            kind: LayerKind::ReadOnly,
            storage_options: &[],
            mount_label: None,
        };
        driver.create(&layer).unwrap();
        let limits = ["default", "zero", "own", "image"].map(|name| driver.limit(&id(name)).unwrap());
        assert_eq!(limits, [Some(Bytes(10 * MIB)), Some(Bytes(10 * MIB)), Some(Bytes(MIB)), None], "{key}");
    }
    disk.fake.switch(true, false);
    let error = disk.try_open("none", &["overlay2.size=10M"], false).err().unwrap();
    assert_eq!((error.report().as_str(), error.kind()), (NOT_SUPPORTED, ErrorKind::Unsupported));
    let driver = disk.open("none");
    assert_eq!(create(&driver, "one", Some("1M")).unwrap_err().shown(), Some(NOT_SUPPORTED));
    create(&driver, "one", None).unwrap();
}
