// SPDX-License-Identifier: MulanPSL-2.0
//! The calls by which a deed changes the store, the pool or a device, found by letting it run once.

use std::path::Path;
use std::process::Command;

use crate::kills::strace;
use crate::layers;

/// All that changes something; of `ioctl` those in [`CHANGES`].
const CALLS: [&str; 17] = [
    "ioctl",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "mknodat",
    "mount",
    "umount2",
    "fsconfig",
    "fsmount",
    "move_mount",
];
/// Calls of device-mapper that do not only ask, and that of ext4 which grows it, in both ways that strace writes it.
const CHANGES: [&str; 9] = [
    "DM_DEV_CREATE",
    "DM_DEV_REMOVE",
    "DM_DEV_RENAME",
    "DM_DEV_SUSPEND",
    "DM_TABLE_LOAD",
    "DM_TABLE_CLEAR",
    "DM_TARGET_MSG",
    "EXT4_IOC_RESIZE_FS",
    "_IOC(_IOC_WRITE, 0x66, 0x10, 0x8)",
];
/// What a deed asks for when the store is open and it begins.
const BEGIN: &str = "/the-deed-begins";

/// One call, by its name and its number among those of that name in the thread that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub call: String,
    pub count: usize,
    /// What is called, to be read.
    pub what: String,
}

/// Marks in the trace where a deed begins.
pub fn begin() {
    assert!(rustix::fs::access(BEGIN, rustix::fs::Access::EXISTS).is_err());
}

/// Lets a deed run, undisturbed, and tells its steps.
pub fn of(deed: &str, place: &Path) -> Vec<Step> {
    let log = Path::new("/tmp/steps");
    let trace =
        format!("trace={},access,faccessat,faccessat2", CALLS.map(|call| format!("?{call}")).join(","));
    let mut command = Command::new("strace");
    command.args(["-qqq", "-f", "-s", "64", "-e", &trace, "-e", "signal=none", "-o"]).arg(log);
    let status = strace(command, deed, place);
    assert!(status.success(), "{deed}: {status}");
    let steps = parse(&layers::read(log));
    assert!(steps.len() > 5, "{deed}: {steps:?}");
    steps
}

fn parse(log: &str) -> Vec<Step> {
    // Thread, call, arguments; where a call goes on after another thread's it is no new one.
    let lines = log.lines().filter_map(|line| {
        let (thread, rest) = line.split_once(' ')?;
        let (call, arguments) = rest.trim_start().split_once('(')?;
        (!call.starts_with('<')).then_some((thread, call, arguments))
    });
    let lines: Vec<_> = lines.collect();
    let begin = lines.iter().position(|(_, _, arguments)| arguments.contains(BEGIN)).unwrap();
    let deed = lines[begin].0;
    let mut steps: Vec<Step> = Vec::new();
    for (at, (thread, call, arguments)) in lines.iter().enumerate() {
        let changes = *call != "ioctl" || CHANGES.iter().any(|change| arguments.contains(change));
        if at <= begin || *thread != deed || !CALLS.contains(call) || !changes {
            continue;
        }
        let same = |upto: &[(&str, &str, &str)]| {
            upto.iter().filter(|(other, name, _)| other == thread && name == call).count()
        };
        let what: String = arguments.chars().take(100).collect();
        steps.push(Step { call: (*call).to_owned(), count: same(&lines[..=at]), what });
    }
    steps
}

/// Their calls, to be read.
pub fn names(steps: &[Step]) -> String {
    let name = |step: &Step| {
        let known = CHANGES.iter().find(|change| step.call == "ioctl" && step.what.contains(*change));
        match known {
            Some(name) if name.starts_with('_') => CHANGES[CHANGES.len() - 2].to_owned(),
            known => known.map_or(step.call.clone(), ToString::to_string),
        }
    };
    steps.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// Whether every step is wanted where by default only some are.
pub fn wants_all() -> bool {
    std::env::var("VM_CUTS").is_ok_and(|cuts| cuts == "all")
}

/// At most `most` of them, evenly spread, the first and the last among them.
pub fn spread(steps: Vec<Step>, most: usize) -> Vec<Step> {
    let last = steps.len() - 1;
    let wanted: Vec<usize> = (0..most).map(|at| at * last / (most - 1)).collect();
    steps
        .into_iter()
        .enumerate()
        .filter(|(at, _)| most > last || wanted.contains(at))
        .map(|(_, step)| step)
        .collect()
}
