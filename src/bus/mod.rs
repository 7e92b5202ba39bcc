//! The room `bus`.
