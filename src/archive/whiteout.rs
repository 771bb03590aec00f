// SPDX-License-Identifier: MulanPSL-2.0
//! Names of entries: cleaned to a path below the layer's root, and told apart from whiteouts.
//!
//! Source: OCI image specification, "Representing Changes", and what is left of AUFS in it. Pure.

use crate::archive::Whiteouts;

/// Longest name of one component that Linux file systems take.
const COMPONENT_MAX: usize = 255;
const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept beside the files of a layer (`.wh..wh.plnk`, `.wh..wh.orph`, `.wh..wh.aufs`).
const METADATA: &[u8] = b".wh..wh.";

/// What an entry's name asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// The layer's root itself.
    Root,
    /// Something named `name` in the directory `parent`.
    Entry {
        /// Path below the root, empty for the root.
        parent: &'a [u8],
        /// One component.
        name: &'a [u8],
    },
    /// `name` in `parent` of the layers below is hidden.
    Hidden {
        /// Path below the root, empty for the root.
        parent: &'a [u8],
        /// One component.
        name: &'a [u8],
    },
    /// Everything in `parent` of the layers below is hidden.
    Opaque {
        /// Path below the root, empty for the root.
        parent: &'a [u8],
    },
    /// AUFS metadata: nothing for the tree.
    Skipped,
}

/// Cleans a name to a path below the root: no leading, double or trailing slash, no `.`; `..` takes the component
/// before it back and stays at the root there, as it would in a chroot whose directories are no links.
pub(super) fn clean(name: &[u8], path: &mut Vec<u8>) -> Result<(), &'static str> {
    path.clear();
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => path.truncate(split(path).0.len()),
            _ => {
                if component.contains(&0) {
                    return Err("the name has a NUL");
                }
                // A whiteout of the longest name there can be is longer than any name.
                let hidden = component.strip_prefix(PREFIX).unwrap_or(component);
                if hidden.len() > COMPONENT_MAX {
                    return Err("a component of the name is longer than 255 bytes");
                }
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    Ok(())
}

/// Splits a cleaned path into its directory (empty for the root) and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

/// What a cleaned path means.
pub(super) fn meaning(path: &[u8], whiteouts: Whiteouts) -> Result<Meaning<'_>, &'static str> {
    if path.is_empty() {
        return Ok(Meaning::Root);
    }
    let (parent, name) = split(path);
    if whiteouts == Whiteouts::Keep {
        return Ok(Meaning::Entry { parent, name });
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque { parent });
    }
    if path.split(|byte| *byte == b'/').any(|component| component.starts_with(METADATA)) {
        return Ok(Meaning::Skipped);
    }
    match name.strip_prefix(PREFIX) {
        Some(b"" | b"." | b"..") => Err("a whiteout of a directory itself or of its parent"),
        Some(hidden) => Ok(Meaning::Hidden { parent, name: hidden }),
        None => Ok(Meaning::Entry { parent, name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_confined_to_the_root() {
        let table: &[(&[u8], &[u8])] = &[
            (b"a/b", b"a/b"),
            (b"/a/b/", b"a/b"),
            (b"./a//./b", b"a/b"),
            (b"../../evil", b"evil"),
            (b"/../evil", b"evil"),
            (b"a/../../b", b"b"),
            (b"a/b/..", b"a"),
            (b".", b""),
            (b"/", b""),
            (b"", b""),
            (b"..", b""),
            (b"...", b"..."),
            (b"a\xff/\xfe", b"a\xff/\xfe"),
        ];
        let mut path = b"left over".to_vec();
        for (name, expected) in table {
            clean(name, &mut path).unwrap();
            assert_eq!(&path, expected, "{}", name.escape_ascii());
        }
        assert!(clean(b"a\0b", &mut path).is_err());
        assert!(clean(&[b'a'; 256], &mut path).is_err());
        assert!(clean(&[b'a'; 255], &mut path).is_ok());
        assert!(clean(&[b".wh.".as_slice(), &[b'a'; 255]].concat(), &mut path).is_ok());
        assert!(clean(&[b".wh.".as_slice(), &[b'a'; 256]].concat(), &mut path).is_err());
    }

    #[test]
    fn whiteouts_are_told_apart() {
        use Meaning::{Entry, Hidden, Opaque, Root, Skipped};
        let table: &[(&[u8], Meaning<'_>)] = &[
            (b"", Root),
            (b"a", Entry { parent: b"", name: b"a" }),
            (b"d/a", Entry { parent: b"d", name: b"a" }),
            (b".wh.a", Hidden { parent: b"", name: b"a" }),
            (b"d/e/.wh.a", Hidden { parent: b"d/e", name: b"a" }),
            (b".wh..wh..opq", Opaque { parent: b"" }),
            (b"d/.wh..wh..opq", Opaque { parent: b"d" }),
            (b".wh..wh.plnk", Skipped),
            (b".wh..wh.plnk/1.2", Skipped),
            (b"d/.wh..wh.orph", Skipped),
            (b".wh.a/b", Entry { parent: b".wh.a", name: b"b" }),
            (b".wh....", Hidden { parent: b"", name: b"..." }),
            (b"a.wh.b", Entry { parent: b"", name: b"a.wh.b" }),
        ];
        for (path, expected) in table {
            for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove] {
                let found = meaning(path, whiteouts).unwrap();
                assert_eq!(found, *expected, "{}", path.escape_ascii());
            }
        }
        for path in [&b".wh."[..], b".wh..", b".wh...", b"d/.wh.", b"d/.wh..", b"d/.wh..."] {
            assert!(meaning(path, Whiteouts::Overlay).is_err(), "{}", path.escape_ascii());
            assert!(meaning(path, Whiteouts::Keep).is_ok(), "{}", path.escape_ascii());
        }
    }
}
