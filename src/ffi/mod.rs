// SPDX-License-Identifier: MulanPSL-2.0
//! The C ABI.
