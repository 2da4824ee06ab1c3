//! The core of llmdirect: embedding store, negative sampling, ranking, metrics and words, without Python.
//!
//! Every long operation can be cancelled through a [`Cancel`] and returns [`Result`].

pub mod cancel;
pub mod cpu;
pub mod csr;
pub mod error;
pub mod files;
pub mod hash;
pub mod memory;
pub mod metrics;
pub mod npy;
pub mod panics;
pub mod random;
pub mod ranking;
pub mod sampling;
pub mod store;
pub mod threads;
pub mod words;

pub use cancel::Cancel;
pub use csr::Csr;
pub use error::{Error, Result};
