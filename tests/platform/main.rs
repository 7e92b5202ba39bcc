//! Integration tests on real services; one binary, one file per subject.
