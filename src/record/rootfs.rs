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
