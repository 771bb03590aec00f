// SPDX-License-Identifier: MulanPSL-2.0
//! What a storage says of itself.

use crate::driver::DriverStatus;
use crate::error::Result;
use crate::layer::Problem;
use crate::persist::Quarantined;
use crate::units::{Bytes, Usage};

use super::Storage;

/// What a storage says of itself.
#[derive(Debug, Clone)]
pub struct Status {
    /// The driver.
    pub driver: DriverStatus,
    /// Number of images.
    pub images: usize,
    /// Number of image layers.
    pub image_layers: usize,
    /// Number of containers' layers.
    pub container_layers: usize,
    /// Layers that are mounted now.
    pub mounted: usize,
    /// Sum of the layers' recorded sizes.
    pub layer_bytes: Bytes,
    /// What the image records and their big data hold.
    pub image_records: Usage,
    /// What was found wrong when the storage was opened.
    pub problems: Vec<Problem>,
    /// What was put aside.
    pub quarantined: Vec<Quarantined>,
}

impl Storage {
    /// Asks all stores.
    pub fn status(&self) -> Result<Status> {
        let layers = self.layers().list();
        let writable = layers.iter().filter(|layer| layer.writable).count();
        let bytes = layers.iter().map(|layer| u64::try_from(layer.uncompressed_size).unwrap_or(0));
        let mut quarantined = self.layers().quarantined()?;
        quarantined.extend(self.images().quarantined()?);
        if let Ok(containers) = self.containers() {
            quarantined.extend(containers.quarantined()?);
        }
        Ok(Status {
            driver: self.layers().status()?,
            images: self.images().count()?,
            image_layers: layers.len() - writable,
            container_layers: writable,
            mounted: layers.iter().filter(|layer| layer.mount_count > 0).count(),
            layer_bytes: Bytes(bytes.fold(0, u64::saturating_add)),
            image_records: self.images().usage()?,
            problems: self.problems(),
            quarantined,
        })
    }
}
