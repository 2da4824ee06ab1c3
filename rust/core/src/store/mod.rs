//! The embedding store: token embeddings of passages, ragged, in immutable `.npy` files.
//!
//! A store and a shard are the same folder: `manifest.json` and files whose names carry the hash of
//! their content. [`Store`] reads one, [`NpyWriter`] writes one file of it,
//! [`consolidate_shards`] joins many, [`Published`] reads the format of the published scripts.

mod checksums;
mod chunk;
mod copy;
mod files;
mod gather;
mod join;
mod keys;
mod manifest;
mod npy_folder;
mod open;
mod quantize;
mod store_writer;
mod writer;

pub use checksums::write_checksums;
pub use chunk::{CHUNK_BYTES, Chunk};
pub use files::FileEntry;
pub use gather::Destination;
pub use join::{OnBytes, consolidate_shards};
pub use keys::KeyIndex;
pub use manifest::{Files, Manifest, TokenDtype};
pub use npy_folder::{Padded, Published};
pub use open::{Loading, Store};
pub use store_writer::Joined;
pub use writer::{NpyWriter, Ready};
