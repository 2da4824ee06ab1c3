//! Benchmarks of sampling, ranking and metrics: `cargo bench -p llmdirect-core --bench core [-- FILTER]`.
//!
//! Data of the size of Amazon Toys 2014: 19,412 users, 11,924 items, 8.6 interactions per user.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_main};
use llmdirect_core::ranking::{Collaborative, Form, Request, Scorer, rank};
use llmdirect_core::sampling::{AliasTable, Draw, sample_negatives};
use llmdirect_core::{Cancel, Csr, metrics, random::Stream};

const USERS: usize = 19_412;
const ITEMS: usize = 11_924;

/// A table of `rows` rows, each of the items that `draw` returns.
fn table(rows: usize, mut draw: impl FnMut() -> Vec<i32>) -> Csr {
    let (mut indptr, mut indices) = (vec![0], vec![]);
    for _ in 0..rows {
        let mut row = draw();
        row.sort_unstable();
        row.dedup();
        indices.extend(row);
        indptr.push(indices.len() as i64);
    }
    Csr::new(indptr, indices).expect("sorted and unique")
}

fn interactions(stream: &mut Stream) -> Csr {
    table(USERS, || {
        // Long-tailed distributions of users and items.
        let count = 5 + 120 / (1 + stream.below(100));
        (0..count)
            .map(|_| {
                let bound = 1 + stream.below(ITEMS as u32);
                stream.below(bound) as i32
            })
            .collect()
    })
}

fn numbers(stream: &mut Stream, count: usize, min: f32) -> Vec<f32> {
    let unit = |stream: &mut Stream| stream.below(1 << 24) as f32 / (1 << 24) as f32;
    (0..count)
        .map(|_| min + (1.0 - min) * unit(stream))
        .collect()
}

fn negatives(criterion: &mut Criterion) {
    let stream = &mut Stream::new(1, 0, 0);
    let positives = interactions(stream);
    let mut users: Vec<i32> = (0..USERS)
        .flat_map(|user| vec![user as i32; positives.row(user).len()])
        .collect();
    for at in (1..users.len()).rev() {
        users.swap(at, stream.below(at as u32 + 1) as usize);
    }
    let popularity = AliasTable::new(&numbers(stream, ITEMS, 0.0)).expect("positive weights");
    let mut group = criterion.benchmark_group("negatives");
    for (name, weights) in [("equal", None), ("weighted", Some(&popularity))] {
        for num_negatives in [1, 10] {
            let draw = Draw {
                num_items: ITEMS,
                num_negatives,
                weights,
                seed: 1,
                draw: 0,
            };
            group.throughput(Throughput::Elements((users.len() * num_negatives) as u64));
            group.bench_function(BenchmarkId::new(name, num_negatives), |bencher| {
                bencher.iter(|| sample_negatives(&users, &positives, draw, &Cancel::new()))
            });
        }
    }
}

fn ranking(criterion: &mut Criterion) {
    let stream = &mut Stream::new(2, 0, 0);
    let seen = interactions(stream);
    let users: Vec<i32> = (0..USERS as i32).collect();
    let request = Request {
        users: &users,
        k: 20,
        seen: Some(&seen),
        relevant: None,
    };
    let item_bias = numbers(stream, ITEMS, 0.0);
    let mut group = criterion.benchmark_group("ranking");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(USERS as u64));

    let (query, item) = (
        numbers(stream, USERS * 64, -1.0),
        numbers(stream, ITEMS * 64, -1.0),
    );
    let dot = Scorer {
        dim: 64,
        query: &query,
        item: &item,
        form: Form::Dot,
        item_bias: &item_bias,
        user_bias: None,
        num_users: USERS,
        collaborative: None,
    };
    group.bench_function("dot", |bencher| {
        bencher.iter(|| rank(&dot, request, &Cancel::new()))
    });
    let with_auc = Request {
        relevant: Some(&seen),
        seen: None,
        ..request
    };
    group.bench_function("dot and AUC", |bencher| {
        bencher.iter(|| rank(&dot, with_auc, &Cancel::new()))
    });

    let neighbours = table(ITEMS, || {
        (0..100)
            .map(|_| stream.below(ITEMS as u32) as i32)
            .collect()
    });
    let values = numbers(stream, neighbours.indices().len(), 0.0);
    let collaborative = Scorer {
        collaborative: Some(Collaborative {
            history: &seen,
            item_item: &neighbours,
            values: &values,
        }),
        ..dot
    };
    group.bench_function("dot and item-item", |bencher| {
        bencher.iter(|| rank(&collaborative, request, &Cancel::new()))
    });

    let (query, mass) = (
        numbers(stream, USERS * 5, 0.0),
        numbers(stream, ITEMS * 5, 0.1),
    );
    let item: Vec<f32> = mass
        .iter()
        .zip(numbers(stream, ITEMS * 5, -1.0))
        .map(|(mass, ratio)| mass * ratio)
        .collect();
    let ratio = Scorer {
        dim: 5,
        query: &query,
        item: &item,
        form: Form::Ratio {
            mass: &mass,
            eps: 5e-7,
        },
        ..dot
    };
    group.bench_function("ratio", |bencher| {
        bencher.iter(|| rank(&ratio, request, &Cancel::new()))
    });
}

fn list_metrics(criterion: &mut Criterion) {
    let stream = &mut Stream::new(3, 0, 0);
    let relevant = interactions(stream);
    let lists: Vec<i32> = (0..USERS)
        .flat_map(|_| {
            let first = stream.below(ITEMS as u32) as i32;
            (0..20).map(move |position| (first + position * 37) % ITEMS as i32)
        })
        .collect();
    let requests: Vec<_> = ["recall", "ndcg", "mrr", "map"]
        .map(|name| (metrics::by_name(name).expect("a metric"), 20))
        .to_vec();
    let mut group = criterion.benchmark_group("metrics");
    group.throughput(Throughput::Elements(USERS as u64));
    group.bench_function("four at 20", |bencher| {
        bencher.iter(|| {
            let lists = black_box(&lists);
            metrics::evaluate(lists, 20, &relevant, &requests, &Cancel::new())
        })
    });
}

/// Public functions generated by the macro.
#[allow(missing_docs)]
mod groups {
    use super::{list_metrics, negatives, ranking};
    criterion::criterion_group!(core, negatives, ranking, list_metrics);
}

criterion_main!(groups::core);
