//! Integration tests on real services; one binary, one file per subject.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the error, also in its helper functions")]

mod batch_bytes;
mod controllers;
mod controllers_world;
mod event_commands;
mod failures;
mod harness;
mod harness_works;
mod ingest_events;
mod ingest_idempotency;
mod ingest_mutants;
mod ingest_outages;
mod ingest_refusals;
mod ingest_storable;
mod ingest_world;
mod kafka_message;
mod migrations;
mod operations;
mod poison;
mod private_postgres;
mod projection_upkeep;
mod projections;
mod query_contract;
mod query_events;
mod query_service;
mod query_streams;
mod relay;
mod separate_databases;
