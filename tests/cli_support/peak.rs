// SPDX-License-Identifier: MulanPSL-2.0
//! The most memory that a program had resident.

use std::process::{Command, Stdio};

/// Runs a command that has to succeed and gives its peak in KiB, as `wait4` reports it. A small interpreter stands
/// between, for the kernel counts what the parent had before `exec` as well.
pub fn peak_kib(command: &Command) -> u64 {
    const SCRIPT: &str = "import os, resource, sys
status = os.spawnv(os.P_WAIT, sys.argv[1], sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)";
    let mut python = Command::new("python3");
    python.args(["-I", "-S", "-c", SCRIPT]).arg(command.get_program()).args(command.get_args());
    let output = python.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    text.lines().last().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}
