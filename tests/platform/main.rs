//! Integration tests on real services; one binary, one file per subject.

#[allow(dead_code, unused_imports, reason = "a box of tools: each is there for the tests to come as well")]
mod harness;
mod harness_works;
