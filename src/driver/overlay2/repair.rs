// SPDX-License-Identifier: MulanPSL-2.0
//! Short names and lower layers: reading them, and rebuilding what was lost and can be derived.
//!
//! Nothing is ever deleted here but a name in `l/` that resolves to nothing.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;

use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::sys::fs::{Dir, FileKind};
use crate::sys::xattr;

use super::Overlay;
use super::layout::{self, DIFF, EMPTY, LINK, LOWER, LinkName, MERGED, WORK};

/// Mark of an opaque directory, as overlays and `archive` write it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Fewer short names than this are not worth a thread.
const WORTH_A_THREAD: usize = 1024;

impl Overlay {
    pub(super) fn exists(&self, id: &LayerId) -> Result<bool> {
        let Some(layer) = self.find_layer(id)? else { return Ok(false) };
        if !has_dir(&layer, DIFF)? {
            return Ok(false);
        }
        self.ensure_link(id, &layer)?;
        self.ensure_own_dirs(&layer)?;
        Ok(true)
    }

    pub(super) fn validate(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        let layer = self.layer(id)?;
        let context = |error: Error| error.context(format!("layer {id}"));
        if !has_dir(&layer, DIFF)? {
            return Err(context(Error::corrupt("its directory diff is missing")));
        }
        self.ensure_link(id, &layer).map_err(context)?;
        self.ensure_own_dirs(&layer).map_err(context)?;
        if let Some(projects) = &self.projects {
            projects.ensure_limit(&layer).map_err(context)?;
        }
        self.ensure_lowers(&layer, parent).map_err(context)
    }

    pub(super) fn repair_lowers(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        let Some(layer) = self.find_layer(id)? else { return Ok(()) };
        self.ensure_lowers(&layer, parent).map_err(|error| error.context(format!("layer {id}")))
    }

    /// The lower layers of a new layer on `parent`: the parent, then what is below the parent.
    pub(super) fn lowers_on(&self, parent: &LayerId) -> Result<Vec<LinkName>> {
        let layer = self.layer(parent).map_err(|error| error.context("parent layer"))?;
        let context = |error: Error| error.context(format!("parent layer {parent}"));
        let mut lowers = vec![self.ensure_link(parent, &layer).map_err(context)?];
        if !hides_all_below(&layer).map_err(context)? {
            lowers.extend(read_lower(&layer).map_err(context)?.unwrap_or_default());
        }
        Ok(lowers)
    }

    /// Whether a layer has anything below its parent depends on the parent's content: an opaque mark at its top hides all.
    pub(super) fn settle(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        let Some(parent) = parent else { return Ok(()) };
        let context = |error: Error| error.context(format!("layer {id}"));
        let layer = self.layer(id)?;
        let lowers = self.lowers_on(parent).map_err(context)?;
        if read_lower(&layer).map_err(context)?.as_ref() == Some(&lowers) {
            return Ok(());
        }
        self.home.replace(&layer, LOWER, &layout::format_lower(&lowers), layout::FILE_MODE).map_err(context)
    }

    /// The lower layers of a layer, each of which is there; `None` for a base layer.
    pub(super) fn resolved_lowers(&self, layer: &Dir) -> Result<Option<Vec<LinkName>>> {
        self.resolved_lowers_on(layer, &[])
    }

    /// The same, and they are these, if it is known what it stands on: a short name may lead to a directory that is no layer,
    /// or to another one.
    pub(super) fn resolved_lowers_on(&self, layer: &Dir, below: &[LayerId]) -> Result<Option<Vec<LinkName>>> {
        let Some(lowers) = read_lower(layer)? else {
            return match below {
                [] => Ok(None),
                _ => Err(Error::corrupt(format!("file lower is missing, and it stands on {}", below.len()))),
            };
        };
        // Fewer are right where the last of them hides what is below it.
        let count_is_right = below.is_empty()
            || lowers.len() == below.len()
            || (lowers.len() < below.len() && self.ends_there(&lowers)?);
        if !count_is_right {
            let (count, known) = (lowers.len(), below.len());
            let what = format!("file lower names {count} layers, where it stands on {known}");
            return Err(Error::corrupt(what));
        }
        let mut relinked = self.home.is_read_only();
        for (at, lower) in lowers.iter().enumerate() {
            let expected = below.get(at);
            let mut found = self.resolve_as(lower, expected)?;
            if found.is_none() && !relinked {
                self.rebuild_links()?;
                relinked = true;
                found = self.resolve(lower)?;
            }
            let found = found.ok_or_else(|| Error::corrupt(format!("lower layer {lower} is missing")))?;
            if let Some(id) = expected.filter(|id| **id != found) {
                return Err(Error::corrupt(format!(
                    "lower layer {lower} leads to {found}, not to layer {id}"
                )));
            }
        }
        // Where each of them is the one that is known, they are all that there is.
        if lowers.len() != below.len() && !self.goes_on_below(&lowers)? {
            return Err(Error::corrupt("file lower does not name the layers below its parent"));
        }
        Ok(Some(lowers))
    }

