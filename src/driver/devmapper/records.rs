// SPDX-License-Identifier: MulanPSL-2.0
//! The driver's own JSON files, read as leniently and written byte for byte as the reference does. Pure.

use crate::error::{Error, Result};
use crate::json::{self, Value};
use crate::units::Bytes;

use super::names::BASE;

/// Largest id of a thin device: 24 bits.
pub(super) const MAX_ID: u32 = 0xff_ffff;

/// One thin device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Id of the layer, or `base`.
    pub(super) hash: String,
    /// Its id in the pool.
    pub(super) device_id: u32,
    /// Its size.
    pub(super) size: Bytes,
    /// Number of the transaction that made it.
    pub(super) transaction: u64,
    /// The base has its file system. Of layers it says nothing.
    pub(super) initialized: bool,
    /// It is to go as soon as nobody uses it.
    pub(super) deleted: bool,
}

impl Record {
    /// Reads the file called `name`. An id that the pool cannot have: `Corrupt`.
    pub(super) fn parse(text: &[u8], name: &str) -> Result<Record> {
        let value = json::parse(text)?;
        require_object(&value)?;
        let record = Record {
            hash: value.str("hash").filter(|hash| !hash.is_empty()).unwrap_or(name).to_owned(),
            device_id: device_id(&value)?,
            size: Bytes(value.uint64("size")?),
            transaction: value.uint64("transaction_id")?,
            initialized: value.flag("initialized"),
            deleted: value.flag("deleted"),
        };
        if record.hash != name {
            return Err(Error::corrupt(format!("it is that of device {:?}", record.hash)));
        }
        if record.size.0 == 0 {
            return Err(Error::corrupt("it names no size"));
        }
        Ok(record)
    }

    /// Whether its device is to be deleted when nobody uses it. What is to become of the base is said at a start.
    pub(super) fn is_to_go(&self) -> bool {
        self.deleted && self.hash != BASE
    }

    pub(super) fn to_json(&self) -> String {
        json::to_text(|w| {
            w.string("hash", Some(&self.hash));
            w.signed("device_id", self.device_id);
            w.unsigned("size", self.size.0);
            w.unsigned("transaction_id", self.transaction);
            w.flag("initialized", self.initialized);
            w.flag("deleted", self.deleted);
        })
    }
}

/// What concerns all devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeviceSet {
    /// The id that was given last.
    pub(super) last_id: u32,
    /// UUID of the base's file system.
    pub(super) base_uuid: Option<String>,
}

impl DeviceSet {
    pub(super) fn parse(text: &[u8]) -> Result<DeviceSet> {
        let value = json::parse(text)?;
        require_object(&value)?;
        let last_id = u32::try_from(value.int32("next_device_id")?).unwrap_or(0);
        let base_uuid = value.string("BaseDeviceUUID").filter(|uuid| !uuid.is_empty());
        Ok(DeviceSet { last_id: last_id & MAX_ID, base_uuid })
    }

    pub(super) fn to_json(&self) -> String {
        json::to_text(|w| {
            w.signed("next_device_id", self.last_id);
            w.string("BaseDeviceFilesystem", Some("ext4"));
            w.string("BaseDeviceUUID", self.base_uuid.as_deref());
        })
    }
}

/// What is being done to the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    /// The number that the pool will have afterwards.
    pub(super) number: u64,
    /// The device that is made or deleted.
    pub(super) hash: String,
    /// Its id in the pool.
    pub(super) device_id: u32,
}

impl Transaction {
    pub(super) fn parse(text: &[u8]) -> Result<Transaction> {
        let value = json::parse(text)?;
        require_object(&value)?;
        // Data older than iSulad leave the base's name out.
        let hash = value.str("device_hash").filter(|hash| !hash.is_empty()).unwrap_or(BASE).to_owned();
        let number = value.uint64("open_transaction_id")?;
        Ok(Transaction { number, hash, device_id: device_id(&value)? })
    }

    pub(super) fn to_json(&self) -> String {
        json::to_text(|w| {
            w.unsigned("open_transaction_id", self.number);
            w.string("device_hash", Some(&self.hash));
            w.signed("device_id", self.device_id);
        })
    }
}

/// A file of another shape would read as zeros, and id 0 may be a device of somebody else.
fn require_object(value: &Value<'_>) -> Result<()> {
    match value.as_object() {
        Some(_) => Ok(()),
        None => Err(Error::corrupt("it is no object")),
    }
}

fn device_id(value: &Value<'_>) -> Result<u32> {
    let id = value.int64("device_id")?;
    let known = u32::try_from(id).ok().filter(|id| *id <= MAX_ID);
    known.ok_or_else(|| Error::corrupt(format!("{id} is no id of a thin device")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn records_are_written_as_the_reference_writes_them() {
        let text = "{\n    \"hash\": \"base\",\n    \"device_id\": 1,\n    \"size\": 10737418240,\n    \
                    \"transaction_id\": 1,\n    \"initialized\": true\n}\n";
        let record = Record::parse(text.as_bytes(), "base").unwrap();
        assert_eq!((record.device_id, record.size, record.initialized), (1, Bytes(10 << 30), true));
        assert_eq!(record.to_json(), text);

        let text = "{\n    \"hash\": \"abc\",\n    \"device_id\": 7,\n    \"size\": 4096,\n    \
                    \"transaction_id\": 12,\n    \"deleted\": true\n}\n";
        assert_eq!(Record::parse(text.as_bytes(), "abc").unwrap().to_json(), text);

        let text = "{\n    \"next_device_id\": 3,\n    \"BaseDeviceFilesystem\": \"ext4\",\n    \
                    \"BaseDeviceUUID\": \"01234567-89ab-cdef-0123-456789abcdef\"\n}\n";
        assert_eq!(DeviceSet::parse(text.as_bytes()).unwrap().to_json(), text);

        let text =
            "{\n    \"open_transaction_id\": 2,\n    \"device_hash\": \"abc\",\n    \"device_id\": 5\n}\n";
        assert_eq!(Transaction::parse(text.as_bytes()).unwrap().to_json(), text);
    }

    #[test]
    fn what_older_data_leave_out_is_known() {
        let record = Record::parse(br#"{"device_id":2,"size":4096}"#, "abc").unwrap();
        assert_eq!((record.hash.as_str(), record.transaction, record.deleted), ("abc", 0, false));
        let transaction = Transaction::parse(br#"{"open_transaction_id":4,"device_hash":""}"#).unwrap();
        assert_eq!((transaction.hash.as_str(), transaction.device_id), ("base", 0));
        assert_eq!(DeviceSet::parse(b"{}").unwrap(), DeviceSet::default());
    }

    #[test]
    fn what_cannot_be_is_corrupt() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"hash":"other","size":1}"#,
            r#"{"device_id":16777216,"size":1}"#,
            r#"{"device_id":-1,"size":1}"#,
            r#"{"device_id":1}"#,
        ] {
            let error = Record::parse(text.as_bytes(), "abc").unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidData), "{text}");
        }
        Transaction::parse(br#"{"device_id":16777216}"#).unwrap_err();
        Transaction::parse(b"null").unwrap_err();
        DeviceSet::parse(b"5").unwrap_err();
    }
}
