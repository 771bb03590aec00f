// SPDX-License-Identifier: MulanPSL-2.0
//! How others see that something changed: a counter in a file of the state directory.
//!
//! A change makes it odd before it touches the disk and even again afterwards, so a reader that found the same even
//! number before and after it read the records has seen one state of the store. An odd number with nobody changing
//! anything is left by a crash. Nothing of this has to survive a power cut: whoever remembers a number is gone then,
//! too.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::{self, Durability};
use crate::sys::fs::{Dir, random_hex};
use crate::time::Timestamp;

const NAME: &str = "generation";
const MODE: u32 = 0o600;
/// A number of 64 bits and a newline.
const LIMIT: u64 = 21;
/// An odd number: a change that was interrupted.
const INTERRUPTED: u64 = 1;

/// The counter. Number 0 stands for a store that has none.
#[derive(Debug)]
pub(super) struct Generation {
    state: Dir,
    /// An owner's own file: nobody else replaces it, so it can be written in place.
    owned: Option<File>,
}

impl Generation {
    /// The counter of an owner: a new file with a new number, which is returned.
    pub(super) fn own(state: Dir) -> Result<(Self, u64)> {
        let number = settled(read(&state)?);
        let file = match new_file(&state, number) {
            // On a full disk the file that is there has its block. A reader may see it half-written at worst.
            Err(error) if error.is_no_space() => write_in_place(&state, number).map_err(|_| error)?,
            made => made?,
        };
        Ok((Generation { state, owned: Some(file) }, number))
    }

    /// The counter of somebody who shares the store, or only reads it.
    pub(super) fn share(state: Dir) -> Self {
        Generation { state, owned: None }
    }

    /// The number now.
    pub(super) fn read(&self) -> Result<u64> {
        read(&self.state)
    }

    /// Says that a change begins.
    pub(super) fn begin(&self, number: &mut u64) -> Result<()> {
        self.write(number, *number | 1)
    }

    /// Says that it is done.
    pub(super) fn end(&self, number: &mut u64) -> Result<()> {
        self.write(number, settled(*number))
    }

    fn write(&self, number: &mut u64, new: u64) -> Result<()> {
        match &self.owned {
            Some(file) => write_to(file, new)?,
            None => {
                match persist::replace_file(&self.state, NAME, text(new).as_bytes(), MODE, Durability::None) {
                    Err(error) if error.is_no_space() => {
                        write_in_place(&self.state, new).map_err(|_| error)?;
                    }
                    replaced => replaced?,
                }
            }
        }
        *number = new;
        Ok(())
    }
}

fn new_file(state: &Dir, number: u64) -> Result<File> {
    // The name of a temporary file of `persist`, so that its sweep finds it after a crash.
    let temporary = format!(".tmp-{NAME}-{}", random_hex(10)?);
    let file = state.create_file(&temporary, MODE)?;
    let made = write_to(&file, number).and_then(|()| state.rename(&temporary, state, NAME));
    if made.is_err()
        && let Err(error) = state.remove_file(&temporary)
    {
        log::warn!("{}", error.report());
    }
    made.map(|()| file)
}

fn write_in_place(state: &Dir, number: u64) -> Result<File> {
    let file = state.open_file_in_place(NAME)?;
    write_to(&file, number)?;
    Ok(file)
}

fn write_to(file: &File, number: u64) -> Result<()> {
    file.write_all_at(text(number).as_bytes(), 0).during(|| "write the generation of the store")
}

/// Whether a change is going on, or was interrupted.
pub(super) fn is_changing(number: u64) -> bool {
    number % 2 == 1
}

/// The next number that says "nothing is going on"; never 0. Numbers follow the clock, so that a counter that was
/// lost does not come to a number that somebody remembers.
fn settled(number: u64) -> u64 {
    let now = Timestamp::now().unix_nanos().unsigned_abs() & !1;
    (number | 1).checked_add(1).unwrap_or(2).max(now)
}

fn text(number: u64) -> String {
    format!("{number:020}\n")
}

fn read(state: &Dir) -> Result<u64> {
    match state.read(NAME, LIMIT) {
        // Not a number after a power cut, which nobody has outlived: any number will do.
        Ok(content) => Ok(parse(&content).unwrap_or(INTERRUPTED)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) if error.kind() == ErrorKind::LimitExceeded => Ok(INTERRUPTED),
        Err(error) => Err(Error::context(error, "read the generation of the store")),
    }
}

fn parse(content: &[u8]) -> Option<u64> {
    std::str::from_utf8(content).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::TestRoot;

    fn dir(root: &TestRoot) -> Dir {
        Dir::open(root.path()).unwrap()
    }

    #[test]
    fn every_change_is_seen_by_others_whoever_makes_it() {
        let root = TestRoot::in_memory("generation");
        let reader = Generation::share(dir(&root));
        assert_eq!(reader.read().unwrap(), 0);

        let (owner, mut number) = Generation::own(dir(&root)).unwrap();
        let mut seen = vec![reader.read().unwrap()];
        for _ in 0..3 {
            owner.begin(&mut number).unwrap();
            assert!(is_changing(reader.read().unwrap()));
            owner.end(&mut number).unwrap();
            seen.push(reader.read().unwrap());
        }
        drop(owner);
        let shared = Generation::share(dir(&root));
        let mut number = shared.read().unwrap();
        shared.begin(&mut number).unwrap();
        assert!(is_changing(reader.read().unwrap()));
        shared.end(&mut number).unwrap();
        seen.push(reader.read().unwrap());
        seen.push(Generation::own(dir(&root)).unwrap().1);
        assert!(seen.iter().all(|number| !is_changing(*number)));
        let mut unique = seen.clone();
        unique.dedup();
        assert_eq!(unique, seen);
    }

    #[test]
    fn a_damaged_counter_counts_as_changed_and_heals() {
        let root = TestRoot::in_memory("generation");
        for content in [&b""[..], b"\0\0\0\0", b"x", b"99999999999999999999\n", &[b'1'; 100]] {
            persist::replace_file(&dir(&root), NAME, content, MODE, Durability::None).unwrap();
            assert!(is_changing(Generation::share(dir(&root)).read().unwrap()));
            let (owner, number) = Generation::own(dir(&root)).unwrap();
            assert_eq!(owner.read().unwrap(), number);
            assert!(!is_changing(number));
        }
        assert!(!is_changing(settled(u64::MAX)) && settled(u64::MAX) > 0);
    }
}