    /// Whether nothing below the last of these layers can be seen.
    fn ends_there(&self, lowers: &[LinkName]) -> Result<bool> {
        let Some(last) = lowers.last() else { return Ok(false) };
        match self.resolve(last)? {
            Some(id) => hides_all_below(&self.layer(&id)?),
            // It is made again, and looked at, where the names are resolved.
            None => Ok(true),
        }
    }

    /// Whether after the parent come the layers that the parent stands on. A file that was cut off between two names reads
    /// well, and gives a container another content.
    pub(super) fn goes_on_below(&self, lowers: &[LinkName]) -> Result<bool> {
        let Some((first, rest)) = lowers.split_first() else { return Ok(false) };
        let Some(parent) = self.resolve(first)?.map(|id| self.layer(&id)).transpose()? else {
            return Ok(false);
        };
        let below = match read_lower(&parent) {
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
            read => read?.unwrap_or_default(),
        };
        if rest == below || (rest.is_empty() && hides_all_below(&parent)?) {
            return Ok(true);
        }
        // A layer that was made again may have several names.
        let ids =
            |links: &[LinkName]| links.iter().map(|link| self.resolve(link)).collect::<Result<Vec<_>>>();
        Ok(rest.len() == below.len() && ids(rest)? == ids(&below)?)
    }

    /// The layer that a short name leads to, if that layer is there.
    pub(super) fn resolve(&self, link: &LinkName) -> Result<Option<LayerId>> {
        let Some(id) = self.link_owner(link)? else { return Ok(None) };
        Ok(self.is_there(&id)?.then_some(id))
    }

    /// The same where it is known which layer that ought to be: two calls and no copy where all is well.
    fn resolve_as(&self, link: &LinkName, expected: Option<&LayerId>) -> Result<Option<LayerId>> {
        match expected {
            Some(id) if self.links.is_link(link.as_str(), |target| layout::leads_to(target, id)) => {
                Ok(self.is_there(id)?.then(|| id.clone()))
            }
            _ => self.resolve(link),
        }
    }

    fn is_there(&self, id: &LayerId) -> Result<bool> {
        // One call where all is well: its directory is where the name leads to.
        if self.home.dir().is_dir_below(id.as_str(), DIFF) {
            return Ok(true);
        }
        let Some(layer) = self.find_layer(id)? else { return Ok(false) };
        has_dir(&layer, DIFF)
    }

    /// The layers that a layer's file `lower` names, as far as they are there.
    pub(super) fn lowers_of(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let Some(layer) = self.find_layer(id)? else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for lower in read_lower(&layer)?.unwrap_or_default() {
            ids.extend(self.resolve(&lower)?);
        }
        Ok(ids)
    }

