// SPDX-License-Identifier: MulanPSL-2.0
//! What was put aside, in all stores at once: listing it, taking it back, giving it up.

use std::fmt;

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{ImageId, LayerId};
use crate::persist::Quarantined;

use super::Storage;
use super::import::layer_ids;

/// Fewest characters of a key or a name that are taken for it.
const SHORTEST: usize = 3;

/// What an entry of the quarantine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutAsideKind {
    /// The directory of an image: its record and big data.
    Image,
    /// The record of a container.
    Container,
    /// The record of a layer, with its tar-split stream.
    LayerRecord,
    /// The data of a layer.
    LayerData,
}

impl fmt::Display for PutAsideKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutAsideKind::Image => "image",
            PutAsideKind::Container => "container",
            PutAsideKind::LayerRecord => "layer record",
            PutAsideKind::LayerData => "layer data",
        })
    }
}

/// An entry of the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAside {
    /// What it holds.
    pub kind: PutAsideKind,
    /// Name, reason, time, and where it lies.
    pub entry: Quarantined,
}

impl Storage {
    /// All that lies in quarantine, oldest first.
    pub fn put_aside(&self) -> Result<Vec<PutAside>> {
        let mut all = Vec::new();
        let mut add = |kind, entries: Vec<Quarantined>| {
            all.extend(entries.into_iter().map(|entry| PutAside { kind, entry }));
        };
        add(PutAsideKind::LayerRecord, self.layers().quarantined_records()?);
        add(PutAsideKind::LayerData, self.layers().quarantined_data()?);
        add(PutAsideKind::Image, self.images().quarantined()?);
        if let Ok(containers) = self.containers() {
            add(PutAsideKind::Container, containers.quarantined()?);
        }
        all.sort_by(|a, b| (&a.entry.time, &a.entry.key).cmp(&(&b.entry.time, &b.entry.key)));
        Ok(all)
    }

    /// What is meant by a key, or by the name that the thing had, or by the beginning of either: one entry, or the record
    /// and the data of one layer. Nothing: `NotFound`; several things: `InvalidArgument`.
    fn meant(&self, text: &str) -> Result<Vec<PutAside>> {
        if text.len() < SHORTEST {
            return Err(Error::invalid(format!(
                "{text:?} is too short: give at least {SHORTEST} characters"
            )));
        }
        let mut meant = self.put_aside()?;
        meant.retain(|put| put.entry.key.starts_with(text) || put.entry.name.starts_with(text));
        let Some(first) = meant.first() else {
            return Err(Error::not_found(format!("there is nothing like {text} in quarantine")));
        };
        let is_layer =
            |put: &PutAside| matches!(put.kind, PutAsideKind::LayerRecord | PutAsideKind::LayerData);
        let same = meant.iter().all(|put| is_layer(put) && put.entry.name == first.entry.name);
        let once = |kind| meant.iter().filter(|put| put.kind == kind).count() <= 1;
        if meant.len() > 1 && !(same && once(PutAsideKind::LayerRecord) && once(PutAsideKind::LayerData)) {
            let keys: Vec<&str> = meant.iter().map(|put| put.entry.key.as_str()).collect();
            return Err(Error::invalid(format!("{text} means several things, by key: {}", keys.join(", "))));
        }
        Ok(meant)
    }

    /// Takes back what was put aside, named by key or name. What is in its place: `AlreadyExists`; layers that it stands on
    /// are not there: `NotFound`, naming them; what was wrong with it still is: `Corrupt`, and it lies in quarantine as before. Returns what was
    /// taken back.
    pub fn restore(&self, text: &str) -> Result<Vec<PutAside>> {
        self.require_writable()?;
        let meant = self.meant(text)?;
        let doing = || format!("restore {text} from quarantine");
        let Some(first) = meant.first() else { return Ok(meant) };
        let entry = &first.entry;
        if entry.name.is_empty() {
            let message = "its own record cannot be read, so nobody knows where it belongs";
            return Err(Error::corrupt(message).context(doing()));
        }
        match first.kind {
            PutAsideKind::Image => self.restore_image(entry).during(doing)?,
            PutAsideKind::Container => {
                self.require_layer_of(entry).during(doing)?;
                self.containers()?.restore(entry)?;
            }
            PutAsideKind::LayerData if meant.len() == 1 => {
                self.layers().restore_data(entry)?;
            }
            PutAsideKind::LayerRecord | PutAsideKind::LayerData => {
                self.layers().restore(&LayerId::new(&entry.name)?)?;
            }
        }
        Ok(meant)
    }

    /// An image without its layers would be listed and of no use. All of them are named as far as its config tells.
    fn require_layers_of(&self, entry: &Quarantined) -> Result<()> {
        // Of what cannot be read the image store says more.
        let Some(image) = self.images().look_aside(entry) else { return Ok(()) };
        let Some(top) = image.layer.as_deref() else { return Ok(()) };
        let Ok(top) = LayerId::new(top) else { return Ok(()) };
        let mut missing = self.layers().missing(&top)?;
        if missing.is_empty() {
            return Ok(());
        }
        let diff_ids: Vec<Digest> =
            image.diff_ids.iter().filter_map(|text| Digest::parse(text).ok()).collect();
        let named = layer_ids(&diff_ids);
        if named.last() == Some(&top) {
            missing = named.into_iter().rev().filter(|id| self.layers().parent(id).is_none()).collect();
        }
        // Base first, as they have to be made.
        let missing: Vec<&str> = missing.iter().rev().map(LayerId::as_str).collect();
        let (layers, are) = if missing.len() == 1 { ("layer", "is") } else { ("layers", "are") };
        let message =
            format!("its {layers} {} {are} missing: to be restored, or imported, first", missing.join(", "));
        Err(Error::not_found(message))
    }

    /// A container's record may come before that of its layer, which `repair` makes from it, but not before the data.
    fn require_layer_of(&self, entry: &Quarantined) -> Result<()> {
        let Some(layer) = self.containers()?.layer_aside(entry) else { return Ok(()) };
        let id = LayerId::new(&layer)?;
        if self.layers().parent(&id).is_some() || self.layers().driver().exists(&id)? {
            return Ok(());
        }
        let aside = self.layers().quarantined()?.iter().any(|put| put.name == layer);
        let what = if aside { "lies in quarantine too: restore that first" } else { "is missing" };
        Err(Error::not_found(format!("its layer {layer} {what}")))
    }

    /// Reading the images again puts one aside once more that is as doubtful as before.
    fn restore_image(&self, entry: &Quarantined) -> Result<()> {
        let id = ImageId::new(&entry.name)?;
        self.require_layers_of(entry)?;
        self.images().restore(entry)?;
        if self.images().exists(id.as_str()) {
            return Ok(());
        }
        let subject = format!("image {id}");
        let problem = self.images().problems().into_iter().rfind(|problem| problem.subject == subject);
        let why = problem.map_or_else(|| "it is not whole".to_owned(), |problem| problem.reason);
        Err(Error::new(ErrorKind::Corrupt, format!("it is not listed: {why}")))
    }

    /// Gives up what was put aside, named by key or name, for good. Returns what is gone.
    pub fn purge(&self, text: &str) -> Result<Vec<PutAside>> {
        self.require_writable()?;
        let meant = self.meant(text)?;
        for PutAside { kind, entry } in &meant {
            match kind {
                PutAsideKind::Image => self.images().purge(entry)?,
                PutAsideKind::Container => self.containers()?.purge(entry)?,
                PutAsideKind::LayerRecord | PutAsideKind::LayerData => self.layers().purge(entry)?,
            }
        }
        Ok(meant)
    }
}
