// SPDX-License-Identifier: MulanPSL-2.0
//! Making and deleting thin devices so that at every instant the store and the pool can be brought together again.
//!
//! ```text
//!                     file transaction-metadata   pool                     file of the device     pool's number
//! begin               {T+1, name, id}                                                            T
//! make                                            create_snap id origin    {…, T+1}
//! or delete                                       delete id                removed
//! close                                                                                           T+1
//! ```
//!
//! Each file and its directory are on the disk before the next step, and the kernel makes each message durable. The file
//! stays; its number says what a start does:
//!
//! | number | what happened | what a start does |
//! |---|---|---|
//! | T or less | all was done | nothing |
//! | T+1 | it was interrupted | takes a creation back, completes a deletion: of exactly that device, and only if no other device of the store has its id |
//! | more | the pool is another, or was restored from an older state | nothing; the file is put aside |
//!
//! A pool whose metadata are full, or damaged, takes no messages; what a commit of it could not write is as if it had never
//! been asked for, though the message that asked for it succeeded. The number then does not move, which is how it is found
//! out, and what could not be ended is taken up before the next transaction, or at a start once the pool takes messages.

use std::time::Duration;

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::step;
use crate::sys::dm::{self, Gone};
use crate::units::Bytes;

use super::names::{BASE, TRANSACTION};
use super::pool::PoolStatus;
use super::records::{MAX_ID, Record, Transaction};
use super::store::{Store, Work, is_damaged};

/// How long a device that was removed is waited for.
const CLOSE_TRIES: u32 = 20;
const CLOSE_PAUSE: Duration = Duration::from_millis(10);

/// A device that is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewDevice<'a> {
    pub(super) hash: &'a str,
    pub(super) size: Bytes,
    /// Id in the pool of the device that it is to be a snapshot of.
    pub(super) origin: Option<u32>,
    /// Name of the origin's device, if it is active: what is written to it waits while the snapshot is taken.
    pub(super) active: Option<&'a str>,
}

impl Work {
    /// The next id that nobody in the store has.
    fn next_id(&mut self) -> Result<u32> {
        let mut id = self.set.last_id;
        for _ in 0..=MAX_ID {
            id = (id + 1) & MAX_ID;
            if self.used.insert(id) {
                self.set.last_id = id;
                return Ok(id);
            }
        }
        Err(Error::new(ErrorKind::LimitExceeded, "all 16,777,216 ids of the thin pool are taken"))
    }
}

