//! How long one answer takes, and how long a whole table, beside the plainest loop that gives the same result.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use expert_placement::{ABSENT, Partition, Strategy};

const SIZES: [usize; 3] = [8, 256, 4096];
const RANKS: u32 = 7;

fn scalars(c: &mut Criterion) {
    for &strategy in Strategy::ALL {
        let p = Partition::new(black_box(256), black_box(RANKS), strategy).unwrap();
        let mut group = c.benchmark_group(format!("scalar/{strategy}"));
        group.bench_function("start", |b| b.iter(|| p.start(black_box(5))));
        group.bench_function("count", |b| b.iter(|| p.count(black_box(5))));
        group.bench_function("owner", |b| b.iter(|| p.owner(black_box(137))));
        group.bench_function("local_index", |b| b.iter(|| p.local_index(black_box(137))));
        group.finish();
    }
}

fn maps(c: &mut Criterion) {
    let mut group = c.benchmark_group("expert_map");
    for size in SIZES {
        let p = Partition::new(size.try_into().unwrap(), RANKS, Strategy::Linear).unwrap();
        let (mut ours, mut plain) = (vec![0; size], vec![0; size]);
        let by_owner = |out: &mut [i32]| {
            for (entry, expert) in out.iter_mut().zip(0..) {
                let owned = p.owner(expert) == Ok(5);
                *entry = if owned { p.local_index(expert).unwrap().try_into().unwrap() } else { ABSENT };
            }
        };
        p.write_expert_map(5, &mut ours).unwrap();
        by_owner(&mut plain);
        assert_eq!(ours, plain);
        group.bench_function(BenchmarkId::new("write_expert_map", size), |b| {
            b.iter(|| p.write_expert_map(black_box(5), black_box(&mut ours)));
        });
        group.bench_function(BenchmarkId::new("owner_of_each_expert", size), |b| {
            b.iter(|| by_owner(black_box(&mut plain)));
        });
    }
    group.finish();
}

criterion_group!(benches, scalars, maps);
criterion_main!(benches);
