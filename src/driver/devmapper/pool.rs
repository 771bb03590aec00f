// SPDX-License-Identifier: MulanPSL-2.0
//! The thin pool: what it says of itself, and the messages that make and delete thin devices in it.

use std::sync::Arc;

use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::dm::{self, Dm, Removal, SECTOR, Target};
use crate::units::Bytes;

use super::records::{MAX_ID, Record};

/// Size of a block of the pool's metadata.
const METADATA_BLOCK: u64 = 4096;
/// The kernel's interface that knows deferred removal.
const LEAST_VERSION: (u32, u32) = (4, 27);

/// The pool that thin devices live in. It belongs to whoever made it: it is never made, changed or removed here.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) dm: Arc<dyn Dm>,
    pub(super) name: String,
    /// Its number, `major:minor`.
    device: String,
    /// Size of a block of its data.
    pub(super) block: Bytes,
    /// A device without a table in use, to try tables on.
    probe: String,
}

/// What a pool says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolStatus {
    /// Number of the last transaction.
    pub(super) transaction: u64,
    pub(super) metadata: Blocks,
    pub(super) data: Blocks,
    pub(super) state: PoolState,
}

/// Whether a pool takes changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolState {
    /// It does.
    Writable,
    /// Its metadata are full, or it was made so: it can only be read.
    ReadOnly,
    /// A change of its metadata failed: it can only be read until they were checked.
    NeedsCheck,
}

/// How many blocks there are, and how many are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) used: u64,
    pub(super) total: u64,
}

impl Blocks {
    fn parse(text: &str) -> Option<Blocks> {
        let (used, total) = text.split_once('/')?;
        Some(Blocks { used: used.parse().ok()?, total: total.parse().ok()? })
    }

    pub(super) fn free(self) -> u64 {
        self.total.saturating_sub(self.used)
    }
}

impl PoolStatus {
    /// `T metaUsed/metaTotal dataUsed/dataTotal heldRoot rw|ro|out_of_data_space … [needs_check|-] …`, or one word when the
    /// pool has failed.
    fn parse(text: &str) -> Option<PoolStatus> {
        let mut words = text.split_ascii_whitespace();
        let transaction = words.next()?.parse().ok()?;
        let metadata = Blocks::parse(words.next()?)?;
        let data = Blocks::parse(words.next()?)?;
        let rest: Vec<&str> = words.collect();
        let state = if rest.contains(&"needs_check") {
            PoolState::NeedsCheck
        } else if rest.contains(&"ro") {
            PoolState::ReadOnly
        } else {
            PoolState::Writable
        };
        Some(PoolStatus { transaction, metadata, data, state })
    }

    /// Refuses when nothing can be made or deleted in the pool: the kernel answers each message with EOPNOTSUPP then.
    pub(super) fn check_writable(&self) -> Result<()> {
        let (kind, why) = match self.state {
            PoolState::Writable => return Ok(()),
            PoolState::NeedsCheck => {
                (ErrorKind::Os(libc::EROFS), "its metadata have to be checked (needs_check)")
            }
            PoolState::ReadOnly if self.metadata.free() == 0 => {
                (ErrorKind::Os(libc::ENOSPC), "it has no free metadata blocks left: enlarge its metadata")
            }
            PoolState::ReadOnly => (ErrorKind::Os(libc::EROFS), "it is set to be read only"),
        };
        let text = format!("devmapper: Thin Pool can only be read, no layer can be made or removed: {why}");
        Err(Error::new(kind, text.clone()).for_people(text))
    }

    /// Refuses when less than `percent` of the pool is free.
    pub(super) fn check_free(&self, percent: u8) -> Result<()> {
        if percent == 0 {
            return Ok(());
        }
        for (what, blocks) in [("data", self.data), ("metadata", self.metadata)] {
            let least = (blocks.total / 100 * u64::from(percent))
                .saturating_add(blocks.total % 100 * u64::from(percent) / 100)
                .max(1);
            if blocks.free() < least {
                let free = blocks.free();
                let text = format!(
                    "devmapper: Thin Pool has {free} free {what} blocks which is less than minimum required {least} \
                     free {what} blocks. Create more free space in thin pool or use dm.min_free_space option to \
                     change behavior"
                );
                return Err(Error::new(ErrorKind::Os(libc::ENOSPC), text.clone()).for_people(text));
            }
        }
        Ok(())
    }
}

