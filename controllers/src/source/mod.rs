//! Where resources come from: a directory of manifests, or a cluster.

pub mod cluster;
pub mod declare;
pub mod directory;
pub mod statuses;
