//! The room `handler`.
