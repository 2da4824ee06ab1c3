//! The core of llmdirect: bytes and numbers, no Python.
//!
//! Every operation that may take long takes a [`Cancel`] and returns [`Result`].

pub mod cancel;
pub mod error;
pub mod hash;
pub mod npy;
pub mod store;

pub use cancel::Cancel;
pub use error::{Error, Result};
