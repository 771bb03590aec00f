// SPDX-License-Identifier: MulanPSL-2.0
//! A disk that fails at any step of a change: memory says what the disk says, or the store refuses to write.

use std::path::PathBuf;

use super::*;
use crate::persist::with_hook;
use crate::sys::testing::TestRoot;

type Act = fn(&ImageStore) -> Result<()>;

const ACTS: &[(&str, Act)] = &[
    ("create", |store| {
        let image = CreateImage { names: vec!["new:1".into()], ..CreateImage::default() };
        store.create(&image).map(drop)
    }),
    ("add a name", |store| store.add_name("two:1", "name:1")),
    ("replace names", |store| store.set_names("two:1", &["one:1".into(), "three:1".into()])),
    ("set the size", |store| store.set_size("one:1", 7)),
    ("set the metadata", |store| store.set_metadata("one:1", "m")),
    ("store big data", |store| store.set_big_data("one:1", "extra", b"data")),
    ("delete", |store| store.delete("two:1").map(drop)),
    ("wipe", ImageStore::wipe),
    ("quarantine", |store| store.quarantine("two:1", "r").map(drop)),
];

fn prepare(path: &Path) -> ImageStore {
    let store = open(path).unwrap();
    sample(1).store(&store, &["one:1", "name:1"]).unwrap();
    sample(2).store(&store, &["two:1"]).unwrap();
    sample(3).store(&store, &["three:1"]).unwrap();
    store
}

fn disk_fails() -> Error {
    Error::new(ErrorKind::Os(libc::EIO), "the disk fails")
}

/// Lets the first `left` steps pass, and `failures` fail after that.
fn failing(mut left: usize, mut failures: usize) -> impl FnMut(&'static str) -> Result<()> {
    move |_| {
        if left > 0 {
            left -= 1;
            return Ok(());
        }
        if failures > 0 {
            failures -= 1;
            return Err(disk_fails());
        }
        Ok(())
    }
}

/// What the disk holds, as a start sees it. Records of images that are not whole are read as they are.
fn records_on_disk(path: &Path, of: &ImageStore) -> Vec<Option<ImageRecord>> {
    let read = |record: &Arc<ImageRecord>| {
        let id: PathBuf = path.join(record.id.as_deref().unwrap()).join(files::RECORD);
        std::fs::read(id).ok().map(|text| ImageRecord::parse(&text).unwrap())
    };
    of.list().unwrap().iter().map(read).collect()
}

fn records(store: &ImageStore) -> Vec<Option<ImageRecord>> {
    store.list().unwrap().iter().map(|record| Some(ImageRecord::clone(record))).collect()
}

#[test]
fn after_one_failure_memory_and_disk_agree_and_the_store_goes_on() {
    for (what, act) in ACTS {
        for fail_at in 0.. {
            let root = TestRoot::in_memory("image-failure");
            let store = prepare(root.path());
            let before = records(&store);
            let result = with_hook(failing(fail_at, 1), || act(&store));
            let at = format!("{what}, step {fail_at}");
            if result.is_ok() {
                // The disk failed where it does not matter, or not at all: the steps have all been tried.
                assert!(fail_at >= 3, "{at}");
                break;
            }
            assert_eq!(result.unwrap_err().errno(), libc::EIO, "{at}");
            assert_eq!(records_on_disk(root.path(), &store), records(&store), "{at}");
            if !matches!(*what, "delete" | "wipe" | "quarantine") {
                assert_eq!(records(&store), before, "{at}: nothing has happened");
                act(&store).unwrap_or_else(|error| panic!("{at}: {}", error.report()));
            }
            store.set_size(&sample(1).id, 9).map_err(|error| error.kind()).unwrap_or_else(|kind| {
                assert_eq!((*what, kind), ("wipe", ErrorKind::NotFound), "{at}");
            });
            let left = store.list().unwrap();
            drop(store);
            let again = open(root.path()).unwrap();
            let whole = |record: &&Arc<ImageRecord>| !record.big_data_names.is_empty();
            let left: Vec<_> = left.iter().filter(whole).cloned().collect();
            assert_eq!(again.list().unwrap(), left, "{at}");
        }
    }
}

/// When the old record can neither be replaced durably nor set back, nobody knows what a power cut would leave.
#[test]
fn a_store_in_doubt_refuses_to_write_until_it_is_loaded_or_saved() {
    for cure in ["load", "save"] {
        let root = TestRoot::in_memory("image-doubt");
        let store = prepare(root.path());
        // After the rename of the new record everything fails.
        let error = with_hook(failing(4, 100), || store.set_size("one:1", 7)).unwrap_err();
        assert_eq!(error.errno(), libc::EIO);
        let error = store.set_metadata("two:1", "m").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Latched);
        assert!(error.report().contains("the disk fails"), "{}", error.report());
        assert_eq!(store.get("one:1").unwrap().size, 0, "reads go on, with the old state");
        assert!(store.exists("two:1"));

        let failed = with_hook(failing(0, 100), || store.save());
        assert_eq!(failed.unwrap_err().errno(), libc::EIO);
        assert_eq!(store.set_metadata("two:1", "m").unwrap_err().kind(), ErrorKind::Latched);
        if cure == "load" {
            store.load().unwrap();
            assert_eq!(store.get("one:1").unwrap().size, 7, "what the disk holds");
        } else {
            store.save().unwrap();
            assert_eq!(store.get("one:1").unwrap().size, 0, "what memory held");
        }
        store.set_metadata("two:1", "m").unwrap();
        let records = store.list().unwrap();
        drop(store);
        assert_eq!(open(root.path()).unwrap().list().unwrap(), records);
    }
}

#[test]
fn a_panic_half_way_latches_the_store() {
    let root = TestRoot::in_memory("image-panic");
    let store = prepare(root.path());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let hook = |step: &'static str| if step == "rename" { panic!("a bug") } else { Ok(()) };
        with_hook(hook, || store.set_size("one:1", 7))
    }));
    assert!(panicked.is_err());
    assert_eq!(store.set_size("one:1", 8).unwrap_err().kind(), ErrorKind::Latched);
    assert!(store.exists("one:1"));
    store.load().unwrap();
    store.set_size("one:1", 8).unwrap();
    assert_eq!(store.get("one:1").unwrap().size, 8);
}
