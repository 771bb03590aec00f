// SPDX-License-Identifier: MulanPSL-2.0
//! Import of image archives: docker archives, OCI layouts and OCI archives.
//!
//! A docker archive leaves the store as iSulad's own load does. What iSulad cannot load (OCI) is stored as its pull
//! stores an image: the genuine manifest, and its digest as the image's.
//!
//! Order, for each image of the archive:
//!
//! ```text
//! documents read and checked: nothing is written for an archive that contradicts itself
//! layers base first            some side by side; each held, so that nobody deletes it; those that exist are not read
//! image record, config, manifest, loaded time, size
//! names                        last: a name never moves to an image that is not whole
//! holds released
//! ```
//!
//! After an error what this import made for the failing image is taken back; what was there before is not touched. After
//! a crash, layers without an image may remain; importing again uses them, and completes an image that lacks something.

mod docker;
mod layers;
mod oci;
mod plan;
mod register;
mod source;
mod tar_index;

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{ImageId, LayerId};
use crate::spec::docker_archive;
use crate::spec::oci_layout;
use crate::spec::platform::Platform;

use super::Storage;
pub(in crate::storage) use plan::{PlannedImage, PlannedLayer, layer_ids};
pub(in crate::storage) use register::Held;
use source::Source;

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A compressed or piped archive is being unpacked: bytes so far.
    Unpacked {
        /// Bytes written.
        bytes: u64,
    },
    /// A layer is being applied.
    Layer {
        /// Which of the image's layers, from 1.
        number: usize,
        /// How many layers the image has.
        of: usize,
        /// Its id.
        id: LayerId,
        /// Bytes of the layer archive read so far.
        bytes: u64,
        /// Bytes of the layer archive.
        total: u64,
    },
    /// A layer is in the store.
    LayerDone {
        /// Its id.
        id: LayerId,
        /// It was there before.
        existed: bool,
    },
}

/// Told of progress; `Break` cancels the import.
pub type OnProgress<'a> = dyn FnMut(&Progress) -> ControlFlow<()> + Send + 'a;

/// What to import and how.
#[derive(Default)]
pub struct ImportOptions<'a> {
    /// Names instead of those in the archive; only for an archive with one image.
    pub names: Vec<String>,
    /// Which of an image for several platforms; none: the one this program was built for.
    pub platform: Option<Platform>,
    /// Whether layers that are there already are compared with what they were made from, and made again if they are
    /// damaged. Else only those are that are known to be.
    pub heal: bool,
    /// Told of progress.
    pub progress: Option<&'a mut OnProgress<'a>>,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// The images, in the order of the archive.
    pub images: Vec<ImportedImage>,
    /// What was left out, for people.
    pub warnings: Vec<String>,
}

/// One image of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedImage {
    /// Its id.
    pub id: ImageId,
    /// The names it was given.
    pub names: Vec<String>,
    /// Whether it was in the store before.
    pub existed: bool,
    /// Its layers, base first.
    pub layers: Vec<ImportedLayer>,
}

/// One layer of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedLayer {
    /// Its id.
    pub id: LayerId,
    /// Whether it was in the store before.
    pub existed: bool,
    /// Bytes of the layer archive.
    pub size: u64,
}

/// Whom to tell of progress, and how thorough to be.
pub(super) struct Watch<'a> {
    progress: Option<&'a mut OnProgress<'a>>,
    /// See [`ImportOptions::heal`].
    heal: bool,
    cancelled: bool,
}

impl<'a> Watch<'a> {
    fn new(progress: Option<&'a mut OnProgress<'a>>, heal: bool) -> Self {
        Watch { progress, heal, cancelled: false }
    }

    /// Once it has cancelled, it is told nothing more.
    fn tell(&mut self, progress: &Progress) -> Result<()> {
        self.cancelled =
            self.cancelled || self.progress.as_mut().is_some_and(|told| told(progress).is_break());
        if self.cancelled {
            return Err(Error::new(ErrorKind::Cancelled, "the import was cancelled"));
        }
        Ok(())
    }
}

impl Storage {
    /// Imports the images of an archive or of a layout directory.
    ///
    /// Errors: `InvalidData`, `DigestMismatch`, `LimitExceeded` for an archive that is not whole or not what it claims;
    /// `Cancelled` when `progress` said so; what the stores say. The images before the failing one stay.
    pub fn import(&self, path: &Path, options: ImportOptions<'_>) -> Result<ImportReport> {
        let ImportOptions { names, platform, heal, progress } = options;
        let mut watch = Watch::new(progress, heal);
        let named = || format!("import {}", path.display());
        self.require_writable().during(named)?;
        let source = Source::open(path, self.root(), &self.limits, &mut watch).during(named)?;
        self.import_source(source, &names, platform, &mut watch).during(named)
    }

    /// The same from a stream.
    pub fn import_stream(
        &self,
        stream: Box<dyn Read + Send>,
        options: ImportOptions<'_>,
    ) -> Result<ImportReport> {
        let ImportOptions { names, platform, heal, progress } = options;
        let mut watch = Watch::new(progress, heal);
        let named = || "import a stream";
        self.require_writable().during(named)?;
        let source = Source::spool(stream, self.root(), &self.limits, &mut watch).during(named)?;
        self.import_source(source, &names, platform, &mut watch).during(named)
    }

    fn import_source(
        &self,
        mut source: Source,
        names: &[String],
        platform: Option<Platform>,
        watch: &mut Watch<'_>,
    ) -> Result<ImportReport> {
        let mut report = ImportReport::default();
        // Docker writes both kinds of files into one archive; iSulad's load reads the first.
        let mut images = if source.holds(docker_archive::MANIFEST) {
            docker::plan(&source)?
        } else if source.holds(oci_layout::LAYOUT) {
            oci::plan(&source, &platform.unwrap_or_else(Platform::host), &mut report.warnings)?
        } else {
            let message =
                "it is no image archive: there is neither manifest.json (docker save) nor oci-layout in it";
            return Err(Error::new(ErrorKind::InvalidData, message));
        };
        self.name_images(&mut images, names)?;
        for image in &images {
            let named = || format!("image {}", image.id);
            report.images.push(self.register(&source, image, watch).during(named)?);
        }
        Ok(report)
    }

    fn name_images(&self, images: &mut [PlannedImage], names: &[String]) -> Result<()> {
        if !names.is_empty() {
            let [image] = images else {
                let message = format!(
                    "a name can be given to a single image only, and the archive holds {}",
                    images.len()
                );
                return Err(Error::invalid(message));
            };
            if let Some(bad) = names.iter().find(|name| !crate::reference::is_valid_name(name)) {
                return Err(Error::invalid(format!("{bad:?} is not a valid image name")));
            }
            image.names = names.to_vec();
        }
        for name in images.iter_mut().flat_map(|image| &mut image.names) {
            *name = self.normalize(name)?;
        }
        Ok(())
    }
}
