//! What people may ask for, and the compiled form of it that the data plane runs. No client, no runtime.

pub mod registration;
