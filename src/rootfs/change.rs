// SPDX-License-Identifier: MulanPSL-2.0
//! Changing records.

use std::sync::Arc;

use crate::error::{During, Error, Result};
use crate::id::ContainerId;
use crate::record::rootfs::RootfsRecord;

use super::RootfsStore;
use super::claims::Key;
use super::create::{check_belongings, check_texts, stage_record};
use super::disk::{MAKING, misfit, read_record};

pub(super) fn set_metadata(store: &RootfsStore, rootfs: &str, metadata: &str) -> Result<()> {
    store.writable()?;
    let unknown = || store.lookup(rootfs).err().unwrap_or_else(|| Error::not_found("no such container"));
    let (found, _claim) = store.claim(rootfs)?.ok_or_else(unknown)?;
    let record = RootfsRecord { metadata: Some(metadata.to_owned()), ..RootfsRecord::clone(&found.record) };
    replace(store, &found.id, &found.record, record)
}

pub(super) fn save(store: &RootfsStore, record: &RootfsRecord) -> Result<()> {
    store.writable()?;
    let id = ContainerId::new(record.id.as_deref().unwrap_or_default())?;
    let doing = || format!("save container {id}");
    if let Some(reason) = misfit(&id, record) {
        return Err(Error::invalid(reason).context(doing()));
    }
    check_texts(record).during(doing)?;
    loop {
        let Some((old, claim)) = store.claim_by_id(&id, record)? else {
            match stage_record(store, id.clone(), record.clone(), MAKING, |_| Ok(())) {
                // Made by another thread in this moment.
                Err(error) if store.index.read().get(id.as_str()).is_some() => {
                    log::debug!("{}", error.report());
                    continue;
                }
                staged => return staged.during(doing)?.publish().map(drop),
            }
        };
        check_belongings(&store.index.read(), &id, record).during(doing)?;
        let saved = replace(store, &id, &old, record.clone());
        drop(claim);
        return saved;
    }
}

impl RootfsStore {
    /// The record of this id, and the sole right to put `new` in its place; unknown: `None`.
    fn claim_by_id(
        &self,
        id: &ContainerId,
        new: &RootfsRecord,
    ) -> Result<Option<(Arc<RootfsRecord>, super::claims::Claim<'_>)>> {
        loop {
            let get = || self.index.read().get(id.as_str()).map(|found| Arc::clone(&found.record));
            let Some(old) = get() else { return Ok(None) };
            let layers = old.layer.iter().chain(&new.layer).cloned().map(Key::Layer);
            let names = old.names.iter().chain(&new.names).cloned().map(Key::Name);
            let claim = self
                .claims
                .take(std::iter::once(Key::Id(id.to_string())).chain(layers).chain(names).collect())?;
            if get().is_some_and(|now| Arc::ptr_eq(&now, &old)) {
                return Ok(Some((old, claim)));
            }
        }
    }
}

/// Puts a record in the place of another, on disk, then in memory. If that fails the old one is set back; if that
/// fails, too, memory follows what the disk shows.
fn replace(store: &RootfsStore, id: &ContainerId, old: &RootfsRecord, new: RootfsRecord) -> Result<()> {
    check_texts(&new).during(|| format!("save container {id}"))?;
    let shown = || store.root.open_dir(id.as_str()).and_then(|dir| read_record(&dir));
    let written = store.write(id, &new);
    if written.is_err()
        && shown().is_ok_and(|record| record == new)
        && let Err(also) = store.write(id, old)
    {
        log::error!("container {id}: set its record back: {}", also.report());
    }
    if written.is_ok() || shown().is_ok_and(|record| record == new) {
        store.index.write().put(id.clone(), Arc::new(new));
    }
    written.during(|| format!("save container {id}"))
}
