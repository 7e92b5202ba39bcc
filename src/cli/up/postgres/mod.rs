//! The private PostgreSQL of `up`.

pub mod account;
pub mod binaries;
pub mod pid_file;
