// SPDX-License-Identifier: MulanPSL-2.0
//! Capabilities of files in a user namespace. Pure.
//!
//! `security.capability` comes in two forms of interest, all numbers little-endian: version 2 (20 bytes) counts on the
//! host's root and is without effect in a user namespace; version 3 (24 bytes) ends with the user id, outside of the
//! namespace, of the root that it counts on. What an image grants to its root has to name the shifted root.
//!
//! Source: capabilities(7), "File capability extended attribute versioning".

const VERSION_MASK: u32 = 0xff00_0000;
const VERSION_2: u32 = 0x0200_0000;
const VERSION_3: u32 = 0x0300_0000;
const LENGTH_2: usize = 20;
const LENGTH_3: usize = 24;

/// The value for a namespace whose root is `root` outside of it; `None` when it is malformed. Version 1 stays: no kernel
/// of today takes it.
pub(super) fn of_namespace(value: &[u8], root: u32) -> Option<Vec<u8>> {
    let (head, rest) = value.split_first_chunk::<4>()?;
    let head = u32::from_le_bytes(*head);
    let (sets, owner) = match (head & VERSION_MASK, value.len()) {
        (VERSION_2, LENGTH_2) => (rest, 0),
        (VERSION_3, LENGTH_3) => {
            let (sets, owner) = rest.split_last_chunk::<4>()?;
            (sets, u32::from_le_bytes(*owner))
        }
        (VERSION_2 | VERSION_3, _) => return None,
        _ => return Some(value.to_vec()),
    };
    let owner = owner.checked_add(root).filter(|owner| *owner != u32::MAX)?;
    let head = head & !VERSION_MASK | VERSION_3;
    Some([&head.to_le_bytes()[..], sets, &owner.to_le_bytes()].concat())
}

/// The value as the root of the namespace knows it, `root` being its number outside; `None` when it is malformed, or
/// without effect in the namespace because it counts on somebody else.
pub(super) fn of_image(value: &[u8], root: u32) -> Option<Vec<u8>> {
    let (head, rest) = value.split_first_chunk::<4>()?;
    let head = u32::from_le_bytes(*head);
    if head & VERSION_MASK != VERSION_3 || value.len() != LENGTH_3 {
        return None;
    }
    let (sets, owner) = rest.split_last_chunk::<4>()?;
    let owner = u32::from_le_bytes(*owner).checked_sub(root)?;
    Some(match owner {
        0 => [&(head & !VERSION_MASK | VERSION_2).to_le_bytes()[..], sets].concat(),
        _ => [&head.to_le_bytes()[..], sets, &owner.to_le_bytes()].concat(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETS: &[u8] = b"\x00\x20\x00\x00\x00\x04\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00";

    #[test]
    fn capabilities_count_on_the_root_of_the_namespace() {
        let value = |head: u32, owner: Option<u32>| -> Vec<u8> {
            let owner = owner.map(u32::to_le_bytes);
            let owner = owner.as_ref().map_or(&[][..], |owner| owner);
            [&head.to_le_bytes()[..], SETS, owner].concat()
        };
        let two = value(VERSION_2 | 1, None);
        assert_eq!(of_namespace(&two, 100_000), Some(value(VERSION_3 | 1, Some(100_000))));
        assert_eq!(of_namespace(&value(VERSION_3, Some(7)), 1000), Some(value(VERSION_3, Some(1007))));
        assert_eq!(of_namespace(&value(VERSION_3, Some(7)), u32::MAX - 7), None);
        for bad in [&b""[..], b"\0\0\0", &two[..19], &value(VERSION_2, Some(1)), &value(VERSION_3, None)] {
            assert_eq!(of_namespace(bad, 1), None);
        }
        let shifted = of_namespace(&two, 100_000).unwrap();
        assert_eq!(of_image(&shifted, 100_000), Some(two.clone()));
        assert_eq!(of_image(&value(VERSION_3, Some(1007)), 1000), Some(value(VERSION_3, Some(7))));
        assert_eq!(of_image(&two, 1000), None, "it counts on the host's root");
        assert_eq!(of_image(&shifted, 100_001), None);
        let one = b"\x01\0\0\x01\x00\x20\x00\x00\x00\x00\x00\x00";
        assert_eq!(of_namespace(one, 1), Some(one.to_vec()));
    }
}
