// SPDX-License-Identifier: MulanPSL-2.0
//! Names of devices and of files.

use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::sys::dm;
use crate::sys::fs::Dir;

/// The device that layers without a parent are snapshots of, and the name of its file.
pub(super) const BASE: &str = "base";
/// Files beside those of the devices.
pub(super) const DEVICE_SET: &str = "deviceset-metadata";
pub(super) const TRANSACTION: &str = "transaction-metadata";

/// The beginning of the names of all devices of one store.
#[derive(Debug, Clone)]
pub(super) struct Prefix(String);

impl Prefix {
    /// By device and inode of the driver's home, as the reference: the inode is cut to 32 bits.
    pub(super) fn of(home: &Dir) -> Result<Prefix> {
        let (device, inode) = home.identity()?;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Ok(Prefix(format!("container-{major}:{minor}-{}", inode & 0xffff_ffff)))
    }

    /// Name of the device of a layer, or of the base.
    pub(super) fn device(&self, hash: &str) -> String {
        format!("{}-{hash}", self.0)
    }

    /// A device that tables are tried on. No id begins with a dot.
    pub(super) fn probe(&self) -> String {
        self.device(".probe")
    }

    /// The layer of a device name of this store: that of another, whose prefix only begins with this one, is not.
    pub(super) fn hash<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.0.as_str())?.strip_prefix('-')
    }

    /// Refuses ids that name something else here, or no device.
    pub(super) fn check(&self, id: &LayerId) -> Result<()> {
        let name = id.as_str();
        let why = if is_reserved(name) {
            "it is the name of something else in this store"
        } else if !dm::is_name(&self.device(name)) {
            "a device cannot be called so"
        } else {
            return Ok(());
        };
        Err(Error::invalid(format!("layer {id}: {why}")))
    }
}

/// Whether a name is that of the base or of a file that is no device's.
pub(super) fn is_reserved(name: &str) -> bool {
    matches!(name, BASE | DEVICE_SET | TRANSACTION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_device_of_another_store_is_never_taken_for_ours() {
        let prefix = Prefix("container-254:32-12".into());
        assert_eq!(prefix.device("base"), "container-254:32-12-base");
        assert_eq!(prefix.hash("container-254:32-12-abc"), Some("abc"));
        // The reference takes this one for its own.
        assert_eq!(prefix.hash("container-254:32-123-abc"), None);
        for foreign in ["container-254:32-12", "other", "vg-container-254:32-12-abc"] {
            assert_eq!(prefix.hash(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn ids_that_name_something_else_are_refused() {
        let prefix = Prefix("container-254:32-12".into());
        prefix.check(&LayerId::new(&"a".repeat(64)).unwrap()).unwrap();
        for bad in ["base", "deviceset-metadata", "transaction-metadata", "a b", "ä", &"a".repeat(110)] {
            let error = prefix.check(&LayerId::new(bad).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
