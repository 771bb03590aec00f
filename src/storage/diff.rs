// SPDX-License-Identifier: MulanPSL-2.0
//! What a layer, or a container, changes.

use std::io::Write;

use crate::error::{ErrorKind, Result};
use crate::id::LayerId;
use crate::units::Bytes;

use super::{Change, Diffed, Storage};

impl Storage {
    /// A layer by id, beginning of an id, or name; or else the layer of the container of this name.
    pub fn find_layer_or_container(&self, name: &str) -> Result<LayerId> {
        match self.find_layer(name) {
            Ok(layer) => Ok(layer.id),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Its own words say more where a beginning of an id means several layers.
                self.layer_of(name).map_err(|other| match other.kind() {
                    ErrorKind::NotFound => error.context("no such container, nor"),
                    _ => other,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a new layer archive of what a layer or container changes of another; `None`: of what it stands on. See
    /// [`crate::layer::LayerStore::diff`].
    pub fn diff(&self, name: &str, parent: Option<&str>, out: &mut dyn Write) -> Result<Diffed> {
        let (layer, parent) = self.pair(name, parent)?;
        self.layers().diff(layer.as_str(), parent.as_ref().map(LayerId::as_str), out)
    }

    /// The paths that a layer or container changes of another; `None`: of what it stands on.
    pub fn changes(&self, name: &str, parent: Option<&str>) -> Result<Vec<Change>> {
        let (layer, parent) = self.pair(name, parent)?;
        self.layers().changes(layer.as_str(), parent.as_ref().map(LayerId::as_str))
    }

    /// Sum of the sizes of the files that [`Storage::diff`] would write.
    pub fn diff_size(&self, name: &str, parent: Option<&str>) -> Result<Bytes> {
        let (layer, parent) = self.pair(name, parent)?;
        self.layers().diff_size(layer.as_str(), parent.as_ref().map(LayerId::as_str))
    }

    fn pair(&self, name: &str, parent: Option<&str>) -> Result<(LayerId, Option<LayerId>)> {
        let layer = self.find_layer_or_container(name)?;
        let parent = parent.map(|parent| self.find_layer_or_container(parent)).transpose()?;
        Ok((layer, parent))
    }
}
