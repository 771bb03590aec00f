// SPDX-License-Identifier: MulanPSL-2.0
//! Option strings: which words belong to the mount, which to the file system.

use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags};

use crate::error::{Error, Result};

/// Options sorted by whom they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// For `mount(2)`.
    pub(super) flags: MountFlags,
    /// For `fsmount`.
    pub(super) attributes: MountAttrFlags,
    /// Words for the superblock that `fsconfig` takes as flags whatever the file system (`ro`, `sync`, …).
    pub(super) superblock: Vec<&'static str>,
    /// Propagation to be set after mounting.
    pub(super) propagation: Vec<MountPropagationFlags>,
    /// For the file system, in the order given; a word or `key=value`, values without their quotes.
    pub(super) rest: Vec<(String, Option<String>)>,
}

/// Splits strings of comma-separated options. A comma inside double quotes or after a backslash does not split.
/// Well-known words are recognised whole (`rootcontext=` is not `ro`); the last of two that contradict each other wins.
/// What would make something else of the mount (`bind`, `remount`, `move`) is refused, and so is what names the
/// directories, for they are given otherwise.
pub(super) fn parse(strings: &[String]) -> Result<Options> {
    let mut options = Options {
        flags: MountFlags::empty(),
        attributes: MountAttrFlags::empty(),
        superblock: Vec::new(),
        propagation: Vec::new(),
        rest: Vec::new(),
    };
    for word in strings.iter().flat_map(|string| split(string)) {
        options.add(&word)?;
    }
    Ok(options)
}

impl Options {
    fn add(&mut self, word: &str) -> Result<()> {
        use MountPropagationFlags as P;
        match word {
            "" | "defaults" | "rw" | "suid" | "dev" | "exec" | "async" | "diratime" | "nomand" | "loud"
            | "nolazytime" | "norelatime" | "nostrictatime" | "atime" | "silent" | "iversion"
            | "noiversion" => self.clear(word),
            "ro" => self.set(MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY, Some("ro")),
            "nosuid" => self.set(MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID, None),
            "nodev" => self.set(MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV, None),
            "noexec" => self.set(MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC, None),
            "nodiratime" => self.set(MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME, None),
            "noatime" => self.set_atime(MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
            "relatime" => self.set_atime(MountFlags::RELATIME, MountAttrFlags::MOUNT_ATTR_RELATIME),
            "strictatime" => self.set_atime(MountFlags::STRICTATIME, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
            "sync" => self.set(MountFlags::SYNCHRONOUS, MountAttrFlags::empty(), Some("sync")),
            "dirsync" => self.set(MountFlags::DIRSYNC, MountAttrFlags::empty(), Some("dirsync")),
            "mand" => {
                self.set(MountFlags::PERMIT_MANDATORY_FILE_LOCKING, MountAttrFlags::empty(), Some("mand"))
            }
            "lazytime" => self.set(MountFlags::LAZYTIME, MountAttrFlags::empty(), Some("lazytime")),
            "private" => self.propagation.push(P::PRIVATE),
            "rprivate" => self.propagation.push(P::PRIVATE | P::REC),
            "shared" => self.propagation.push(P::SHARED),
            "rshared" => self.propagation.push(P::SHARED | P::REC),
            "slave" => self.propagation.push(P::DOWNSTREAM),
            "rslave" => self.propagation.push(P::DOWNSTREAM | P::REC),
            "unbindable" => self.propagation.push(P::UNBINDABLE),
            "runbindable" => self.propagation.push(P::UNBINDABLE | P::REC),
            "bind" | "rbind" | "remount" | "move" => {
                return Err(Error::invalid(format!("mount option {word:?} does not mount a file system")));
            }
            _ => self.add_rest(word)?,
        }
        Ok(())
    }

    fn add_rest(&mut self, word: &str) -> Result<()> {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word, None),
        };
        if matches!(key, "lowerdir" | "lowerdir+" | "datadir+" | "upperdir" | "workdir") {
            return Err(Error::invalid(format!("mount option {key:?} is set by the driver")));
        }
        let unquoted =
            value.map(|value| value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value));
        self.rest.push((key.to_owned(), unquoted.map(str::to_owned)));
        Ok(())
    }

    fn set(&mut self, flags: MountFlags, attributes: MountAttrFlags, superblock: Option<&'static str>) {
        self.flags |= flags;
        self.attributes |= attributes;
        self.superblock.extend(superblock);
    }

    /// The access-time attributes are one field with three values, not bits.
    fn set_atime(&mut self, flag: MountFlags, attribute: MountAttrFlags) {
        self.flags -= MountFlags::NOATIME | MountFlags::RELATIME | MountFlags::STRICTATIME;
        self.attributes -= MountAttrFlags::MOUNT_ATTR__ATIME;
        self.set(flag, attribute, None);
    }

    fn clear(&mut self, word: &str) {
        let (flags, attributes, superblock) = match word {
            "rw" => (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY, "ro"),
            "suid" => (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID, ""),
            "dev" => (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV, ""),
            "exec" => (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC, ""),
            "diratime" => (MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME, ""),
            "async" => (MountFlags::SYNCHRONOUS, MountAttrFlags::empty(), "sync"),
            "nomand" => (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, MountAttrFlags::empty(), "mand"),
            "nolazytime" => (MountFlags::LAZYTIME, MountAttrFlags::empty(), "lazytime"),
            "norelatime" | "atime" | "nostrictatime" => {
                // Back to the kernel's default.
                (
                    MountFlags::NOATIME | MountFlags::RELATIME | MountFlags::STRICTATIME,
                    MountAttrFlags::MOUNT_ATTR__ATIME,
                    "",
                )
            }
            _ => return,
        };
        self.flags -= flags;
        self.attributes -= attributes;
        self.superblock.retain(|word| *word != superblock);
    }
}

