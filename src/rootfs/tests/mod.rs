// SPDX-License-Identifier: MulanPSL-2.0
//! The rootfs store when the world ends, or the disk fails, between any two of its steps.
