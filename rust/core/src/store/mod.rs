//! The embedding store: token embeddings of passages, ragged, in immutable `.npy` files.
//!
//! A store and a shard are the same folder: `manifest.json` and four files whose names carry the
//! hash of their content.

mod files;
mod manifest;
mod writer;

pub use files::{ChunkReader, FileEntry, verify_file};
pub use manifest::{Chunk, Files, Manifest, TokenDtype};
pub use writer::{CHUNK_BYTES, NpyWriter, Ready};
