// SPDX-License-Identifier: MulanPSL-2.0
//! Comparing the content of image layers with what they were made from, at start.
//!
//! ```text
//! <run root>/<sha256 of the run root's path>.json    0600  ids of layers that were found good, one a line
//! ```
//!
//! The list is only ever appended to and lives in the run root, so each layer is read once after a boot. Its name, place
//! and format are the reference's.
//!
//! A layer whose content differs is put aside with all that stands on it: containers, images, layers, from the top down, so
//! that it can be made again. If any of that is mounted, nothing is moved. What could not be found out condemns nothing,
//! and is tried again at the next start.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::driver::Verdict;
use crate::error::{During, Error, ErrorKind, Result};
use crate::id::{LayerId, is_canonical};
use crate::layer::Layer;

use super::Storage;

/// Most bytes of the list that are read: a million layers.
const LIST_LIMIT: u64 = 64 << 20;

/// The list of layers that were found good.
#[derive(Debug)]
struct Checked {
    path: PathBuf,
    ids: HashSet<String>,
    /// Open for appending, once there is something to append.
    file: Option<File>,
    /// The file ends in the middle of a line.
    torn: bool,
}

impl Checked {
    fn read(run_root: &Path) -> Result<Checked> {
        let name = format!("{}.json", Digest::of(run_root.as_os_str().as_bytes()).hex());
        let path = run_root.join(name);
        let mut text = Vec::new();
        let opened =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
        match opened.and_then(|file| file.take(LIST_LIMIT).read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => {
                result.during(|| format!("read {}", path.display()))?;
            }
        }
        let torn = text.last().is_some_and(|last| *last != b'\n');
        let text = String::from_utf8_lossy(&text);
        // Without the rest of a line that was never finished.
        let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
        let ids = whole.lines().filter(|line| is_canonical(line)).map(str::to_owned).collect();
        Ok(Checked { path, ids, file: None, torn })
    }

    fn add(&mut self, id: &LayerId) -> Result<()> {
        let mut line = format!("{id}\n");
        if std::mem::take(&mut self.torn) {
            line.insert(0, '\n');
        }
        let append = || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&self.path)
        };
        let mut file = match self.file.take() {
            Some(file) => file,
            None => append().during(|| format!("open {}", self.path.display()))?,
        };
        file.write_all(line.as_bytes()).during(|| format!("append to {}", self.path.display()))?;
        self.file = Some(file);
        self.ids.insert(id.to_string());
        Ok(())
    }
}

impl Storage {
    /// Checks every image layer that was not checked since the last boot. Also those that no image uses: a start that was
    /// interrupted while it put a tree aside has left such, and they would be taken for good when the image is made again.
    pub(super) fn check_integrity(&self) -> Result<()> {
        let mut checked = match Checked::read(&self.run_root) {
            Ok(checked) => checked,
            Err(error) => {
                self.report("integrity check".to_owned(), error.report(), false);
                return Ok(());
            }
        };
        let mut differing: Vec<(LayerId, String)> = Vec::new();
        for layer in self.layers().list() {
            if layer.uncompressed_digest.is_none() || checked.ids.contains(layer.id.as_str()) {
                continue;
            }
            let subject = || format!("layer {}", layer.id);
            match self.layers().check(layer.id.as_str()) {
                Ok(Verdict::Valid) => {
                    if let Err(error) = checked.add(&layer.id) {
                        log::warn!("note that {} was checked: {}", subject(), error.report());
                    }
                }
                Ok(Verdict::Differs(place)) => differing.push((layer.id, place)),
                Err(error) => {
                    self.report(subject(), format!("it could not be checked: {}", error.report()), false);
                }
            }
        }
        for (layer, place) in differing {
            let reason = format!("its content differs from its archive: {place}");
            match self.put_tree_aside(&layer, &reason) {
                Ok(()) => self.report(format!("layer {layer}"), reason, true),
                Err(error) => {
                    let reason = format!("{reason}; it was left where it is: {}", error.report());
                    self.report(format!("layer {layer}"), reason, false);
                }
            }
        }
        Ok(())
    }

    /// Puts a layer aside, and before it everything that stands on it. Something of that is mounted: `InUse`; it is shared
    /// with other hosts: `Unsupported`; nothing is moved then.
    fn put_tree_aside(&self, bottom: &LayerId, reason: &str) -> Result<()> {
        let tree = self.tree(bottom);
        for layer in &tree {
            // Mounts outlive a process; that a layer is mounted may have been noted no more.
            if layer.mount_count > 0 || self.layers().driver().is_mounted(&layer.id)? {
                return Err(Error::new(ErrorKind::InUse, format!("layer {} is mounted", layer.id)));
            }
        }
        tree.iter().try_for_each(|layer| self.layers().check_unshared(&layer.id))?;
        let ids: HashSet<&str> = tree.iter().map(|layer| layer.id.as_str()).collect();
        let on_bottom = |what: &str| format!("{what} {bottom} is not as it was made: {reason}");
        let uses = |layer: Option<&str>| layer.is_some_and(|layer| ids.contains(layer));
        let mut images = HashSet::new();
        for image in self.images().list()?.iter().filter(|image| uses(image.layer.as_deref())) {
            images.extend(image.id.clone());
        }
        for record in self.containers()?.list()? {
            let of_image = record.image.as_ref().is_some_and(|image| images.contains(image));
            if of_image || uses(record.layer.as_deref()) {
                let id = record.id.as_deref().unwrap_or_default();
                let reason = on_bottom("it stands on a layer that was put aside: layer");
                self.containers()?.quarantine(id, &reason)?;
                self.report(format!("container {id}"), reason, true);
            }
        }
        for id in images {
            let reason = on_bottom("one of its layers was put aside: layer");
            {
                let _ties = self.ties.lock();
                self.images().quarantine(&id, &reason)?;
            }
            self.report(format!("image {id}"), reason, true);
        }
        for layer in tree.iter().rev() {
            let reason = match layer.id == *bottom {
                true => reason.to_owned(),
                false => on_bottom("it stands on a layer that was put aside: layer"),
            };
            self.layers().quarantine(layer.id.as_str(), &reason)?;
            if layer.id != *bottom {
                self.report(format!("layer {}", layer.id), reason, true);
            }
        }
        Ok(())
    }

    /// A layer and all that stand on it, each after the one that it stands on; empty when it is gone already.
    fn tree(&self, bottom: &LayerId) -> Vec<Layer> {
        let mut children: HashMap<LayerId, Vec<Layer>> = HashMap::new();
        let mut tree = Vec::new();
        for layer in self.layers().list() {
            if layer.id == *bottom {
                tree.push(layer);
            } else if let Some(parent) = layer.parent.clone() {
                children.entry(parent).or_default().push(layer);
            }
        }
        let mut at = 0;
        while let Some(layer) = tree.get(at) {
            // Taken out, so that layers that stand on each other in a circle end here.
            let above = children.remove(&layer.id).unwrap_or_default();
            tree.extend(above);
            at += 1;
        }
        tree
    }
}
