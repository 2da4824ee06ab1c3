//! The embedding store: token embeddings of passages, ragged, in immutable `.npy` files.
//!
//! A store and a shard are the same folder: `manifest.json` and files whose names carry the hash of
//! their content. [`Store`] reads one, [`NpyWriter`] writes one file of it,
//! [`consolidate_shards`] joins many, [`Published`] reads the format of the published scripts.

mod blocks;
mod checksums;
mod copy;
mod files;
mod gather;
mod join;
mod keys;
mod manifest;
mod open;
mod published;
mod rounding;
mod series;
mod writer;

pub use checksums::{Chunk, write_checksums};
pub use files::FileEntry;
pub use gather::Destination;
pub use join::{Joined, OnBytes, consolidate_shards};
pub use keys::KeyIndex;
pub use manifest::{Files, Manifest, TokenDtype};
pub use open::{Loading, Store};
pub use published::{Padded, Published};
pub use writer::{CHUNK_BYTES, NpyWriter, Ready};

/// The cure for a damaged store or shard.
const REMAKE: &str =
    "remove its folder, then run `llmdirect precompute` and `llmdirect consolidate` again";
