// SPDX-License-Identifier: MulanPSL-2.0
//! Points in time, and the two texts in which records keep them.
//!
//! Image and container records hold local time with its offset (`2026-11-21T07:56:35.564166910+00:00`); layer
//! records hold UTC with a `Z`. Both always have nine fractional digits.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, Local, NaiveDate, Utc};

use crate::error::{Error, Result};

/// A point in time: seconds and nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds since the epoch, negative before it.
    pub seconds: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

impl Timestamp {
    /// The wall clock now.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }

    /// Nanoseconds since the epoch, clamped to what an `i64` holds.
    pub fn unix_nanos(self) -> i64 {
        let nanos = i128::from(self.seconds) * NANOS_PER_SECOND + i128::from(self.nanos);
        i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
    }

    /// Local time with offset, as image and container records keep it: `YYYY-MM-DDTHH:MM:SS.nnnnnnnnn±HH:MM`.
    /// `None` when the calendar cannot show it.
    pub fn to_local_text(self) -> Option<String> {
        let time = DateTime::<Utc>::from_timestamp(self.seconds, self.nanos)?.with_timezone(&Local);
        Some(time.format("%Y-%m-%dT%H:%M:%S%.9f%:z").to_string())
    }

    /// UTC, as layer records keep it: `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ`. `None` when the calendar cannot show it.
    pub fn to_utc_text(self) -> Option<String> {
        let time = DateTime::<Utc>::from_timestamp(self.seconds, self.nanos)?;
        Some(time.format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string())
    }

    /// Parses `YYYY-MM-DDTHH:MM:SS[.n{1,9}](Z|±HH:MM)`, years 1900-2100; `""` and `0001-01-01T00:00:00Z` are
    /// the epoch, as in the reference.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("parse time {text:?}: not YYYY-MM-DDTHH:MM:SS[.n](Z|+HH:MM)"));
        if text.is_empty() || text == ZERO_TIME {
            return Ok(Timestamp::default());
        }
        let rest = text.get(..19).filter(|head| well_formed(head)).ok_or_else(bad)?;
        let tail = text.get(19..).ok_or_else(bad)?;
        let (fraction, zone) = match tail.strip_prefix('.') {
            Some(tail) => {
                let end = tail.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
                let (digits, zone) = tail.split_at(end);
                if digits.is_empty() || digits.len() > 9 {
                    return Err(bad());
                }
                (digits, zone)
            }
            None => ("", tail),
        };
        let offset = offset_seconds(zone).ok_or_else(bad)?;
        let time = chrono::NaiveDateTime::parse_from_str(rest, "%Y-%m-%dT%H:%M:%S").map_err(|_| bad())?;
        if !(1900..=2100).contains(&time.year()) {
            return Err(bad());
        }
        let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
        Ok(Timestamp { seconds: time.and_utc().timestamp() - offset, nanos })
    }

    /// Local time as Go writes it with `RFC3339Nano`: no zeros at the end of the fraction, `Z` for UTC. `None` when the
    /// calendar cannot show it.
    pub fn to_rfc3339_nano(self) -> Option<String> {
        let time = DateTime::<Utc>::from_timestamp(self.seconds, self.nanos)?.with_timezone(&Local);
        let fraction = format!("{:09}", self.nanos);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        let zone = match time.format("%:z").to_string() {
            utc if utc == "+00:00" => "Z".to_owned(),
            zone => zone,
        };
        Some(format!("{}{dot}{fraction}{zone}", time.format("%Y-%m-%dT%H:%M:%S")))
    }

    /// Parses RFC 3339 as Go does: any year of four digits, any number of fractional digits (beyond nine they are cut), an
    /// hour of one digit, a comma for the point, any offset of two digits each.
    pub fn parse_rfc3339(text: &str) -> Result<Self> {
        Timestamp::parse_usual_rfc3339(text).or_else(|error| {
            // The usual way of writing is fast, for there are many of them.
            let usual = usual_rfc3339(text).filter(|usual| usual != text);
            usual.map_or(Err(error), |usual| Timestamp::parse_usual_rfc3339(&usual))
        })
    }

    fn parse_usual_rfc3339(text: &str) -> Result<Self> {
        let bad = || {
            let shown: String = text.chars().take(80).collect();
            Error::invalid(format!("parse time {shown:?}: not YYYY-MM-DDTHH:MM:SS[.n](Z|+HH:MM)"))
        };
        let head = text.get(..19).filter(|head| well_formed(head)).ok_or_else(bad)?;
        let tail = text.get(19..).ok_or_else(bad)?;
        let (digits, zone) = match tail.strip_prefix('.') {
            Some(tail) => tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?),
            None => ("0", tail),
        };
        if digits.is_empty() {
            return Err(bad());
        }
        let offset = any_offset(zone).ok_or_else(bad)?;
        // By hand: a store of many images has very many of these.
        let number = |from: usize, to: usize| -> Option<u32> { head.get(from..to)?.parse().ok() };
        let date =
            || NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?);
        // A leap second is none, as for Go.
        let time = || date()?.and_hms_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let time = time().ok_or_else(bad)?;
        let nanos = digits
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(9)
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        Ok(Timestamp { seconds: time.and_utc().timestamp() - offset, nanos })
    }

    /// Whether it lies in 1970..=2038-01-19, the range the reference takes for a creation time.
    pub fn is_plausible(self) -> bool {
        (0..=i64::from(i32::MAX)).contains(&self.seconds)
    }
}