impl Pool {
    /// Looks for the pool; `probe` is the name of a device that tables can be tried on.
    pub(super) fn open(dm: Arc<dyn Dm>, name: &str, probe: String) -> Result<Pool> {
        let (major, minor, _) = dm.version()?;
        if (major, minor) < LEAST_VERSION {
            let message = format!("device-mapper {major}.{minor} of this kernel knows no deferred removal");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let doing = || format!("thin pool {name}");
        let Some(info) = dm.info(name).during(doing)? else {
            let message = "there is no such device: make it before the daemon starts";
            return Err(Error::new(ErrorKind::NotReady, message).context(doing()));
        };
        let target = only(dm.table(name).during(doing)?).during(doing)?;
        if target.kind != "thin-pool" {
            let message = format!("it is no thin pool, but of kind {:?}", target.kind);
            return Err(Error::invalid(message).context(doing()));
        }
        let mut pool = Pool { dm, name: name.to_owned(), device: info.device, block: Bytes(0), probe };
        let status = pool.status()?;
        pool.block = Bytes((target.sectors * SECTOR).checked_div(status.data.total).unwrap_or(0));
        Ok(pool)
    }

    pub(super) fn status(&self) -> Result<PoolStatus> {
        let doing = || format!("ask thin pool {} how it is", self.name);
        let target = only(self.dm.status(&self.name).during(doing)?).during(doing)?;
        PoolStatus::parse(&target.text).ok_or_else(|| {
            Error::new(ErrorKind::Os(libc::EIO), format!("it says {:?}", target.text)).context(doing())
        })
    }

    fn send(&self, text: &str) -> Result<()> {
        let sent = match self.dm.message(&self.name, text) {
            // It says why.
            Err(error) if error.errno() == libc::EOPNOTSUPP => {
                self.status().and_then(|status| status.check_writable()).and(Err(error))
            }
            sent => sent,
        };
        sent.during(|| format!("thin pool {}", self.name))
    }

    /// An empty device.
    pub(super) fn create_thin(&self, id: u32) -> Result<()> {
        self.send(&format!("create_thin {id}"))
    }

    /// A snapshot of another.
    pub(super) fn create_snap(&self, id: u32, origin: u32) -> Result<()> {
        self.send(&format!("create_snap {id} {origin}"))
    }

    /// Deletes a device; `false`: there was none. In use: `InUse`.
    pub(super) fn delete(&self, id: u32) -> Result<bool> {
        match self.send(&format!("delete {id}")) {
            Ok(()) => Ok(true),
            Err(error) if dm::is_unknown_id(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn set_transaction(&self, old: u64, new: u64) -> Result<()> {
        self.send(&format!("set_transaction_id {old} {new}"))
    }

    /// The table of a thin device.
    pub(super) fn table(&self, record: &Record) -> Target {
        Target {
            start: 0,
            sectors: record.size.0 / SECTOR,
            kind: "thin".to_owned(),
            text: format!("{} {}", self.device, record.device_id),
        }
    }

    /// Whether the pool has a device of that id: the kernel has no question for it, but refuses a table of one that is
    /// not there. Call it under the lock of the transactions, for there is one device to try tables on.
    pub(super) fn has(&self, id: u32) -> Result<bool> {
        let doing = || format!("look for device {id} in thin pool {}", self.name);
        if id > MAX_ID {
            return Ok(false);
        }
        if self.dm.info(&self.probe).during(doing)?.is_none() {
            self.dm.create(&self.probe).during(doing)?;
        }
        let text = format!("{} {id}", self.device);
        let target = Target { start: 0, sectors: METADATA_BLOCK / SECTOR, kind: "thin".into(), text };
        match self.dm.load(&self.probe, &target) {
            Ok(()) => {
                // Loaded, it would keep the device from being deleted.
                self.dm.clear(&self.probe).during(doing)?;
                Ok(true)
            }
            Err(error) if dm::is_unknown_id(&error) => Ok(false),
            Err(error) => Err(error).during(doing),
        }
    }

    /// Removes the device that tables were tried on.
    pub(super) fn close_probe(&self) {
        if let Err(error) = self.dm.remove(&self.probe, Removal::Now)
            && !dm::is_absent(&error)
        {
            log::warn!("remove device {}: {}", self.probe, error.report());
        }
    }

    /// Sizes of the two parts, used and in all, in bytes.
    pub(super) fn sizes(&self, status: &PoolStatus) -> ((u64, u64), (u64, u64)) {
        let data = |blocks: u64| blocks.saturating_mul(self.block.0);
        let metadata = |blocks: u64| blocks.saturating_mul(METADATA_BLOCK);
        (
            (data(status.data.used), data(status.data.total)),
            (metadata(status.metadata.used), metadata(status.metadata.total)),
        )
    }
}

fn only(targets: Vec<Target>) -> Result<Target> {
    let mut targets = targets.into_iter();
    match (targets.next(), targets.next()) {
        (Some(target), None) => Ok(target),
        (None, _) => Err(Error::new(ErrorKind::NotReady, "it has no table")),
        (Some(_), Some(_)) => Err(Error::invalid("it is made of several parts")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::dm::fake::{Fake, POOL};

    #[test]
    fn what_a_pool_says_is_understood() {
        let text = "12 161/4096 26/8192 - rw no_discard_passdown queue_if_no_space - 1024";
        let status = PoolStatus::parse(text).unwrap();
        assert_eq!((status.transaction, status.metadata.free(), status.data.used), (12, 3935, 26));
        assert_eq!(status.state, PoolState::Writable);
        for bad in ["", "Fail", "Error", "1 2 3", "1 2/3", "x 1/2 3/4"] {
            assert_eq!(PoolStatus::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_full_pool_takes_no_new_layer() {
        let status = |data, metadata| PoolStatus {
            transaction: 0,
            data: Blocks { used: data, total: 1000 },
            metadata: Blocks { used: metadata, total: 4096 },
            state: PoolState::Writable,
        };
        status(900, 0).check_free(10).unwrap();
        status(1000, 4096).check_free(0).unwrap();
        let error = status(901, 0).check_free(10).unwrap_err();
        let text = "devmapper: Thin Pool has 99 free data blocks which is less than minimum required 100 free data \
                    blocks. Create more free space in thin pool or use dm.min_free_space option to change behavior";
        assert_eq!((error.shown(), error.is_no_space()), (Some(text), true));
        let error = status(0, 4096).check_free(1).unwrap_err();
        assert!(
            error.report().contains("has 0 free metadata blocks which is less than minimum required 40 ")
        );
    }

    #[test]
    fn a_pool_that_can_only_be_read_says_why() {
        for (text, errno, why) in [
            ("7 9/9 3/8 - rw discard_passdown queue_if_no_space - 1024", 0, ""),
            ("7 9/9 8/8 - out_of_data_space discard_passdown error_if_no_space - 1024", 0, ""),
            (
                "7 9/9 3/8 - ro discard_passdown queue_if_no_space - 1024",
                libc::ENOSPC,
                "enlarge its metadata",
            ),
            ("7 8/9 3/8 - ro discard_passdown queue_if_no_space - 1024", libc::EROFS, "set to be read only"),
            (
                "7 9/9 3/8 - ro discard_passdown queue_if_no_space needs_check 1024",
                libc::EROFS,
                "(needs_check)",
            ),
        ] {
            let checked = PoolStatus::parse(text).unwrap().check_writable();
            assert_eq!(checked.as_ref().map_or_else(Error::errno, |()| 0), errno, "{text}");
            assert!(checked.map_or_else(|error| error.shown().unwrap().contains(why), |()| true), "{text}");
        }
    }

    #[test]
    fn only_a_thin_pool_is_taken_for_one() {
        let fake = Arc::new(Fake::new());
        let open = |name: &str| Pool::open(fake.clone(), name, "probe".into());
        assert_eq!(open(POOL).unwrap().block, Bytes(65_536));
        assert_eq!(open("absent").unwrap_err().kind(), ErrorKind::NotReady);
        fake.create("linear").unwrap();
        assert_eq!(open("linear").unwrap_err().kind(), ErrorKind::NotReady);
        fake.state.lock().devices.get_mut(POOL).unwrap().table.as_mut().unwrap().kind = "linear".into();
        assert_eq!(open(POOL).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn a_device_is_looked_for_without_making_one() {
        let fake = Arc::new(Fake::new());
        let pool = Pool::open(fake.clone(), POOL, "probe".into()).unwrap();
        pool.create_thin(3).unwrap();
        assert!(pool.has(3).unwrap() && !pool.has(4).unwrap());
        assert!(pool.delete(3).unwrap(), "looking does not keep it busy");
        assert!(!pool.has(3).unwrap() && !pool.delete(3).unwrap());
        pool.close_probe();
        assert_eq!(fake.names().unwrap(), [POOL]);
        pool.close_probe();
    }
}
