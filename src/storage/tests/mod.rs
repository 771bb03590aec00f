// SPDX-License-Identifier: MulanPSL-2.0
//! What has to be looked at from within: every step of a change, and how much is looked at. The rest is in
//! `tests/storage_*.rs`.

mod chain;
// Also `sys::testing`, which the storage, knowing no `sys`, must not use.
#[allow(clippy::duplicate_mod, reason = "shared by tests of rooms that do not know each other")]
#[path = "../../../tests/common/mod.rs"]
mod common;
mod crash;
#[path = "../../../tests/storages/mod.rs"]
mod storages;
