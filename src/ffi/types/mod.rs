// SPDX-License-Identifier: MulanPSL-2.0
//! `repr(C)` mirrors of every struct that crosses the boundary, one noun a file. Their layouts are checked against
//! `src/ffi/layout.def`, see [`crate::ffi::layout`].

pub mod containerd;
pub mod docker;
pub mod driver;
pub mod image;
pub mod layer;
pub mod libisula;
pub mod rootfs;
pub mod stream;
pub mod time;

pub use containerd::{
    CContainerdDescriptor, CContainerdImage, CContainerdImageList, CContainerdImagesOptions,
    CContainerdImportReport, CContainerdNamespacedImage, CContainerdNamespacedList,
};
pub use docker::*;
pub use driver::{CDriverCreateOpts, CDriverMountOpts};
pub use image::{CImageStore, CStorageImgCreateOptions, image_storage_images, image_store_t, timestamp};
pub use layer::{
    CGraphdriverStatus, CLayer, CLayerList, CLayerOpts, CLayerStoreMountOpts, CStorageLayerCreateOpts,
    CStorageModuleInitOptions, storage_layer_create_opts_t,
};
pub use libisula::*;
pub use rootfs::{CCntRootfs, CIdMap, CIdMappingOptions, CRootfsList, CStorageRootfsOptions, cntrootfs_t};
pub use stream::{CIoReadWrapper, CIoWriteWrapper};
pub use time::{CTimestamp, types_timestamp_t};
