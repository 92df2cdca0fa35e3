//! Rebalancing at the size of DeepSeek-V3: 58 layers of 256 experts. Each round asserts that the result is the first one.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]

use criterion::{Criterion, criterion_group, criterion_main};
use expert_placement::{Loads, Options, Policy, Topology, rebalance};

/// Loads spread like real ones, without a generator of random numbers: exp of a sum of sines is lognormal enough.
fn loads(layers: usize, experts: usize) -> Loads {
    let mut seed = 7_u64;
    let mut uniform = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(seed >> 33).unwrap()) / f64::from(1_u32 << 31)
    };
    // The sum of twelve uniform numbers is nearly normal.
    let mut load = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
    let values = (0..layers * experts).map(|_| (0.8 * load()).exp() * 1000.0).collect();
    Loads::new(1, layers, experts, values).unwrap()
}

fn planners(criterion: &mut Criterion) {
    let loads = loads(58, 256);
    for (ranks, slots) in [(32, 288), (64, 320), (144, 288)] {
        let topology = Topology::new(ranks, 1).unwrap();
        for &policy in Policy::ALL {
            let mut options = Options::default();
            options.policy = policy;
            let plan = || rebalance(&loads, slots, &topology, &options);
            let first = plan();
            criterion.bench_function(&format!("{policy}, 58 x 256 on {slots} slots, {ranks} ranks"), |bencher| {
                bencher.iter(|| {
                    let again = plan();
                    assert_eq!(again, first);
                    again
                });
            });
        }
    }
}

criterion_group!(benches, planners);
criterion_main!(benches);
