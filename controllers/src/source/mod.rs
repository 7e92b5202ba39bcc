//! Where resources come from without a cluster: a directory of manifests.

pub mod declare;
pub mod directory;
