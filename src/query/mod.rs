//! The room `query`.
