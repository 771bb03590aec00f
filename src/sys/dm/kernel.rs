// SPDX-License-Identifier: MulanPSL-2.0
//! The real device-mapper.
//!
//! Every call gives the kernel one buffer: a head of 312 bytes (`struct dm_ioctl`), then what the call is about.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::cookie::{Cookie, Patience};
use super::{Dm, Gone, Info, MAX_NAME, Removal, Target};
use crate::error::{During, Error, ErrorKind, Result};

const NODES: &str = "/dev/mapper";
const CONTROL: &str = "/dev/mapper/control";
/// Mode of a node, as udev's rules have it.
const NODE_MODE: u32 = 0o600;

/// Offsets in the head.
mod at {
    pub(super) const DATA_SIZE: usize = 12;
    pub(super) const DATA_START: usize = 16;
    pub(super) const TARGET_COUNT: usize = 20;
    pub(super) const OPEN_COUNT: usize = 24;
    pub(super) const FLAGS: usize = 28;
    pub(super) const EVENT: usize = 32;
    pub(super) const DEVICE: usize = 40;
    pub(super) const NAME: usize = 48;
}
const HEAD: usize = 312;
/// `struct dm_target_spec`, before its text.
const SPEC: usize = 40;
const SPEC_KIND: usize = 24;
const KIND_LEN: usize = 16;
const FIRST_BUFFER: usize = 16 << 10;
const LARGEST_BUFFER: usize = 16 << 20;

/// Numbers of the calls.
#[derive(Debug, Clone, Copy)]
enum Call {
    Version = 0,
    List = 2,
    Create = 3,
    Remove = 4,
    Rename = 5,
    Suspend = 6,
    Info = 7,
    Load = 9,
    Clear = 10,
    Status = 12,
    Message = 14,
}

/// Bits of the flags.
mod flag {
    pub(super) const SUSPEND: u32 = 1 << 1;
    pub(super) const STATUS_TABLE: u32 = 1 << 4;
    pub(super) const ACTIVE: u32 = 1 << 5;
    pub(super) const BUFFER_FULL: u32 = 1 << 8;
    pub(super) const NO_FLUSH: u32 = 1 << 11;
    pub(super) const UEVENT: u32 = 1 << 13;
    pub(super) const DEFERRED: u32 = 1 << 17;
}

/// The device-mapper of the running kernel.
#[derive(Debug)]
pub struct Kernel {
    control: File,
    patience: Patience,
}

impl Kernel {
    /// Opens the control device; makes its node where nobody has. No device-mapper: `Unsupported`.
    pub fn open() -> Result<Kernel> {
        let doing = || format!("open {CONTROL}");
        let open = || File::options().read(true).write(true).open(CONTROL);
        let control = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_control().during(doing)?;
                open()
            }
            opened => opened,
        };
        match control {
            Ok(control) => Ok(Kernel { control, patience: Patience::default() }),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {
                Err(Error::with_source(ErrorKind::Unsupported, "this kernel has no device-mapper", error))
            }
            Err(error) => Err(error).during(doing),
        }
    }

    /// One call; a buffer that was too small is made larger.
    fn call(&self, call: Call, request: &Request<'_>) -> Result<Reply> {
        let mut size = FIRST_BUFFER;
        loop {
            let reply = self.try_call(call, request, size)?;
            if reply.flags() & flag::BUFFER_FULL == 0 {
                return Ok(reply);
            }
            size = size.saturating_mul(4);
            if size > LARGEST_BUFFER {
                return Err(Error::new(ErrorKind::LimitExceeded, "the kernel's answer is too long"));
            }
        }
    }

    fn try_call(&self, call: Call, request: &Request<'_>, size: usize) -> Result<Reply> {
        let doing = || format!("device-mapper {call:?} {}", request.name);
        let mut buffer = request.to_buffer(size).during(doing)?;
        // `_IOWR(0xfd, number, struct dm_ioctl)`
        let number = rustix::ioctl::opcode::read_write::<[u8; HEAD]>(0xfd, call as u8);
        loop {
            // SAFETY: the head tells the kernel the size of the buffer, which is valid for reads and writes of all of it.
            let result = unsafe {
                libc::ioctl(self.control.as_raw_fd(), libc::Ioctl::from(number), buffer.as_mut_ptr())
            };
            if result >= 0 {
                return Ok(Reply { buffer });
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINTR) {
                return Err(error).during(doing);
            }
        }
    }

    /// A call that changes a node, and the wait for whoever does that.
    fn announced(&self, call: Call, request: Request<'_>) -> Result<Reply> {
        let cookie = Cookie::new();
        let event = cookie.as_ref().map_or(0, Cookie::event);
        let reply = self.call(call, &Request { event, ..request })?;
        if let Some(cookie) = cookie
            && reply.flags() & flag::UEVENT != 0
            && let Some(waited) = self.patience.wait(&cookie)
        {
            let (name, seconds) = (request.name, waited.as_secs());
            log::warn!("udev has not dealt with {name} in {seconds} s: going on without it");
        }
        Ok(reply)
    }

    fn targets(&self, name: &str, flags: u32) -> Result<Vec<Target>> {
        self.call(Call::Status, &Request { flags, ..Request::of(name) })?.targets()
    }
}

