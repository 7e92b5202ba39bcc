//! Cornjacket: an event platform that a team declares instead of programs.
//!
//! The rooms, in the order in which an event walks through them:
//!
//! ```text
//! ingest ──▶ outbox ──▶ relay ──▶ event store + bus ──▶ handler ──▶ projection ──▶ query
//!                                        ├─────────────▶ time_series ────────────────┘
//!                                        └─────────────▶ actions ──▶ webhooks
//! ```
//!
//! What a room gives up on waits in [`dead_letters`] until somebody works through it.
//!
//! What each room runs is declared: [`registry`] loads it from the table `registration`, which the controllers
//! write. `ARCHITECTURE.md` walks through both flows file by file.

pub mod database;
pub mod event;
pub mod expression;
pub mod registry;

pub mod actions;
pub mod bus;
pub mod dead_letters;
pub mod handler;
pub mod ingest;
pub mod outbox;
pub mod projection;
pub mod query;
pub mod relay;
pub mod time_series;

pub mod cli;
pub mod lifecycle;
pub mod operate;
pub mod pace;
