//! Checksums of a store's files, in a file of their own: opening a store does not read them.

use std::path::Path;

use super::chunk::{CHUNK_BYTES, Chunk, content_hash};
use super::files::{FileEntry, REBUILD, open_checked};
use super::writer::NpyWriter;
use crate::npy::{Dtype, Header};
use crate::{Error, Result};

/// Bytes of one chunk in the file: its length and its hash, uint64 each.
const RECORD: usize = 16;

/// Checks the chunks of a file: neither empty nor too long, covering all bytes, and those of its name.
pub(super) fn check(
    entry: &FileEntry,
    header: &Header,
    chunks: &[Chunk],
) -> std::result::Result<(), String> {
    let name = &entry.name;
    let sound = |chunk: &Chunk| (1..=CHUNK_BYTES as u64).contains(&chunk.bytes);
    if !chunks.iter().all(sound) {
        return Err(format!(
            "{name}: a checksum covers no bytes, or more than {CHUNK_BYTES}"
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
            "{name}: shape and checksums belong to a file named …{hash}"
        )),
    }
}

/// Header of the file with so many data bytes.
pub(super) fn file_header(bytes: u64) -> Header {
    Header {
        dtype: Dtype::U64,
        shape: vec![bytes as usize / RECORD, 2],
    }
}

/// Writes the chunks of all files, one file after the other: uint64 `[chunks, 2]`, bytes and XXH3.
///
/// # Errors
/// [`Error::Io`], a full disk among them.
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

/// The chunks of each of `files`, in the order in which they were written.
///
/// # Errors
/// [`Error::Data`] where the file is damaged or does not cover exactly these files.
pub(super) fn read<'a>(
    folder: &Path,
    entry: &FileEntry,
    files: impl Iterator<Item = &'a FileEntry>,
) -> Result<Vec<Vec<Chunk>>> {
    let path = folder.join(&entry.name);
    let wrong = |what: String| Error::data(&path, format!("{what}; {}", REBUILD));
    let header = file_header(entry.bytes);
    let (file, data_at) = open_checked(&path, &header)?;
    let mut bytes = vec![0; entry.bytes as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, data_at)
        .map_err(Error::io(&path))?;
    let own: Vec<Chunk> = bytes.chunks(CHUNK_BYTES).map(Chunk::of).collect();
    check(entry, &header, &own).map_err(wrong)?;
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let mut records = bytes.as_chunks::<RECORD>().0.iter().map(|record| Chunk {
        bytes: number(&record[..8]),
        hash: number(&record[8..]),
    });
    let mut all = Vec::new();
    for file in files {
        let (mut chunks, mut covered) = (Vec::new(), 0u64);
        while covered < file.bytes {
            let Some(chunk) = records.next() else {
                return Err(wrong(format!("ends before the checksums of {}", file.name)));
            };
            covered = covered.saturating_add(chunk.bytes);
            chunks.push(chunk);
        }
        all.push(chunks);
    }
    match records.len() {
        0 => Ok(all),
        more => Err(wrong(format!("holds {more} checksums of no file"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back_file_by_file_and_every_fault_is_told() {
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
        let run = |sizes: &[u64]| read(folder.path(), &written, files(sizes).iter());
        assert_eq!(
            run(&[0, 12, 3]).unwrap(),
            [vec![], chunks[..2].to_vec(), chunks[2..].to_vec()]
        );
        for (sizes, message) in [
            (&[12][..], "1 checksums of no file"),
            (&[12, 3, 1], "ends before the checksums of of-1"),
        ] {
            let error = run(sizes).unwrap_err().to_string();
            assert!(error.contains(message), "{error} lacks {message:?}");
        }
        let path = folder.path().join(&written.name);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(
            run(&[0, 12, 3])
                .unwrap_err()
                .to_string()
                .contains("belong to a file named")
        );
    }
}
