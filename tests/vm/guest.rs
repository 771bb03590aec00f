// SPDX-License-Identifier: MulanPSL-2.0
//! Running scenarios in the machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// A scenario and its name.
pub type Scenario = (&'static str, fn());

/// Lists scenarios under their own names.
#[macro_export]
macro_rules! scenarios {
    ($($scenario:ident)*) => { &[$((stringify!($scenario), $scenario as fn())),*] };
}

pub fn run() {
    let Some(group) = std::env::var_os("VM_GUEST") else { return };
    let group = group.into_string().unwrap();
    let mut all: Vec<Scenario> = Vec::new();
    match group.as_str() {
        "devicemapper" => {
            for part in [
                super::kernel::ALL,
                super::life::ALL,
                super::trouble::ALL,
                super::bounds::ALL,
                super::full::ALL,
            ] {
                all.extend(part);
            }
        }
        "conformance" => all = super::conform::all(),
        "daemons" => all.extend(super::daemons::ALL),
        "udev" => {
            all.extend(super::life::WITH_UDEV);
            all.extend(super::udev::ALL);
        }
        "kills" => all.extend(super::kills::ALL),
        "power" => all.extend(super::power::ALL),
        "quota" => all.extend(super::quota::ALL),
        "quota-kills" => all.extend(super::quota_crash::KILLS),
        "quota-power" => all.extend(super::quota_crash::POWER),
        other => panic!("there is no group {other:?}"),
    }
    let only = std::env::var("VM_ONLY").unwrap_or_default();
    all.retain(|(name, _)| name.contains(&only));
    let mut failed = Vec::new();
    for (name, scenario) in &all {
        println!("vm {group}: {name} ...");
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(scenario));
        let seconds = start.elapsed().as_secs_f32();
        println!("vm {group}: {name}: {} ({seconds:.1} s)", if result.is_ok() { "ok" } else { "FAILED" });
        if result.is_err() {
            failed.push(*name);
        }
    }
    assert!(!all.is_empty(), "no scenario was run");
    assert!(failed.is_empty(), "{} of {} scenarios failed: {failed:?}", failed.len(), all.len());
    println!("vm {group}: all {} scenarios passed", all.len());
}