    /// The layer that a short name names, there or not.
    pub(super) fn link_owner(&self, link: &LinkName) -> Result<Option<LayerId>> {
        match self.links.read_link(link.as_str()) {
            Ok(target) => Ok(layout::layer_of_target(&target)),
            // Absent, or no symbolic link.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Os(libc::EINVAL)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same for many, in their order; half of them in another thread where that pays.
    fn link_owners(&self, links: &[LinkName]) -> Result<Vec<Option<LayerId>>> {
        let ask =
            |links: &[LinkName]| links.iter().map(|link| self.link_owner(link)).collect::<Result<Vec<_>>>();
        if links.len() < WORTH_A_THREAD {
            return ask(links);
        }
        let (mine, others) = links.split_at(links.len() / 2);
        std::thread::scope(|scope| {
            let Ok(thread) = std::thread::Builder::new().spawn_scoped(scope, || ask(others)) else {
                return ask(links);
            };
            let mut owners = ask(mine)?;
            let panicked = |_| Err(Error::corrupt("read short names: a thread panicked"));
            owners.extend(thread.join().unwrap_or_else(panicked)?);
            Ok(owners)
        })
    }

    /// Makes sure that the layer has a short name and that it leads to the layer.
    pub(super) fn ensure_link(&self, id: &LayerId, layer: &Dir) -> Result<LinkName> {
        let Some(link) = read_link_name(layer)? else {
            // Children know the layer by its old name, so look for that before making a new one.
            let link = match self.link_to(id)? {
                Some(link) => link,
                None if self.home.is_read_only() => return Err(Error::corrupt("it has no short name")),
                None => self.new_link(id)?,
            };
            if !self.home.is_read_only() {
                log::warn!("layer {id}: file link was lost, its name {link} is written again");
                self.home.flush(&self.links)?;
                self.home.replace(layer, LINK, link.as_str(), layout::FILE_MODE)?;
            }
            return Ok(link);
        };
        if self.link_owner(&link)?.as_ref() == Some(id) || self.home.is_read_only() {
            return Ok(link);
        }
        if let Some(other) = self.resolve(&link)? {
            return Err(Error::corrupt(format!("its short name {link} leads to layer {other}")));
        }
        log::warn!("layer {id}: lost link {link} is made again");
        self.links.remove_file(link.as_str())?;
        self.make_link(id, &link)?;
        self.home.flush(&self.links)?;
        Ok(link)
    }

    /// Makes a short name again. Another thread may just have done so: several layers can have lost the same base.
    pub(super) fn make_link(&self, id: &LayerId, link: &LinkName) -> Result<()> {
        match self.links.symlink(&layout::link_target(id), link.as_str()) {
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists
                    && self.link_owner(link)?.as_ref() == Some(id) =>
            {
                Ok(())
            }
            made => made,
        }
    }

    /// The short name of a layer by its own file, or else by looking through all names.
    pub(super) fn find_link(&self, id: &LayerId) -> Result<Option<LinkName>> {
        let Some(layer) = self.find_layer(id)? else { return Ok(None) };
        match read_link_name(&layer)? {
            Some(link) if self.link_owner(&link)?.as_ref() == Some(id) => Ok(Some(link)),
            _ => self.link_to(id),
        }
    }

    pub(super) fn link_to(&self, id: &LayerId) -> Result<Option<LinkName>> {
        let mut names = Vec::new();
        for link in self.all_links()? {
            if self.link_owner(&link)?.as_ref() == Some(id) {
                names.push(link);
            }
        }
        // The reference leaves several behind when a layer is made again; each leads to the layer.
        Ok(names.into_iter().min_by(|a, b| a.as_str().cmp(b.as_str())))
    }

    pub(super) fn all_links(&self) -> Result<Vec<LinkName>> {
        let entries = self.links.entries()?;
        Ok(entries.iter().filter_map(|entry| LinkName::parse(entry.name.to_str()?)).collect())
    }

    /// Makes every lost name in `l/` again, from the layers' own `link` files.
    fn rebuild_links(&self) -> Result<()> {
        for id in self.layers()? {
            let Some(layer) = self.find_layer(&id)? else { continue };
            let Some(link) = read_link_name(&layer)? else { continue };
            if self.links.stat(link.as_str())?.is_none() {
                log::warn!("layer {id}: lost link {link} is made again");
                self.make_link(&id, &link)?;
            }
        }
        self.home.flush(&self.links)
    }

    pub(super) fn ensure_own_dirs(&self, layer: &Dir) -> Result<()> {
        [WORK, MERGED].into_iter().try_for_each(|name| self.ensure_own_dir(layer, name))
    }

    pub(super) fn ensure_own_dir(&self, layer: &Dir, name: &str) -> Result<()> {
        if layer.stat(name)?.is_none() && !self.home.is_read_only() {
            // Another thread may have made it meanwhile.
            let made = layer.ensure_dir(name, layout::PRIVATE_MODE)?;
            if let Some(projects) = &self.projects {
                projects.adopt(layer, &made)?;
            }
            self.shift_owner(&made)?;
            self.home.flush(layer)?;
        }
        Ok(())
    }

    pub(super) fn ensure_empty(&self, layer: &Dir) -> Result<()> {
        if layer.stat(EMPTY)?.is_none() && !self.home.is_read_only() {
            layer.ensure_dir(EMPTY, layout::PRIVATE_MODE)?;
            self.home.flush(layer)?;
        }
        Ok(())
    }

    /// Makes sure that the file `lower` says what the record's parent says, and that all lower layers are there.
    fn ensure_lowers(&self, layer: &Dir, parent: Option<&LayerId>) -> Result<()> {
        let stored = match read_lower(layer) {
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
            stored => stored,
        };
        let Some(parent) = parent else {
            return match stored {
                Ok(None) => self.ensure_empty(layer),
                Ok(Some(_)) => Err(Error::corrupt("it has lower layers, but its record names no parent")),
                Err(error) => Err(error),
            };
        };
        if let Ok(Some(lowers)) = &stored {
            if self.stand_on(lowers, parent)? {
                return Ok(());
            }
            if !self.home.is_read_only() {
                self.rebuild_links()?;
                if self.stand_on(lowers, parent)? {
                    return Ok(());
                }
            }
        }
        let lowers = self.lowers_on(parent).map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.with_kind(ErrorKind::Corrupt),
            _ => error,
        })?;
        if !self.stand_on(&lowers, parent)? {
            return Err(Error::corrupt(format!("a layer below its parent {parent} is missing")));
        }
        if self.is_others(layer) {
            return Err(Error::corrupt(format!(
                "its file lower does not lead to its parent {parent} and the layers below"
            )));
        }
        if !self.home.is_read_only() {
            log::warn!("{}: file lower is written again from parent {parent}", layer.path().display());
            self.home.replace(layer, LOWER, &layout::format_lower(&lowers), layout::FILE_MODE)?;
        }
        Ok(())
    }

