// SPDX-License-Identifier: MulanPSL-2.0
//! What a run of a program took.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    /// Most resident memory of one process; 0 when it is not known.
    pub(crate) peak_kib: u64,
}

impl Cost {
    /// A small interpreter stands between: the kernel counts what the parent had before `exec` as well.
    pub(crate) fn of_program(program: &Path, args: &[&OsStr]) -> Cost {
        const SCRIPT: &str = "import os, sys, time
start = time.monotonic()
pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
print(time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(status != 0)";
        let mut command = Command::new("python3");
        command.args(["-I", "-S", "-c", SCRIPT]).arg(program).args(args);
        Cost::printed_by(&mut command)
    }

    /// One of our own measurements, in a process of its own, which tells what it took once it was ready.
    pub(crate) fn of_own(what: &str, args: &[PathBuf]) -> Cost {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--own").arg(what).args(args);
        Cost::printed_by(&mut command)
    }

    fn printed_by(command: &mut Command) -> Cost {
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let mut numbers = text.lines().last().unwrap().split_whitespace();
        let mut next = || numbers.next().unwrap();
        Cost {
            wall: next().parse().unwrap(),
            cpu: next().parse().unwrap(),
            peak_kib: next().parse().unwrap(),
        }
    }
}

/// Ticks of a second in /proc, on every architecture.
const TICKS: f64 = 100.0;

/// CPU time of a process and of the children it has waited for, in seconds.
pub(crate) fn cpu_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name may hold anything; what follows are numbers: user, system, and of children.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(4);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / TICKS
}

/// The most memory that a process had resident.
pub(crate) fn peak_kib_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
