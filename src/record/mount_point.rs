// SPDX-License-Identifier: MulanPSL-2.0
//! Mount state of a layer, below the run root.

use crate::error::Result;

/// How often a layer is mounted, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountPointRecord {
    /// Never written by the reference.
    pub id: Option<String>,
    /// How often it is mounted.
    pub count: i32,
    /// Where.
    pub path: Option<String>,
}

impl MountPointRecord {
    /// Reads the text of a record.
    pub fn parse(text: &[u8]) -> Result<Self> {
        todo!()
    }

    /// Writes the record as the reference does.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        todo!()
    }
}
