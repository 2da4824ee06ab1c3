//! The embedding store: token embeddings of passages of different lengths, in immutable `.npy` files.
//!
//! A store is a folder of a `manifest.json` and data files whose names contain a hash of their content;
//! shards have the same format. [`Store`] reads a store, [`NpyWriter`] writes one of its files,
//! [`consolidate_shards`] joins shards, and [`NpyFolder`] reads folders of one `.npy` file per document.

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
pub use join::consolidate_shards;
pub use keys::KeyIndex;
pub use manifest::{Files, Manifest, TokenDtype};
pub use npy_folder::{NpyFolder, PaddedArray};
pub use open::{Loading, Store};
pub use store_writer::{Progress, StoreFiles};
pub use writer::{FinishedNpy, NpyWriter};
