//! The binary: everything is in the library.

use std::process::ExitCode;

/// Requests and folds are many small allocations of all threads, on which that of the C library spent a good part of
/// a busy handler's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cornjacket::cli::main()
}
