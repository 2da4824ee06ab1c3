//! The embedding store without Python: `cargo bench -p llmdirect-core --bench store [-- FILTER]`.
//!
//! Documents of the published format, [512, 2304] float32 of 4.7 MB; files come from the page cache.

use std::fs;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_main};
use llmdirect_core::npy::{Dtype, Header};
use llmdirect_core::store::{Destination, FileEntry, Joined, Loading, Published, Store};
use llmdirect_core::{Cancel, random::Stream};

const DOCUMENTS: usize = 12;
const TOKENS: usize = 512;
const DIM: usize = 2304;
const BYTES: usize = DOCUMENTS * TOKENS * DIM * 4;

fn write_documents(folder: &Path) {
    let series = folder.join("user_embeddings");
    fs::create_dir(&series).expect("a new folder");
    let stream = &mut Stream::new(1, 0, 0);
    for number in 0..DOCUMENTS {
        let header = Header {
            dtype: Dtype::F32,
            shape: vec![TOKENS, DIM],
        };
        let mut bytes = header.to_bytes();
        for _ in 0..TOKENS * DIM {
            let value = stream.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0;
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        fs::write(series.join(format!("{number}.npy")), bytes).expect("written");
    }
}

/// What Python writes beside the data files.
fn write_manifest(folder: &Path, joined: &Joined) {
    let entry = |name: &str, file: &FileEntry| {
        format!(
            r#""{name}": {{"name": "{}", "bytes": {}}}"#,
            file.name, file.bytes
        )
    };
    let files = &joined.files;
    let named = [
        ("tokens", Some(&files.tokens)),
        ("offsets", Some(&files.offsets)),
        ("spans", Some(&files.spans)),
        ("keys", Some(&files.keys)),
        ("scales", files.scales.as_ref()),
        ("channels", files.channels.as_ref()),
        ("checksums", files.checksums.as_ref()),
    ];
    let entries: Vec<String> = named
        .into_iter()
        .filter_map(|(name, file)| Some(entry(name, file?)))
        .collect();
    let text = format!(
        r#"{{"format": "llmdirect-store", "version": 2, "dtype": "{}", "dim": {}, "rows": {}, "passages": {},
            "files": {{{}}}}}"#,
        joined.dtype.name(),
        joined.dim,
        joined.rows,
        joined.passages,
        entries.join(", ")
    );
    fs::write(folder.join("manifest.json"), text).expect("written");
}

fn store(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_documents(folder);
    let published = Published::open(folder).expect("documents");
    let cancel = &Cancel::new();
    let mut group = criterion.benchmark_group("store");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(8));
    for dtype in ["float32", "bfloat16", "float16", "int8"] {
        let out = folder.join(dtype);
        fs::create_dir(&out).expect("a new folder");
        let consolidate = || {
            let dtype = dtype.parse().expect("a dtype");
            published
                .write_store(&out, dtype, &mut |_| {}, cancel)
                .expect("written")
        };
        group.throughput(Throughput::Bytes(BYTES as u64));
        group.bench_function(
            BenchmarkId::new("consolidate documents", dtype),
            |bencher| bencher.iter(consolidate),
        );
        write_manifest(&out, &consolidate());

        let open = |loading, verify| Store::open(&out, loading, verify, cancel).expect("opened");
        let opened = open(Loading::Ram, false);
        let bytes = opened.tokens().len() as u64;
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(BenchmarkId::new("verify", dtype), |bencher| {
            bencher.iter(|| open(Loading::Map, true))
        });
        let passages: Vec<i64> = (0..DOCUMENTS as i64).rev().collect();
        let mut same = vec![0; bytes as usize];
        group.bench_function(BenchmarkId::new("gather", dtype), |bencher| {
            bencher.iter(|| opened.gather(&passages, None, Destination::Same(&mut same), cancel))
        });
        let mut float32 = vec![0.0; BYTES / 4];
        group.bench_function(BenchmarkId::new("gather as float32", dtype), |bencher| {
            bencher.iter(|| {
                let out = Destination::Float32(&mut float32);
                opened.gather(&passages, Some(TOKENS), out, cancel)
            })
        });
    }
}

/// Public functions of the macro's making.
#[allow(missing_docs)]
mod groups {
    use super::store;
    criterion::criterion_group!(benches, store);
}

criterion_main!(groups::benches);