impl Dm for Kernel {
    fn version(&self) -> Result<(u32, u32, u32)> {
        let reply = self.call(Call::Version, &Request::of(""))?;
        Ok((reply.u32(0), reply.u32(4), reply.u32(8)))
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.call(Call::List, &Request::of(""))?.names())
    }

    fn info(&self, name: &str) -> Result<Option<Info>> {
        match self.call(Call::Info, &Request::of(name)) {
            Ok(reply) => Ok(Some(reply.info())),
            Err(error) if super::is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn table(&self, name: &str) -> Result<Vec<Target>> {
        self.targets(name, flag::STATUS_TABLE)
    }

    fn status(&self, name: &str) -> Result<Vec<Target>> {
        // What is on its way to the disk is not waited for.
        self.targets(name, flag::NO_FLUSH)
    }

    fn create(&self, name: &str) -> Result<()> {
        self.call(Call::Create, &Request::of(name)).map(drop)
    }

    fn load(&self, name: &str, target: &Target) -> Result<()> {
        let data = spec(target)?;
        self.call(Call::Load, &Request { data: &data, targets: 1, ..Request::of(name) }).map(drop)
    }

    fn clear(&self, name: &str) -> Result<()> {
        self.call(Call::Clear, &Request::of(name)).map(drop)
    }

    fn suspend(&self, name: &str) -> Result<()> {
        self.call(Call::Suspend, &Request { flags: flag::SUSPEND, ..Request::of(name) }).map(drop)
    }

    fn resume(&self, name: &str) -> Result<()> {
        let reply = self.announced(Call::Suspend, Request::of(name))?;
        match self.info(name)? {
            Some(info) if !info.deferred_remove => ensure_node(&self.node(name), reply.device()),
            // On its way out: a node that is made now would stay.
            _ => Ok(()),
        }
    }

    fn rename(&self, name: &str, new: &str) -> Result<()> {
        let data = [new.as_bytes(), b"\0"].concat();
        self.announced(Call::Rename, Request { data: &data, ..Request::of(name) })?;
        sweep_node(&self.node(name));
        match self.call(Call::Info, &Request::of(new)) {
            Ok(reply) => ensure_node(&self.node(new), reply.device()),
            Err(error) if super::is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, name: &str, when: Removal) -> Result<Gone> {
        let flags = if when == Removal::Deferred { flag::DEFERRED } else { 0 };
        let removed = self.announced(Call::Remove, Request { flags, ..Request::of(name) });
        if removed.as_ref().is_err_and(super::is_absent) {
            // It went when it was closed, and nobody but udevd would have seen to its node.
            sweep_node(&self.node(name));
        }
        let reply = removed?;
        if reply.flags() & flag::DEFERRED != 0 && self.info(name)?.is_some() {
            return Ok(Gone::Later);
        }
        sweep_node(&self.node(name));
        Ok(Gone::Now)
    }

    fn message(&self, name: &str, text: &str) -> Result<()> {
        // The sector it is for, then the text.
        let data = [&0u64.to_ne_bytes()[..], text.as_bytes(), b"\0"].concat();
        let sent = self.call(Call::Message, &Request { data: &data, ..Request::of(name) });
        sent.map(drop).during(|| format!("send message {text:?}"))
    }

    fn node(&self, name: &str) -> PathBuf {
        Path::new(NODES).join(name)
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
struct Request<'a> {
    name: &'a str,
    flags: u32,
    event: u32,
    targets: u32,
    data: &'a [u8],
}

impl<'a> Request<'a> {
    fn of(name: &'a str) -> Request<'a> {
        Request { name, flags: 0, event: 0, targets: 0, data: &[] }
    }

    fn to_buffer(self, size: usize) -> Result<Vec<u8>> {
        if self.name.len() > MAX_NAME || self.name.contains('\0') {
            return Err(Error::invalid(format!("{:?} is no name of a device", self.name)));
        }
        let size = size.max(HEAD + self.data.len());
        let mut buffer = vec![0u8; size];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = buffer.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes();
        put(0, &4u32.to_ne_bytes());
        put(at::DATA_SIZE, &number(size));
        put(at::DATA_START, &number(HEAD));
        put(at::TARGET_COUNT, &self.targets.to_ne_bytes());
        put(at::FLAGS, &self.flags.to_ne_bytes());
        put(at::EVENT, &self.event.to_ne_bytes());
        put(at::NAME, self.name.as_bytes());
        put(HEAD, self.data);
        Ok(buffer)
    }
}

/// What the kernel left in the buffer. Offsets that lead out of it give zeros and ends.
#[derive(Debug)]
struct Reply {
    buffer: Vec<u8>,
}

impl Reply {
    fn u32(&self, at: usize) -> u32 {
        self.array(at).map_or(0, u32::from_ne_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        self.array(at).map_or(0, u64::from_ne_bytes)
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.buffer.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn text(&self, at: usize, most: usize) -> String {
        let rest = self.buffer.get(at..).unwrap_or_default();
        let rest = rest.get(..most).unwrap_or(rest);
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned()
    }

    fn flags(&self) -> u32 {
        self.u32(at::FLAGS)
    }

    fn device(&self) -> u64 {
        self.u64(at::DEVICE)
    }

    fn start(&self) -> usize {
        offset(self.u32(at::DATA_START))
    }

    fn info(&self) -> Info {
        let (major, minor) = numbers(self.device());
        Info {
            device: format!("{major}:{minor}"),
            open_count: self.u32(at::OPEN_COUNT),
            has_table: self.flags() & flag::ACTIVE != 0,
            suspended: self.flags() & flag::SUSPEND != 0,
            deferred_remove: self.flags() & flag::DEFERRED != 0,
        }
    }

    /// `struct dm_name_list`: device, offset of the next from here, name.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut at = self.start();
        while self.u64(at) != 0 {
            names.push(self.text(at + 12, usize::MAX));
            match self.u32(at + 8) {
                0 => break,
                next => at = at.saturating_add(offset(next)),
            }
        }
        names
    }

    /// `struct dm_target_spec`: start, length, status, offset of the next from the first, kind; then text.
    fn targets(&self) -> Result<Vec<Target>> {
        let first = self.start();
        let mut at = first;
        let mut targets = Vec::new();
        for _ in 0..self.u32(at::TARGET_COUNT) {
            if at.saturating_add(SPEC) > self.buffer.len() {
                return Err(Error::new(ErrorKind::Os(libc::EIO), "the kernel's answer ends early"));
            }
            targets.push(Target {
                start: self.u64(at),
                sectors: self.u64(at + 8),
                kind: self.text(at + SPEC_KIND, KIND_LEN),
                text: self.text(at + SPEC, usize::MAX).trim_end().to_owned(),
            });
            at = first.saturating_add(offset(self.u32(at + 20)));
        }
        Ok(targets)
    }
}

fn offset(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// One target for a load. The next one would be at a multiple of eight.
fn spec(target: &Target) -> Result<Vec<u8>> {
    let kind = target.kind.as_bytes();
    if kind.len() >= KIND_LEN {
        return Err(Error::invalid(format!("{:?} is no kind of target", target.kind)));
    }
    let length = (SPEC + target.text.len() + 1).next_multiple_of(8);
    let mut data = Vec::with_capacity(length);
    data.extend_from_slice(&target.start.to_ne_bytes());
    data.extend_from_slice(&target.sectors.to_ne_bytes());
    data.extend_from_slice(&0i32.to_ne_bytes());
    data.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    data.extend_from_slice(kind);
    data.resize(SPEC, 0);
    data.extend_from_slice(target.text.as_bytes());
    data.resize(length, 0);
    Ok(data)
}

/// Major and minor number as the kernel packs them for programs (`huge_encode_dev`).
fn numbers(device: u64) -> (u64, u64) {
    ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

/// Makes the control node as the kernel's own file systems would.
fn make_control() -> Result<()> {
    let misc = std::fs::read_to_string("/proc/misc").during(|| "read /proc/misc")?;
    let number =
        misc.lines().find_map(|line| line.trim().strip_suffix(" device-mapper")?.trim().parse().ok());
    let Some(minor) = number else {
        return Err(Error::new(ErrorKind::Unsupported, "this kernel has no device-mapper"));
    };
    match std::fs::create_dir(NODES) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).during(|| format!("make {NODES}"));
        }
        _ => {}
    }
    // Miscellaneous devices have major number 10.
    let device = rustix::fs::makedev(10, minor);
    mknodat(CWD, CONTROL, FileType::CharacterDevice, Mode::from_raw_mode(NODE_MODE), device)
        .during(|| "make its node")
}

/// Makes sure that a node leads to its device.
fn ensure_node(node: &Path, device: u64) -> Result<()> {
    let (major, minor) = numbers(device);
    let wanted = rustix::fs::makedev(u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0));
    let leads_there = |meta: std::fs::Metadata| meta.file_type().is_block_device() && meta.rdev() == wanted;
    if std::fs::metadata(node).is_ok_and(leads_there) {
        return Ok(());
    }
    sweep_node(node);
    let doing = || format!("make device node {}", node.display());
    match mknodat(CWD, node, FileType::BlockDevice, Mode::from_raw_mode(NODE_MODE), wanted) {
        // udevd has been quicker.
        Err(rustix::io::Errno::EXIST) if std::fs::metadata(node).is_ok_and(leads_there) => Ok(()),
        made => made.during(doing),
    }
}

/// Removes a node or link whose device is gone.
fn sweep_node(node: &Path) {
    let is_ours =
        |meta: std::fs::Metadata| meta.file_type().is_block_device() || meta.file_type().is_symlink();
    if !std::fs::symlink_metadata(node).is_ok_and(is_ours) {
        return;
    }
    match std::fs::remove_file(node) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("remove device node {}: {error}", node.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let request = Request { flags: 2, event: 7, targets: 1, data: b"abc", ..Request::of("name") };
        let buffer = request.to_buffer(0).unwrap();
        assert_eq!(buffer.len(), 315);
        let reply = Reply { buffer };
        assert_eq!((reply.u32(0), reply.u32(12), reply.u32(16)), (4, 315, 312));
        assert_eq!((reply.u32(20), reply.u32(28), reply.u32(32)), (1, 2, 7));
        assert_eq!(reply.text(48, 128), "name");
        assert_eq!(reply.text(312, 9), "abc");
        let long = "x".repeat(128);
        assert_eq!(Request::of(&long).to_buffer(0).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(Request::of(&long[1..]).to_buffer(0).is_ok());
    }

    fn reply(count: u32, data: &[u8]) -> Reply {
        let request = Request { targets: count, data, ..Request::of("x") };
        Reply { buffer: request.to_buffer(0).unwrap() }
    }

    #[test]
    fn targets_come_back_as_they_were_given() {
        let target =
            |start, text: &str| Target { start, sectors: 8, kind: "thin".into(), text: text.to_owned() };
        let (one, two) = (target(0, "254:0 1"), target(8, "254:0 22 and more"));
        let (mut data, second) = (spec(&one).unwrap(), spec(&two).unwrap());
        assert_eq!(data.len(), 48);
        data.extend_from_slice(&second);
        assert_eq!(reply(2, &data).targets().unwrap(), [one, two]);
        assert!(reply(2, &data[..48]).targets().is_err(), "an answer that ends early");
        assert_eq!(reply(0, &[]).targets().unwrap(), []);
        let long = Target { kind: "x".repeat(16), ..target(0, "") };
        assert!(spec(&long).is_err());
    }

    #[test]
    fn names_are_a_chain() {
        let entry = |next: u32, name: &str| {
            let mut entry =
                [&64771u64.to_ne_bytes()[..], &next.to_ne_bytes(), name.as_bytes(), b"\0"].concat();
            entry.resize(entry.len().next_multiple_of(8), 0);
            entry
        };
        let data = [entry(24, "pool"), entry(0, "other")].concat();
        assert_eq!(reply(0, &data).names(), ["pool", "other"]);
        assert_eq!(reply(0, &[0; 12]).names(), [""; 0]);
    }

    #[test]
    fn device_numbers_are_taken_apart() {
        assert_eq!(numbers(0xfe03), (254, 3));
        assert_eq!(numbers(0x1000_fe03), (254, 0x1_0003));
    }
}
