// SPDX-License-Identifier: MulanPSL-2.0
//! What `isula info` prints of the driver, line by line as the reference does.

use std::fmt::Write;

use crate::error::Result;
use crate::sys::semaphore;

use super::names::BASE;
use super::store::Store;

/// Longer lines are left out.
const LONGEST_LINE: usize = 100;

impl Store {
    pub(super) fn status_text(&self) -> Result<String> {
        let status = self.pool.status()?;
        let ((data_used, data_total), (meta_used, meta_total)) = self.pool.sizes(&status);
        let deleted = self.records.read().values().filter(|record| record.deleted).count();
        let base = self.record(BASE).map_or(0, |base| base.size.0);
        let least = u128::from(data_total) * u128::from(self.options.min_free) / 100;
        let (major, minor, patch) = self.pool.dm.version()?;
        let mut lines = vec![
            ("Pool Name", self.pool.name.clone()),
            ("Pool Blocksize", human(self.pool.block.0)),
            ("Base Device Size", human(base)),
            ("Backing Filesystem", "ext4".to_owned()),
            ("Data file", "(null)".to_owned()),
            ("Metadata file", "(null)".to_owned()),
            ("Data Space Used", human(data_used)),
            ("Data Space Total", human(data_total)),
            ("Data Space Available", human(data_total.saturating_sub(data_used))),
            ("Metadata Space Used", human(meta_used)),
            ("Metadata Space Total", human(meta_total)),
            ("Metadata Space Available", human(meta_total.saturating_sub(meta_used))),
            ("Thin Pool Minimum Free Space", human(u64::try_from(least).unwrap_or(u64::MAX))),
            ("Udev Sync Supported", "true".to_owned()),
            ("Deferred Removal Enabled", "true".to_owned()),
            ("Deferred Deletion Enabled", "true".to_owned()),
            ("Deferred Deleted Device Count", deleted.to_string()),
            ("Library Version", format!("{major}.{minor}.{patch}")),
        ];
        if let Some(usage) = semaphore::usage() {
            lines.push(("Semaphore Set Used", usage.used.to_string()));
            lines.push(("Semaphore Set Total", usage.most.to_string()));
            if usage.used == usage.most {
                let text = format!("system semaphore nums has attached limit: {}", usage.most);
                lines.push(("WARNING", text));
            }
        }
        let mut text = String::new();
        for (name, value) in lines {
            let line = format!("{name}: {value}\n");
            if line.len() < LONGEST_LINE {
                text.write_str(&line).unwrap_or_default();
            }
        }
        Ok(text)
    }
}

/// Bytes as the reference prints them here: three decimals, powers of 1024.
fn human(bytes: u64) -> String {
    for (unit, shift) in [("GB", 30u32), ("MB", 20), ("KB", 10)] {
        let whole = bytes >> shift;
        if whole > 0 {
            let rest = u128::from(bytes & ((1 << shift) - 1));
            // Rounded half up, as printf does but for exact halves.
            let thousandths = (rest * 1000 + (1 << (shift - 1))) >> shift;
            let (whole, thousandths) = match thousandths {
                1000 => (whole + 1, 0),
                below => (whole, below),
            };
            return format!("{whole}.{thousandths:03}{unit}");
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_are_printed_as_the_reference_does() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.000KB"),
            (65_536, "64.000KB"),
            (1_887_436, "1.800MB"),
            (10 << 30, "10.000GB"),
            ((1 << 30) - 1, "1024.000MB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
