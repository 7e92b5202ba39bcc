//! `cornjacket event`: send events and watch them, by HTTP alone.

pub mod sse;
