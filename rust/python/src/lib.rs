//! The Python extension `llmdirect._core`: bindings of `llmdirect-core` that check arrays, release the GIL
//! and convert errors.

// A panic outside of `gil::release_gil` would be an exception that `except Exception` does not catch.
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod arrays;
mod consolidate;
mod csr;
mod gil;
mod hash;
mod metrics;
mod ranking;
mod sampling;
mod store;
mod store_files;
mod threads;
mod words;

use pyo3::prelude::*;

/// Registers every function and class of the extension.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    llmdirect_core::panics::silence();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    csr::register(module)?;
    gil::register(module)?;
    hash::register(module)?;
    metrics::register(module)?;
    ranking::register(module)?;
    sampling::register(module)?;
    consolidate::register(module)?;
    store::register(module)?;
    store_files::register(module)?;
    threads::register(module)?;
    words::register(module)?;
    Ok(())
}
