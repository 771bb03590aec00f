// SPDX-License-Identifier: MulanPSL-2.0
//! `container.json`.

use crate::error::{During, ErrorKind, Result};
use crate::json::{self, Value};

/// The record of a container's root file system. Absent members are `None` or empty, as the reference reads them. Old
/// files have a member `flags` (labels, storage options), which nothing reads and the next write drops.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootfsRecord {
    /// Container id.
    pub id: Option<String>,
    /// Names, sorted and unique.
    pub names: Vec<String>,
    /// The image it was made from.
    pub image: Option<String>,
    /// Its writable layer.
    pub layer: Option<String>,
    /// Free text.
    pub metadata: Option<String>,
    /// When it was made.
    pub created: Option<String>,
    /// Ranges of user ids.
    pub uid_map: Vec<IdMap>,
    /// Ranges of group ids.
    pub gid_map: Vec<IdMap>,
}

/// A range of user or group ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdMap {
    /// First id in the container.
    pub container_id: i32,
    /// First id on the host.
    pub host_id: i32,
    /// Number of ids.
    pub size: i32,
}

impl RootfsRecord {
    /// Reads the text of a record. What does not parse is `Corrupt`; a valid text of another shape gives an empty
    /// record, as in the reference.
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::read(text)
            .map_err(|error| error.with_kind(ErrorKind::Corrupt))
            .during(|| "read container record")
    }

    fn read(text: &[u8]) -> Result<Self> {
        let value = json::parse(text)?;
        Ok(RootfsRecord {
            id: value.string("id"),
            names: value.strings("names"),
            image: value.string("image"),
            layer: value.string("layer"),
            metadata: value.string("metadata"),
            created: value.string("created"),
            uid_map: id_maps(&value, "uidmap")?,
            gid_map: id_maps(&value, "gidmap")?,
        })
    }

    /// Writes the record as the reference does: members of a range that are 0 are left out.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let text = json::to_text(|w| {
            w.string("id", self.id.as_deref());
            w.strings("names", &self.names);
            w.string("image", self.image.as_deref());
            w.string("layer", self.layer.as_deref());
            w.string("metadata", self.metadata.as_deref());
            w.string("created", self.created.as_deref());
            for (key, maps) in [("uidmap", &self.uid_map), ("gidmap", &self.gid_map)] {
                w.objects(key, maps, |w, map| {
                    w.signed("container_id", map.container_id);
                    w.signed("host_id", map.host_id);
                    w.signed("size", map.size);
                });
            }
        });
        super::within_limit(text)
    }
}

fn id_maps(value: &Value, key: &str) -> Result<Vec<IdMap>> {
    let read = |element: &Value| {
        Ok(IdMap {
            container_id: element.int32("container_id")?,
            host_id: element.int32("host_id")?,
            size: element.int32("size")?,
        })
    };
    value.array(key).iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container_id: i32, host_id: i32, size: i32) -> IdMap {
        IdMap { container_id, host_id, size }
    }

    fn written(record: &RootfsRecord) -> String {
        String::from_utf8(record.to_json().unwrap()).unwrap()
    }

    #[test]
    fn container_records_of_the_reference_are_written_byte_for_byte() {
        // Written by a real iSulad daemon.
        let text = include_str!("../../tests/golden/records/container.json");
        let record = RootfsRecord::parse(text.as_bytes()).unwrap();
        assert_eq!(written(&record), text);
        assert!(record.id.is_some() && record.layer == record.id && record.image.is_some());
    }

    #[test]
    fn id_maps_are_kept_whole_and_members_that_are_0_are_left_out() {
        let text = r#"{
    "id": "i",
    "names": [
        "n"
    ],
    "image": "m",
    "layer": "l",
    "metadata": "{}",
    "created": "c",
    "uidmap": [
        {
            "container_id": 1,
            "host_id": 1000,
            "size": 1
        },
        {
            "host_id": 100000,
            "size": 65536
        }
    ],
    "gidmap": [
        {
            "container_id": -1
        }
    ]
}
"#;
        let record = RootfsRecord::parse(text.as_bytes()).unwrap();
        assert_eq!(record.uid_map, [map(1, 1000, 1), map(0, 100_000, 65_536)]);
        assert_eq!(record.gid_map, [map(-1, 0, 0)]);
        assert_eq!(record.metadata.as_deref(), Some("{}"));
        assert_eq!(written(&record), text);
        let zero = RootfsRecord { uid_map: vec![map(0, 0, 0)], ..RootfsRecord::default() };
        assert_eq!(RootfsRecord::parse(&zero.to_json().unwrap()).unwrap(), zero);
    }

    #[test]
    fn historic_and_odd_container_records_are_read_as_the_reference_does() {
        let old = br#"{"id":"x","layer":"y","flags":{"MountLabel":"","StorageOpts":null},"uidmap":null}"#;
        let old = RootfsRecord::parse(old).unwrap();
        assert_eq!((old.id.as_deref(), old.layer.as_deref()), (Some("x"), Some("y")));
        assert!(!written(&old).contains("flags"), "lost at the next write");
        for empty in ["{}", "[]", "null", "\"x\"", r#"{"id":5,"names":"a","layer":[],"uidmap":{}}"#] {
            assert_eq!(RootfsRecord::parse(empty.as_bytes()).unwrap(), RootfsRecord::default(), "{empty}");
        }
        let odd = RootfsRecord::parse(br#"{"uidmap":[null,{},{"size":"7"}],"gidmap":[]}"#).unwrap();
        assert_eq!((odd.uid_map, odd.gid_map), (vec![IdMap::default(); 3], vec![]));
        let deep = format!("{{\"id\":{}", "[".repeat(1_000_000));
        let bad = ["", "{", r#"{"uidmap":[{"size":1.5}]}"#, r#"{"gidmap":[{"host_id":2147483648}]}"#, &deep];
        for bad in bad {
            let error = RootfsRecord::parse(bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{:.40}", bad);
        }
    }
}