impl Store {
    /// Makes a device and its file. After an error neither is there.
    pub(super) fn make_device(&self, new: NewDevice<'_>) -> Result<Record> {
        let mut work = self.work.lock();
        let status = self.begin(&mut work)?;
        status.check_free(self.options.min_free)?;
        let (from, to) = (status.transaction, status.transaction + 1);
        loop {
            let id = self.free_id(&mut work)?;
            let transaction = Transaction { number: to, hash: new.hash.to_owned(), device_id: id };
            self.save_transaction(&transaction).inspect_err(|_| {
                work.used.remove(&id);
            })?;
            let made = step("create in pool").and_then(|()| match new.origin {
                Some(origin) => self.at_rest(new.active, || self.pool.create_snap(id, origin)),
                None => self.pool.create_thin(id),
            });
            match made {
                Ok(()) => {}
                // Somebody else's, between the look and the creation: the id stays taken.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    // A start would delete what the file names.
                    self.give_up_transaction();
                    continue;
                }
                Err(error) => {
                    work.used.remove(&id);
                    self.give_up_transaction();
                    return Err(error);
                }
            }
            let record = Record {
                hash: new.hash.to_owned(),
                device_id: id,
                size: new.size,
                transaction: to,
                initialized: false,
                deleted: false,
            };
            let closed = self
                .save(&record)
                .and_then(|()| step("set transaction"))
                .and_then(|()| self.pool.set_transaction(from, to));
            return match closed {
                Ok(()) => Ok(record),
                Err(error) => {
                    self.take_back(&mut work, &record);
                    Err(error)
                }
            };
        }
    }

    /// Does something while nothing is written to an active device; one that is gone by now needs no rest.
    fn at_rest(&self, active: Option<&str>, action: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(name) = active else { return action() };
        match self.pool.dm.suspend(name) {
            Err(error) if dm::is_absent(&error) => return action(),
            suspended => suspended?,
        }
        let done = action();
        match self.pool.dm.resume(name) {
            Err(error) if !dm::is_absent(&error) => log::error!("resume {name}: {}", error.report()),
            _ => {}
        }
        done
    }

    /// What the pool says when it takes changes, and nothing is unfinished in it.
    fn begin(&self, work: &mut Work) -> Result<PoolStatus> {
        let status = self.pool.status()?;
        status.check_writable()?;
        if !work.unfinished {
            return Ok(status);
        }
        self.recover(work).during(|| "take up the transaction that was not ended")?;
        self.pool.status()
    }

    /// An id that neither the store nor the pool has. Looked for in the pool before the transaction is written, so that a
    /// start that takes it back cannot meet a device of somebody else.
    fn free_id(&self, work: &mut Work) -> Result<u32> {
        loop {
            let id = work.next_id()?;
            match self.pool.has(id) {
                Ok(false) => return Ok(id),
                Ok(true) => log::warn!("thin pool {} has a device {id} that no file knows", self.pool.name),
                Err(error) => {
                    work.used.remove(&id);
                    return Err(error);
                }
            }
        }
    }

    /// Undoes a creation that could not be completed; what cannot be undone now is at the next start.
    fn take_back(&self, work: &mut Work, record: &Record) {
        let undone = self.pool.delete(record.device_id).and_then(|_| {
            work.used.remove(&record.device_id);
            self.forget(&record.hash)
        });
        match undone {
            Ok(()) => self.give_up_transaction(),
            Err(error) => {
                log::error!("take back device {}: {}", record.hash, error.report());
                work.unfinished = true;
                self.hide(&record.hash);
            }
        }
    }

    /// Removes the file of a transaction of which nothing was done.
    fn give_up_transaction(&self) {
        if let Err(error) = self.unlink(TRANSACTION) {
            log::warn!("remove the transaction file: {}", error.report());
        }
    }

    /// Deletes a device and its file. In use: it is marked, and goes later.
    pub(super) fn delete_device(&self, record: &Record) -> Result<Gone> {
        let mut work = self.work.lock();
        // Meanwhile somebody else may have been here.
        let now = || self.record(&record.hash).filter(|now| now.device_id == record.device_id);
        if now().is_none() {
            return Ok(Gone::Now);
        }
        let from = self.begin(&mut work)?.transaction;
        // Or it was what was unfinished.
        let Some(record) = now() else { return Ok(Gone::Now) };
        if self.has_other(record.device_id, &record.hash) {
            let what = format!("device {} has an id of another device of the store", record.hash);
            return Err(Error::corrupt(what));
        }
        let transaction =
            Transaction { number: from + 1, hash: record.hash.clone(), device_id: record.device_id };
        self.save_transaction(&transaction)?;
        let deleted = step("delete in pool").and_then(|()| self.delete_in_pool(&record));
        let in_use = match deleted {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::InUse => true,
            Err(error) => {
                self.give_up_transaction();
                return Err(error);
            }
        };
        let closed = self.close_deletion(&mut work, &record, in_use).and_then(|()| {
            step("set transaction")?;
            self.pool.set_transaction(from, from + 1)
        });
        work.unfinished = closed.is_err();
        closed.map(|()| if in_use { Gone::Later } else { Gone::Now })
    }

    /// What the store knows of a device that the pool has deleted, or has not because it is in use.
    fn close_deletion(&self, work: &mut Work, record: &Record, in_use: bool) -> Result<()> {
        if !in_use {
            self.forget(&record.hash)?;
            work.used.remove(&record.device_id);
        } else if !record.deleted {
            self.save(&Record { deleted: true, ..record.clone() })?;
        }
        Ok(())
    }

    /// The kernel takes the table of a device apart a moment after it removed the device.
    fn delete_in_pool(&self, record: &Record) -> Result<bool> {
        let name = self.prefix.device(&record.hash);
        let mut tries = 0..CLOSE_TRIES;
        loop {
            match self.pool.delete(record.device_id) {
                Err(error)
                    if error.kind() == ErrorKind::InUse
                        && tries.next().is_some()
                        && self.pool.dm.info(&name)?.is_none() =>
                {
                    std::thread::sleep(CLOSE_PAUSE);
                }
                deleted => return deleted,
            }
        }
    }

    /// Looks whether a transaction was interrupted, and does what is to be done about it.
    pub(super) fn recover(&self, work: &mut Work) -> Result<()> {
        work.unfinished = false;
        let transaction = match self.read_transaction() {
            Ok(Some(transaction)) => transaction,
            Ok(None) => return Ok(()),
            Err(error) if is_damaged(&error) => {
                self.put_file_aside(TRANSACTION, &error.report());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let status = self.pool.status()?;
        let now = status.transaction;
        if transaction.number < now {
            let number = transaction.number;
            log::warn!(
                "the thin pool is at transaction {now}, the store knows of {number}: files may be lost"
            );
        }
        if transaction.number <= now {
            return Ok(());
        }
        match self.doubt(&transaction, now) {
            Some(doubt) => {
                let reason = format!(
                    "{doubt}: neither device {} nor id {} of the thin pool was touched",
                    transaction.hash, transaction.device_id
                );
                self.put_file_aside(TRANSACTION, &reason);
                Ok(())
            }
            None => {
                // Until that has worked.
                work.unfinished = true;
                if let Err(error) = status.check_writable() {
                    log::error!("device {} is not to be used: {}", transaction.hash, error.report());
                    self.hide(&transaction.hash);
                    return Ok(());
                }
                self.roll_back(work, &transaction).during(|| format!("device {}", transaction.hash))?;
                work.unfinished = false;
                Ok(())
            }
        }
    }

    /// Why an interrupted transaction is not to be believed.
    fn doubt(&self, transaction: &Transaction, now: u64) -> Option<String> {
        if transaction.number > now + 1 {
            let number = transaction.number;
            return Some(format!("it has number {number}, and the thin pool is at {now}"));
        }
        if self.has_other(transaction.device_id, &transaction.hash) {
            return Some("another device of the store has its id".to_owned());
        }
        match self.is_put_aside(transaction.device_id) {
            Ok(false) => {}
            Ok(true) => return Some("something that was put aside has its id".to_owned()),
            Err(error) => return Some(format!("what was put aside cannot be read: {}", error.report())),
        }
        let record = self.record(&transaction.hash)?;
        if record.device_id != transaction.device_id {
            return Some(format!("the device's file has id {}", record.device_id));
        }
        if record.transaction > transaction.number {
            return Some(format!("the device was made by transaction {}", record.transaction));
        }
        (record.hash == BASE && record.initialized).then(|| "the base device is in use".to_owned())
    }

    fn roll_back(&self, work: &mut Work, transaction: &Transaction) -> Result<()> {
        step("delete in pool")?;
        match self.pool.delete(transaction.device_id) {
            Ok(existed) => {
                log::info!(
                    "interrupted transaction {}: device {} {}",
                    transaction.number,
                    transaction.hash,
                    if existed { "deleted" } else { "was not there" }
                );
                self.forget(&transaction.hash)?;
                work.used.remove(&transaction.device_id);
            }
            // A deletion of a device that is in use: it goes later.
            Err(error) if error.kind() == ErrorKind::InUse => match self.record(&transaction.hash) {
                Some(record) => self.save(&Record { deleted: true, ..record })?,
                None => return Err(error),
            },
            Err(error) => return Err(error),
        }
        self.unlink(TRANSACTION)
    }
}