fn well_formed(head: &str) -> bool {
    head.bytes().enumerate().all(|(i, b)| match i {
        4 | 7 => b == b'-',
        10 => b == b'T',
        13 | 16 => b == b':',
        _ => b.is_ascii_digit(),
    })
}

/// What Go takes written as everybody else does.
fn usual_rfc3339(text: &str) -> Option<String> {
    let mut usual = text.to_owned();
    if text.as_bytes().get(12) == Some(&b':') {
        usual.insert(usual.find('T').filter(|at| *at == 10)? + 1, '0');
    }
    if usual.as_bytes().get(19) == Some(&b',') {
        usual.replace_range(19..20, ".");
    }
    Some(usual)
}

fn offset_seconds(zone: &str) -> Option<i64> {
    /// Seconds of a day.
    const DAY: i64 = 86_400;
    let minutes: i64 = zone.get(4..).map_or(Some(0), |minutes| minutes.parse().ok())?;
    any_offset(zone).filter(|offset| offset.abs() < DAY && minutes < 60)
}

/// Hours and minutes are not looked at.
fn any_offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    Some(sign * (hours * 3600 + minutes * 60))
}

/// Midnight UTC of a day, for tests and defaults.
pub fn midnight(year: i32, month: u32, day: u32) -> Option<Timestamp> {
    let time = NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(0, 0, 0)?.and_utc();
    Some(Timestamp { seconds: time.timestamp(), nanos: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_what_records_hold() {
        let table = [
            ("", 0, 0),
            ("0001-01-01T00:00:00Z", 0, 0),
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2019-10-11T17:26:17.800168778Z", 1_570_814_777, 800_168_778),
            ("2019-10-11T17:26:17.8+00:00", 1_570_814_777, 800_000_000),
            ("2019-10-11T19:26:17+02:00", 1_570_814_777, 0),
            ("2019-10-11T11:56:17-05:30", 1_570_814_777, 0),
        ];
        for (text, seconds, nanos) in table {
            assert_eq!(Timestamp::parse(text).unwrap(), Timestamp { seconds, nanos }, "{text}");
        }
        for bad in [
            "x",
            "2019-10-11",
            "2019-10-11T17:26:17",
            "2019-13-11T17:26:17Z",
            "2019-02-29T17:26:17Z",
            "1899-10-11T17:26:17Z",
            "2101-10-11T17:26:17Z",
            "2019-10-11T17:26:17.Z",
            "2019-10-11T17:26:17.1234567890Z",
            "2019-10-11T17:26:17+0200",
            "2019-10-11T17:26:17é",
        ] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_of_go_are_read_and_written() {
        let table = [
            ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2026-11-21T07:56:35.56416691Z", 1_795_247_795, 564_166_910),
            ("2026-11-21T09:56:35.5641669109+02:00", 1_795_247_795, 564_166_910),
            ("9999-12-31T23:59:59Z", 253_402_300_799, 0),
        ];
        for (text, seconds, nanos) in table {
            let time = Timestamp { seconds, nanos };
            assert_eq!(Timestamp::parse_rfc3339(text).unwrap(), time, "{text}");
            assert_eq!(Timestamp::parse_rfc3339(&time.to_rfc3339_nano().unwrap()).unwrap(), time, "{text}");
        }
        for (text, same) in [
            ("2026-11-21T7:56:35Z", "2026-11-21T07:56:35Z"),
            ("2026-11-21T07:56:35,25Z", "2026-11-21T07:56:35.25Z"),
            ("2026-11-21T7:56:35,25+01:00", "2026-11-21T06:56:35.25Z"),
            ("2026-11-21T07:56:35+24:00", "2026-11-20T07:56:35Z"),
            ("2026-11-21T07:56:35-00:90", "2026-11-21T09:26:35Z"),
        ] {
            let time = Timestamp::parse_rfc3339(text).unwrap_or_else(|error| panic!("{}", error.report()));
            assert_eq!(time, Timestamp::parse_rfc3339(same).unwrap(), "{text}");
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
        for bad in [
            "",
            "x",
            "2026-11-21T7:6:35Z",
            "2026-11-21T25:56:35Z",
            "2026-11-21é7:56:35Z",
            "2026-11-21T07:56:35,Z",
            "2026-11-21T07:56:35+1:00",
            "2026-11-21",
            "2026-11-21 07:56:35Z",
            "2026-11-21t07:56:35z",
            "2026-11-21T07:56:35",
            "2026-11-21T07:56:35.Z",
            "2026-11-21T07:56:60Z",
            "2026-02-30T07:56:35Z",
            "2026-11-21T07:56:35+0200",
            "2026-11-21T07:56:35Zx",
        ] {
            assert!(Timestamp::parse_rfc3339(bad).is_err(), "{bad}");
        }
        let fraction = |nanos| {
            let text = Timestamp { seconds: 0, nanos }.to_rfc3339_nano().unwrap();
            text.trim_end_matches('Z').get(19..).unwrap().split(['+', '-']).next().unwrap().to_owned()
        };
        assert_eq!([0, 500_000_000, 1, 120].map(fraction), ["", ".5", ".000000001", ".00000012"]);
    }

    #[test]
    fn texts_have_nine_digits() {
        let time = Timestamp { seconds: 1_570_814_777, nanos: 5 };
        assert_eq!(time.to_utc_text().unwrap(), "2019-10-11T17:26:17.000000005Z");
        let local = time.to_local_text().unwrap();
        assert_eq!(Timestamp::parse(&local).unwrap(), time, "{local}");
        assert_eq!(time.unix_nanos(), 1_570_814_777_000_000_005);
    }
}
