//! The checksums file of a store. It is read only when files are verified, not when a store is opened.

use std::path::Path;

use super::chunk::{CHUNK_BYTES, Chunk, content_hash};
use super::files::{FileEntry, REBUILD, open_checked};
use super::writer::NpyWriter;
use crate::memory::filled;
use crate::npy::{Dtype, Header};
use crate::{Error, Result};

/// Size of a chunk's record in the file: number of bytes and hash, uint64 each.
const RECORD_BYTES: usize = 16;

/// Checks that the chunks of a file have valid lengths, cover all its data and match the hash in its name.
pub(super) fn check(
    entry: &FileEntry,
    header: &Header,
    chunks: &[Chunk],
) -> std::result::Result<(), String> {
    let name = &entry.name;
    let has_valid_length = |chunk: &Chunk| (1..=CHUNK_BYTES as u64).contains(&chunk.bytes);
    if !chunks.iter().all(has_valid_length) {
        return Err(format!(
            "{name}: a checksum covers 0 bytes, or more than {CHUNK_BYTES}"
        ));
    }
    let covered: u64 = chunks.iter().map(|c| c.bytes).sum();
    if covered != entry.bytes {
        let bytes = entry.bytes;
        return Err(format!(
            "{name}: checksums cover {covered} of {bytes} bytes"
        ));
    }
    let hash = format!("-{:016x}.npy", content_hash(header, chunks));
    match name.ends_with(&hash) {
        true => Ok(()),
        false => Err(format!(
            "{name}: its shape and checksums do not match its name, which should end in {hash}"
        )),
    }
}

/// The `.npy` header of a checksums file with `bytes` data bytes.
pub(super) fn file_header(bytes: u64) -> Header {
    Header {
        dtype: Dtype::U64,
        shape: vec![bytes as usize / RECORD_BYTES, 2],
    }
}

/// Writes the checksums file: for each chunk of all files in order, number of bytes and XXH3, uint64
/// `[chunks, 2]`.
///
/// # Errors
/// [`Error::Io`], for example if the disk is full.
pub fn write_checksums<'a>(
    folder: &Path,
    chunks: impl IntoIterator<Item = &'a Chunk>,
) -> Result<FileEntry> {
    let mut writer = NpyWriter::create(folder, "checksums", Dtype::U64, &[2])?;
    for chunk in chunks {
        writer.write(&chunk.bytes.to_le_bytes())?;
        writer.write(&chunk.hash.to_le_bytes())?;
    }
    Ok(writer.finish()?.commit()?.0)
}

/// Reads the chunks of each of `files`, in the order in which they were written.
///
/// # Errors
/// [`Error::Data`] if the file is damaged or does not cover exactly these files.
pub(super) fn read<'a>(
    folder: &Path,
    entry: &FileEntry,
    files: impl Iterator<Item = &'a FileEntry>,
) -> Result<Vec<Vec<Chunk>>> {
    let path = folder.join(&entry.name);
    let invalid = |what: String| Error::data(&path, format!("{what}; {REBUILD}"));
    let header = file_header(entry.bytes);
    let (file, data_offset) = open_checked(folder, &entry.name, &header)?;
    let mut bytes = filled(0, 1, entry.bytes as usize, "files.checksums.bytes")?;
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, data_offset)
        .map_err(Error::io(&path))?;
    let file_chunks: Vec<Chunk> = bytes.chunks(CHUNK_BYTES).map(Chunk::of).collect();
    check(entry, &header, &file_chunks).map_err(invalid)?;
    let parse_u64 = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let mut records = bytes
        .as_chunks::<RECORD_BYTES>()
        .0
        .iter()
        .map(|record| Chunk {
            bytes: parse_u64(&record[..8]),
            hash: parse_u64(&record[8..]),
        });
    let mut all = Vec::new();
    for file in files {
        let (mut chunks, mut covered) = (Vec::new(), 0u64);
        while covered < file.bytes {
            let Some(chunk) = records.next() else {
                return Err(invalid(format!(
                    "it ends before the last checksum of {}",
                    file.name
                )));
            };
            covered = covered.saturating_add(chunk.bytes);
            chunks.push(chunk);
        }
        all.push(chunks);
    }
    match records.len() {
        0 => Ok(all),
        extra => Err(invalid(format!(
            "it has {extra} checksums beyond those of the data files"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_read_by_file_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |bytes: u64| FileEntry {
            name: format!("of-{bytes}"),
            bytes,
            chunks: vec![],
        };
        let chunks: Vec<Chunk> = [7, 5, 3]
            .map(|bytes| Chunk {
                bytes,
                hash: !bytes,
            })
            .to_vec();
        let written = write_checksums(folder.path(), &chunks).unwrap();
        let files = |sizes: &[u64]| -> Vec<FileEntry> { sizes.iter().map(|&s| entry(s)).collect() };
        let read_sizes = |sizes: &[u64]| read(folder.path(), &written, files(sizes).iter());
        assert_eq!(
            read_sizes(&[0, 12, 3]).unwrap(),
            [vec![], chunks[..2].to_vec(), chunks[2..].to_vec()]
        );
        for (sizes, message) in [
            (&[12][..], "1 checksums beyond those of the data files"),
            (&[12, 3, 1], "ends before the last checksum of of-1"),
        ] {
            let error = read_sizes(sizes).unwrap_err().to_string();
            assert!(error.contains(message), "{error} lacks {message:?}");
        }
        let path = folder.path().join(&written.name);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(
            read_sizes(&[0, 12, 3])
                .unwrap_err()
                .to_string()
                .contains("do not match its name")
        );
    }
}