    /// Whether all of `lowers` are there, the first is `parent`, and the others are what that stands on; another layer in
    /// the first place is a contradiction.
    fn stand_on(&self, lowers: &[LinkName], parent: &LayerId) -> Result<bool> {
        for (index, lower) in lowers.iter().enumerate() {
            match self.resolve(lower)? {
                None => return Ok(false),
                Some(first) if index == 0 && first != *parent => {
                    return Err(Error::corrupt(format!(
                        "it stands on layer {first} by its file lower, but on {parent} by its record"
                    )));
                }
                Some(_) => {}
            }
        }
        self.goes_on_below(lowers)
    }

    /// Removes names in `l/` whose layer is gone, and keeps those that some layer still has below it: a new layer of
    /// that id gets the name again, which heals its children.
    pub(super) fn sweep_links(&self) -> Result<()> {
        let mut dangling = Vec::new();
        let there: HashSet<_> = self.home.dir().entries()?.into_iter().map(|entry| entry.name).collect();
        let links = self.all_links()?;
        let owners = self.link_owners(&links)?;
        for (link, id) in links.into_iter().zip(owners) {
            if let Some(id) = id
                && !there.contains(OsStr::new(id.as_str()))
            {
                dangling.push((link, id));
            }
        }
        if dangling.is_empty() {
            return Ok(());
        }
        let mut needed = HashSet::new();
        for id in self.layers()? {
            if let Some(layer) = self.find_layer(&id)? {
                needed.extend(read_lower(&layer).ok().flatten().unwrap_or_default());
            }
        }
        for (link, id) in dangling {
            if needed.contains(&link) {
                self.kept_links.lock().insert(id, link);
            } else {
                self.sweep_link(&link);
            }
        }
        Ok(())
    }
}

pub(super) fn has_dir(dir: &Dir, name: &str) -> Result<bool> {
    Ok(dir.stat(name)?.is_some_and(|stat| stat.kind == FileKind::Dir))
}

/// Content of a layer's `link` file; `None` when it is missing or no name.
pub(super) fn read_link_name(layer: &Dir) -> Result<Option<LinkName>> {
    match layer.read(LINK, layout::MAX_FILE) {
        Ok(content) => Ok(std::str::from_utf8(&content).ok().and_then(LinkName::parse)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::LimitExceeded) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a layer's own content is opaque at its root. The kernel ignores the mark there, so that the layers below have
/// to be left out of the mount.
pub(super) fn hides_all_below(layer: &Dir) -> Result<bool> {
    let diff = layer.open_dir(DIFF)?;
    match xattr::get(diff.as_fd(), OPAQUE.as_ref()) {
        Ok(value) => Ok(value.as_deref() == Some(b"y")),
        // No such attributes here, or not for us: then there is no mark either.
        Err(error) if matches!(error.kind(), ErrorKind::Os(libc::EOPNOTSUPP | libc::EPERM)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Content of a layer's `lower` file; `None` when it has none, `Corrupt` when it says anything but short names.
pub(super) fn read_lower(layer: &Dir) -> Result<Option<Vec<LinkName>>> {
    let context = |error: Error| error.context("file lower");
    match layer.read(LOWER, layout::MAX_FILE) {
        Ok(content) => layout::parse_lower(&content).map(Some).map_err(context),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::LimitExceeded => {
            Err(context(error.with_kind(ErrorKind::Corrupt)))
        }
        Err(error) => Err(context(error)),
    }
}
