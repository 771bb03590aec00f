// SPDX-License-Identifier: MulanPSL-2.0
//! Everything that is known of one image or layer.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::layer::Layer;
use crate::record::image::ImageRecord;
use crate::units::{Bytes, Usage};

use super::{Storage, config_key};

/// An image.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// Its record.
    pub record: Arc<ImageRecord>,
    /// The text of its config; `None` when it has none.
    pub config: Option<Vec<u8>>,
    /// Its layers, from the top down; as far as they are there.
    pub layers: Vec<Layer>,
    /// What of it is missing, for people.
    pub problems: Vec<String>,
}

/// A layer.
#[derive(Debug, Clone)]
pub struct LayerDetails {
    /// The layer.
    pub layer: Layer,
    /// References that keep it from being deleted with an image.
    pub holds: i32,
    /// Where its content is: keys and values of the driver.
    pub data: Vec<(&'static str, String)>,
    /// What it holds itself, and the directory that was counted.
    pub usage: Option<(PathBuf, Usage)>,
    /// Most bytes that it may hold itself.
    pub limit: Option<Bytes>,
    /// Ids of the images whose top layer it is.
    pub images: Vec<String>,
    /// Ids of the layers that stand on it.
    pub children: Vec<String>,
}

impl Storage {
    /// An image by any name.
    pub fn image_details(&self, name: &str) -> Result<ImageDetails> {
        let id = self.find_image(name)?;
        let record = self.images().get(id.as_str())?;
        let mut problems = Vec::new();
        let config = match self.images().big_data(id.as_str(), &config_key(&id)) {
            Ok(config) => Some(config),
            Err(error) => {
                problems.push(format!("config: {}", error.report()));
                None
            }
        };
        let layers = match self.chain(record.layer.as_deref().unwrap_or_default()) {
            Ok(layers) => layers,
            Err(error) => {
                problems.push(error.report());
                Vec::new()
            }
        };
        Ok(ImageDetails { record, config, layers, problems })
    }

    /// A layer by id, beginning of an id, or name.
    pub fn layer_details(&self, name: &str) -> Result<LayerDetails> {
        let layer = self.find_layer(name)?;
        let images = self.images().list()?;
        let images = images.iter().filter(|image| image.layer.as_deref() == Some(layer.id.as_str()));
        let children =
            self.layers().list().into_iter().filter(|child| child.parent.as_ref() == Some(&layer.id));
        Ok(LayerDetails {
            holds: self.layers().hold_count(&layer.id)?,
            data: self.layers().metadata(&layer.id)?,
            usage: self.layers().usage(&layer.id)?,
            limit: self.layers().limit(&layer.id)?,
            images: images.filter_map(|image| image.id.clone()).collect(),
            children: children.map(|child| child.id.to_string()).collect(),
            layer,
        })
    }
}
