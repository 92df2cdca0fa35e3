//! Prints the digests of some plans, so that builds for different CPUs can be compared.
//!
//! A plan is a function of its arguments alone. `make determinism` runs this once as it is built for any CPU, once for this
//! one with everything that it can do, and each with one thread and with three, and compares what they print.

use expert_placement::{Error, Loads, Migration, Options, Placement, Policy, Topology, plan_migration, rebalance};

/// Numbers that look random and are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // A few heavy experts and many light ones; integers, so that no rounding of a library comes in.
        let uniform = f64::from(u32::try_from(self.0 >> 44).unwrap_or(0));
        uniform * uniform
    }

    fn loads(&mut self, windows: usize, layers: usize, experts: usize) -> Result<Loads, Error> {
        Loads::new(windows, layers, experts, (0..windows * layers * experts).map(|_| self.next()).collect())
    }
}

/// A hash of all moves, and of when they are read and written.
fn digest(plan: &Migration) -> u64 {
    let moves = plan.moves().iter().flat_map(|one| [one.layer, one.expert, one.source, one.destination]);
    let numbers = moves.chain(plan.batches().iter().copied()).chain(plan.write_batches().iter().copied());
    numbers.fold(0xcbf2_9ce4_8422_2325, |hash, number| (hash ^ u64::from(number)).wrapping_mul(0x100_0000_01b3))
}

fn main() -> Result<(), Error> {
    let num_threads = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(1);
    let mut numbers = Numbers(1);
    for (ranks, nodes, slots, experts, groups) in
        [(32, 1, 288, 256, 1), (64, 1, 320, 256, 1), (144, 1, 288, 256, 1), (32, 4, 320, 256, 8), (7, 1, 70, 64, 1)]
    {
        let topology = Topology::new(ranks, nodes)?;
        let mut options = Options::default();
        options.num_groups = groups;
        options.num_threads = num_threads;
        let show = |what: &str, plan: &Placement| println!("{ranks} x {slots} {what}: {}", plan.digest());
        let loads = numbers.loads(1, 6, experts)?;
        let plan = rebalance(&loads, slots, &topology, &options)?;
        show("balanced", &plan);
        show("windows", &rebalance(&numbers.loads(3, 2, experts)?, slots, &topology, &options)?);
        let later = numbers.loads(1, 6, experts)?;
        let mut again = options;
        again.previous = Some(&plan);
        let next = rebalance(&later, slots, &topology, &again)?;
        show("again", &next);
        println!("{ranks} x {slots} the way there: {:016x}", digest(&plan_migration(&plan, &next)?));
        again.max_moves = Some(20);
        show("twenty moves", &rebalance(&later, slots, &topology, &again)?);
        let speeds = (0..ranks).map(|rank| if rank % 3 == 0 { 0.75 } else { 1.25 }).collect();
        // Seven ranks have no room for all experts where one of them is out of service.
        let active = (0..ranks).map(|rank| rank != 1 || ranks < 8).collect();
        let uneven = Topology::new(ranks, nodes)?.with_speeds(speeds)?.with_active(active)?;
        show("uneven ranks", &rebalance(&loads, slots, &uneven, &options)?);
        if slots % u64::from(ranks) == 0 {
            options.policy = Policy::Deepseek;
            show("deepseek", &rebalance(&loads, slots, &topology, &options)?);
        }
    }
    Ok(())
}