fn split(string: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut characters = string.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.push(character);
            }
            '\\' if !quoted => match characters.next() {
                Some(',') => word.push(','),
                Some(other) => word.extend(['\\', other]),
                None => word.push('\\'),
            },
            ',' if !quoted => words.push(std::mem::take(&mut word)),
            _ => word.push(character),
        }
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(strings: &[&str]) -> Options {
        parse(&strings.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn overlay(strings: &[&str]) -> Vec<String> {
        let options = parsed(strings).rest;
        options
            .into_iter()
            .map(|(key, value)| value.map_or(key.clone(), |value| format!("{key}={value}")))
            .collect()
    }

    #[test]
    fn well_known_words_are_taken_whole_and_the_rest_goes_to_the_overlay() {
        let options = parsed(&["nodev,index=off", "metacopy=on,ro,volatile"]);
        assert_eq!(options.flags, MountFlags::NODEV | MountFlags::RDONLY);
        assert_eq!(options.attributes, MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY);
        assert_eq!(options.superblock, ["ro"]);
        assert_eq!(
            overlay(&["nodev,index=off", "metacopy=on,ro,volatile"]),
            ["index=off", "metacopy=on", "volatile"]
        );
        // The reference compares prefixes and takes these for `ro`, `dev`, `sync`, `bind`.
        for word in ["rootcontext=x", "device", "synchronous=1", "binding"] {
            assert_eq!(overlay(&[word]), [word]);
            assert!(parsed(&[word]).flags.is_empty(), "{word}");
        }
    }

    #[test]
    fn the_last_word_wins() {
        for (string, flags) in [
            ("ro,rw", MountFlags::empty()),
            ("rw,ro", MountFlags::RDONLY),
            ("nosuid,nodev,noexec,suid", MountFlags::NODEV | MountFlags::NOEXEC),
            ("noatime,relatime", MountFlags::RELATIME),
            ("relatime,strictatime,noatime", MountFlags::NOATIME),
            ("sync,async,dirsync", MountFlags::DIRSYNC),
            ("defaults,,", MountFlags::empty()),
        ] {
            assert_eq!(parsed(&[string]).flags, flags, "{string}");
        }
        assert_eq!(parsed(&["sync,async,dirsync"]).superblock, ["dirsync"]);
        assert_eq!(parsed(&["noatime,strictatime"]).attributes, MountAttrFlags::MOUNT_ATTR_STRICTATIME);
    }

    #[test]
    fn commas_in_quotes_or_after_a_backslash_do_not_split() {
        assert_eq!(
            overlay(&[r#"context="u:r:t:s0:c1,c2",index=on"#]),
            ["context=u:r:t:s0:c1,c2", "index=on"]
        );
        assert_eq!(overlay(&[r"a=b\,c,d=\e"]), ["a=b,c", r"d=\e"]);
    }

    #[test]
    fn what_is_not_an_option_of_an_overlay_is_refused() {
        for word in
            ["bind", "rbind", "remount", "move", "lowerdir=/", "upperdir=/x", "workdir=/x", "lowerdir+=/"]
        {
            parse(&[format!("nodev,{word}")]).unwrap_err();
        }
    }
}
