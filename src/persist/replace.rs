// SPDX-License-Identifier: MulanPSL-2.0
//! Replacing one file in one step.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use crate::error::{During, Error, Result};
use crate::persist::Durability;
use crate::persist::steps::step;
use crate::sys::fs::{Dir, FileKind, random_hex};

/// How the names of temporary files begin; the reference names its own so, too.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// Random characters at the end of a temporary name.
const RANDOM_LEN: usize = 10;

/// Nobody else reads it before it is whole.
const WHILE_WRITTEN: u32 = 0o600;

/// Longest file name of Linux file systems.
const NAME_MAX: usize = 255;

/// Replaces `name` below `dir` by `content` in one step: readers see the old or the new file, whole, also after a
/// power cut. Temporary name `.tmp-<name>-<10 hex>` (shortened if it would be too long); removed again on failure.
/// `mode` is set exactly. A name that looks like a temporary one is refused: the sweep would take it.
pub fn replace_file(dir: &Dir, name: &str, content: &[u8], mode: u32, durability: Durability) -> Result<()> {
    replace(dir, name, content, mode, durability)
        .during(|| format!("write {}", dir.path().join(name).display()))
}

fn replace(dir: &Dir, name: &str, content: &[u8], mode: u32, durability: Durability) -> Result<()> {
    if name.starts_with(TEMPORARY_PREFIX) {
        return Err(Error::invalid(format!(
            "names starting with {TEMPORARY_PREFIX} are for temporary files"
        )));
    }
    let temporary = temporary_name(name)?;
    step("make temporary file")?;
    let file = dir.create_file(&temporary, WHILE_WRITTEN)?;
    let renamed = fill(file, content, mode, durability).and_then(|()| {
        step("rename")?;
        dir.rename(&temporary, dir, name)
    });
    if let Err(error) = renamed {
        if let Err(left) = dir.remove_file(&temporary) {
            log::warn!("{}", left.report());
        }
        return Err(error);
    }
    step("sync directory")?;
    durability.sync_dir(dir)
}

/// A file that is to replace another and is written piece by piece. Dropped: the other stays as it was.
#[derive(Debug)]
pub struct Replacement {
    dir: Dir,
    name: String,
    temporary: String,
    file: File,
    done: bool,
}

impl Replacement {
    /// Begins to write what is to become `name` below `dir`, with this mode.
    pub fn begin(dir: &Dir, name: &str, mode: u32) -> Result<Replacement> {
        let temporary = temporary_name(name)?;
        let dir = dir.try_clone()?;
        step("make temporary file")?;
        let file = dir.create_file(&temporary, mode)?;
        Ok(Replacement { dir, name: name.to_owned(), temporary, file, done: false })
    }

    /// Where to write.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// What was written, from its beginning.
    pub fn open(&self) -> Result<File> {
        self.dir.open_file(&self.temporary)
    }

    /// Puts it in the place of `name`, in one step and durably.
    pub fn commit(mut self, durability: Durability) -> Result<()> {
        let doing = || format!("write {}", self.dir.path().join(&self.name).display());
        step("sync file").during(doing)?;
        if durability == Durability::Full {
            self.file.sync_all().during(doing)?;
        }
        step("rename").during(doing)?;
        self.dir.rename(&self.temporary, &self.dir, &self.name).during(doing)?;
        self.done = true;
        step("sync directory")
            .and_then(|()| durability.sync_dir(&self.dir))
            .during(|| format!("write {}", self.dir.path().join(&self.name).display()))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = self.dir.remove_file(&self.temporary)
        {
            log::warn!("{}", error.report());
        }
    }
}

fn fill(mut file: File, content: &[u8], mode: u32, durability: Durability) -> Result<()> {
    step("write content")?;
    // Carries on after short and interrupted writes.
    file.write_all(content).during(|| "write content")?;
    if mode != WHILE_WRITTEN {
        file.set_permissions(Permissions::from_mode(mode)).during(|| "set the mode")?;
    }
    step("sync file")?;
    match durability {
        Durability::Full => file.sync_all().during(|| "sync file"),
        Durability::None => Ok(()),
    }
}

fn temporary_name(name: &str) -> Result<String> {
    let room = NAME_MAX - TEMPORARY_PREFIX.len() - "-".len() - RANDOM_LEN;
    let mut end = name.len().min(room);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let shown = name.get(..end).unwrap_or_default();
    Ok(format!("{TEMPORARY_PREFIX}{shown}-{}", random_hex(RANDOM_LEN)?))
}

