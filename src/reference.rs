// SPDX-License-Identifier: MulanPSL-2.0
//! Image names: tags, digest references, default host and tag.
