//! Routing of 4,096 tokens with 8 ids each over 256 experts in 288 slots, and the best weights of their replicas. Each
//! round asserts that the result is the first one.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use expert_placement::{Batch, Loads, Options, Placement, Router, RoutingShape, Topology, rebalance};

const IDS: usize = 4096 * 8;

fn placement() -> (Placement, Loads) {
    let load = |expert: i32| 1000.0 / f64::from(1 + (expert * 37) % 256);
    let loads = Loads::new(1, 1, 256, (0..256).map(load).collect()).unwrap();
    let topology = Topology::new(32, 4).unwrap();
    (rebalance(&loads, 288, &topology, &Options::default()).unwrap(), loads)
}

fn routing(criterion: &mut Criterion) {
    let (placement, loads) = placement();
    let shape = RoutingShape::of(&placement, false).unwrap();
    let mut table = vec![0; shape.len()];
    placement.write_routing_table(0, &shape, None, None, &mut table).unwrap();
    let router = Router::new(shape, &table).unwrap();
    let ids: Vec<i32> = (0..256).cycle().step_by(7).take(IDS).collect();
    let batch = Batch::new(8);
    let mut first = vec![0; IDS];
    router.route(&ids, &batch, &mut first).unwrap();

    let mut group = criterion.benchmark_group("4,096 tokens of 8 ids");
    group.throughput(Throughput::Elements(32_768));
    let mut slots = vec![0; IDS];
    group.bench_function("route", |bencher| {
        bencher.iter(|| router.route(&ids, &batch, &mut slots));
    });
    assert_eq!(slots, first);
    let mut counts = vec![0; 288];
    let mut offsets = vec![0; 289];
    let (mut order, mut positions) = (vec![0; IDS], vec![0; IDS]);
    group.bench_function("count and order", |bencher| {
        bencher.iter(|| {
            router.count(&slots, &mut counts)?;
            Router::sum_up(&counts, &mut offsets)?;
            router.write_order(&slots, &offsets, &mut order, &mut positions)
        });
    });
    assert_eq!(offsets.last(), Some(&32_768));
    group.finish();
    let split = placement.split(&loads).unwrap();
    criterion.bench_function("the best weights of one layer", |bencher| {
        bencher.iter(|| assert_eq!(placement.split(&loads).unwrap(), split));
    });
}

criterion_group!(benches, routing);
criterion_main!(benches);
