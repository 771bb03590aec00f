// SPDX-License-Identifier: MulanPSL-2.0
//! The facade: layers, images and what ties them.
