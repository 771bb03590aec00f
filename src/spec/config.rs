// SPDX-License-Identifier: MulanPSL-2.0
//! OCI image config.

/// An image config, with the members that `oci_image_spec` has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageConfig {}