/// Whether this is the name of a left-over temporary file of [`replace_file`].
pub fn is_temporary(name: &std::ffi::OsStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Some(rest) = name.as_bytes().strip_prefix(TEMPORARY_PREFIX.as_bytes()) else { return false };
    let Some((_, end)) = rest.len().checked_sub(RANDOM_LEN + 1).and_then(|at| rest.split_at_checked(at))
    else {
        return false;
    };
    end.strip_prefix(b"-")
        .is_some_and(|random| random.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// Removes left-over temporary files of [`replace_file`] in `dir`; best effort, logs what it could not. Call it only
/// while nobody else can be writing there.
pub fn sweep_temporary(dir: &Dir) {
    let entries = match dir.entries() {
        Ok(entries) => entries,
        Err(error) => return log::warn!("sweep temporary files: {}", error.report()),
    };
    for entry in entries.iter().filter(|entry| entry.kind == FileKind::File && is_temporary(&entry.name)) {
        if let Err(error) = dir.remove_file(&entry.name) {
            log::warn!("sweep temporary files: {}", error.report());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::persist::steps::with_hook;
    use crate::sys::testing::TestRoot;
    use std::cell::Cell;
    use std::rc::Rc;

    fn dir() -> (TestRoot, Dir) {
        let root = TestRoot::new("replace");
        let dir = Dir::open(root.path()).unwrap();
        (root, dir)
    }

    fn names(dir: &Dir) -> Vec<String> {
        let mut names: Vec<_> =
            dir.entries().unwrap().into_iter().map(|e| e.name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_and_replaced_with_exactly_the_mode_asked_for() {
        let (_root, dir) = dir();
        for (content, mode) in [(&b"one"[..], 0o600), (b"", 0o644), (b"three", 0o640), (b"four", 0o666)] {
            replace_file(&dir, "record", content, mode, Durability::Full).unwrap();
            assert_eq!(dir.read("record", 100).unwrap(), content);
            assert_eq!(dir.stat("record").unwrap().unwrap().mode, mode);
            assert_eq!(names(&dir), ["record"]);
        }
    }

    #[test]
    fn every_legal_name_can_be_written() {
        let (_root, dir) = dir();
        for name in ["a".repeat(255), "é".repeat(127), "日".repeat(85), "=".into(), "-".into(), "..x".into()]
        {
            replace_file(&dir, &name, b"x", 0o600, Durability::None).unwrap();
            assert_eq!(dir.read(&name, 1).unwrap(), b"x");
        }
    }

    #[test]
    fn hostile_names_are_refused_and_nothing_is_written() {
        let (_root, dir) = dir();
        let names_refused = ["", ".", "..", "a/b", "/etc/x", "a\0b", ".tmp-x", "../x"];
        for name in names_refused {
            let error = replace_file(&dir, name, b"x", 0o600, Durability::Full).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name:?}: {}", error.report());
            assert_eq!(names(&dir), [""; 0], "{name:?}");
        }
        let error = replace_file(&dir, &"a".repeat(256), b"x", 0o600, Durability::Full).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Os(libc::ENAMETOOLONG));
        assert_eq!(names(&dir), [""; 0]);
    }

    #[test]
    fn a_planted_link_is_replaced_and_its_target_untouched() {
        let (root, dir) = dir();
        let outside = TestRoot::new("outside");
        #[allow(clippy::disallowed_methods, reason = "test")]
        std::fs::write(outside.path().join("victim"), b"precious").unwrap();
        std::os::unix::fs::symlink(outside.path().join("victim"), root.path().join("record")).unwrap();
        replace_file(&dir, "record", b"new", 0o600, Durability::Full).unwrap();
        assert_eq!(std::fs::read(outside.path().join("victim")).unwrap(), b"precious");
        assert_eq!(dir.read("record", 10).unwrap(), b"new");
    }

    #[test]
    fn a_directory_in_the_way_is_an_error_and_stays() {
        let (_root, dir) = dir();
        dir.create_dir("record", 0o700).unwrap();
        replace_file(&dir, "record", b"x", 0o600, Durability::Full).unwrap_err();
        assert_eq!(names(&dir), ["record"]);
    }

    #[test]
    fn a_failure_at_any_step_leaves_no_temporary_file_and_the_old_or_new_content() {
        let (_root, dir) = dir();
        replace_file(&dir, "record", b"old", 0o600, Durability::Full).unwrap();
        let count = Rc::new(Cell::new(0));
        let counter = Rc::clone(&count);
        with_hook(
            move |_| {
                counter.set(counter.get() + 1);
                Ok(())
            },
            || replace_file(&dir, "record", b"old", 0o600, Durability::Full).unwrap(),
        );
        assert_eq!(count.get(), 5, "steps of one replacement");
        for fail_at in 0..count.get() {
            let mut at = 0;
            let hook = move |_: &str| {
                at += 1;
                if at > fail_at { Err(Error::new(ErrorKind::Os(libc::ENOSPC), "full")) } else { Ok(()) }
            };
            let result = with_hook(hook, || replace_file(&dir, "record", b"new", 0o644, Durability::Full));
            assert_eq!(result.unwrap_err().errno(), libc::ENOSPC);
            assert_eq!(names(&dir), ["record"], "step {fail_at}");
            let expected: &[u8] = if fail_at < 4 { b"old" } else { b"new" };
            assert_eq!(dir.read("record", 10).unwrap(), expected, "step {fail_at}");
        }
    }

    #[test]
    fn the_sweep_takes_temporary_files_and_nothing_else() {
        let (root, dir) = dir();
        let gone = [".tmp-layer.json-0123456789", ".tmp--abcdef0123", ".tmp-a-b-c-abcdef0123"];
        let kept = [
            ".tmp-",
            ".tmp-x",
            ".tmp-x-123456789",
            ".tmp-x-012345678G",
            ".tmp-abcdef01234",
            "tmp-x-0123456789",
            "layer.json",
            ".tmp-x-0123456789.json",
        ];
        for name in gone.iter().chain(&kept) {
            drop(dir.create_file(name, 0o600).unwrap());
        }
        dir.create_dir(".tmp-dir-0123456789", 0o700).unwrap();
        std::os::unix::fs::symlink("x", root.path().join(".tmp-link-0123456789")).unwrap();
        sweep_temporary(&dir);
        let mut expected: Vec<_> = kept.to_vec();
        expected.extend([".tmp-dir-0123456789", ".tmp-link-0123456789"]);
        expected.sort_unstable();
        assert_eq!(names(&dir), expected);
    }

    #[test]
    fn what_it_names_its_temporary_files_is_what_it_sweeps() {
        for name in ["layer.json", "", "-", &"x".repeat(255), &"é".repeat(127)] {
            let temporary = temporary_name(name).unwrap();
            assert!(temporary.len() <= NAME_MAX && is_temporary(temporary.as_ref()), "{temporary}");
        }
    }
}
