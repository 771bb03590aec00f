// SPDX-License-Identifier: MulanPSL-2.0
//! JSON as the reference reads and writes it: lenient in, byte-exact out.
