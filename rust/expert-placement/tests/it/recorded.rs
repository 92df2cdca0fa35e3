//! What the crate answers for cases that are made the same everywhere, in a few words each.
//!
//! `recorded/answers.txt` beside this file holds the lines that every build on every machine has to give: the tests compare, and
//! `make determinism` does for builds of other kinds. A change of how plans are made shows there, and
//! `cargo run --release --example recorded_answers > rust/expert-placement/tests/it/recorded/answers.txt` records it.

#![allow(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_sign_loss,
    reason = "a build stops at the first case that can not be made"
)]

use std::fmt::{Display, Write as _};

use expert_placement::{
    Batch, Error, Loads, Migration, MigrationLimits, Options, Placement, Policy, Router, RoutingShape, Search,
    Topology, capacity, least_slots, plan_migration, plan_migration_within, rebalance,
};

const NUM_SMALL: u64 = 150;

/// Numbers that look random and are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 44).unwrap_or(0)
    }

    fn below(&mut self, end: u32) -> u32 {
        self.draw() % end
    }

    fn one_in(&mut self, number: u32) -> bool {
        self.below(number) == 0
    }

    /// A few heavy experts and many light ones; integers, so that no rounding of a library comes in.
    fn heavy(&mut self) -> f64 {
        let uniform = f64::from(self.draw());
        uniform * uniform
    }

    fn loads(&mut self, windows: usize, layers: usize, experts: usize) -> Result<Loads, Error> {
        Loads::new(windows, layers, experts, (0..windows * layers * experts).map(|_| self.heavy()).collect())
    }

    /// As `loads`, with equals and zeros among them.
    fn tied(&mut self, windows: usize, layers: usize, experts: usize) -> Result<Loads, Error> {
        let most = [1_000_000, 6, 2][usize::try_from(self.below(3)).unwrap_or(0)];
        let values = (0..windows * layers * experts).map(|_| f64::from(self.below(most))).collect();
        Loads::new(windows, layers, experts, values)
    }
}

/// A hash of numbers in their order.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn of<T: Into<u64>>(numbers: impl IntoIterator<Item = T>) -> Self {
        let mix = |hash: u64, number: T| (hash ^ number.into()).wrapping_mul(0x100_0000_01b3).rotate_left(29);
        Self(numbers.into_iter().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    fn of_floats<'a>(numbers: impl IntoIterator<Item = &'a f64>) -> Self {
        Self::of(numbers.into_iter().map(|number| number.to_bits()))
    }

    fn of_entries<'a>(entries: impl IntoIterator<Item = &'a i32>) -> Self {
        Self::of(entries.into_iter().map(|entry| *entry as u32))
    }
}

impl Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What was answered, or why not.
fn said<T: Display>(line: &mut String, what: &str, answer: Result<T, Error>) {
    let _ = match answer {
        Ok(answer) => write!(line, " | {what} {answer}"),
        Err(error) => write!(line, " | {what}: {error}"),
    };
}

fn hash_of_plan(plan: &Placement) -> Hash {
    Hash::of_entries(plan.physical_to_logical())
}

fn hash_of_migration(plan: &Migration) -> Result<Hash, Error> {
    let moves = plan.moves().iter().flat_map(|one| [one.layer, one.expert, one.source, one.destination]);
    let numbers = moves.chain(plan.batches().iter().copied()).chain(plan.write_batches().iter().copied());
    let shape = [plan.num_batches(), plan.num_staged(), plan.num_transfers(), usize::from(plan.is_interruption_safe())];
    let numbers = numbers.map(u64::from).chain(shape.map(|number| u64::try_from(number).unwrap_or(u64::MAX)));
    let bytes: Vec<u64> = (0..u64::try_from(plan.num_layers()).unwrap_or(0)).map(|layer| 3 + layer).collect();
    let traffic = plan.traffic(&bytes)?;
    Ok(Hash::of(numbers.chain(traffic.sent).chain(traffic.received)))
}

fn hash_of_report(plan: &Placement, loads: &Loads, groups: u32) -> Result<Hash, Error> {
    let mut numbers = Vec::new();
    for report in plan.report(loads)? {
        let floats = [report.mean, report.largest, report.lower_bound, report.gap(), report.balancedness()];
        numbers.extend(floats.map(f64::to_bits));
        numbers.extend([u64::from(report.busiest_rank), u64::from(report.bound.name().as_bytes()[0])]);
    }
    numbers.extend(plan.rank_loads(loads)?.iter().map(|number| number.to_bits()));
    numbers.extend(plan.off_node_fractions(loads, groups)?.iter().map(|number| number.to_bits()));
    numbers.push(plan.balancedness(loads)?.to_bits());
    Ok(Hash::of(numbers))
}

/// Slots, their numbers, and the order for some ids, by both ways of choosing replicas, with weights and without.
fn hash_of_routes(plan: &Placement, loads: &Loads, ids: &[i32]) -> Result<Hash, Error> {
    let weights = plan.split(loads)?.weights;
    let weights = weights.get(..plan.num_slots());
    let mut words = Vec::new();
    for (sender, weights) in [(None, None), (Some(0), None), (None, weights)] {
        let shape = RoutingShape::of(plan, weights.is_some())?;
        let mut table = vec![0; shape.len()];
        plan.write_routing_table(0, &shape, sender, weights, &mut table)?;
        let router = Router::new(shape, &table)?;
        let mut slots = vec![0; ids.len()];
        let batch = Batch::new(2).with_seed(5).with_token_offset(1_000).with_valid_tokens(ids.len() / 2 - 1);
        router.route(ids, &batch, &mut slots)?;
        words.extend_from_slice(&slots);
        if weights.is_none() {
            router.route_evenly(ids, &batch, &mut slots)?;
            words.extend_from_slice(&slots);
        }
        let (mut counts, mut offsets) = (vec![0; plan.num_slots()], vec![0; plan.num_slots() + 1]);
        router.count(&slots, &mut counts)?;
        Router::sum_up(&counts, &mut offsets)?;
        let (mut order, mut positions) = (slots.clone(), slots.clone());
        router.write_order(&slots, &offsets, &mut order, &mut positions)?;
        words.extend(table.iter().chain(&counts).chain(&offsets).chain(&order).chain(&positions));
    }
    Ok(Hash::of_entries(&words))
}

/// Plans of the size of models in use.
fn large(lines: &mut Vec<String>, num_threads: usize) -> Result<(), Error> {
    let mut numbers = Numbers(1);
    for (ranks, nodes, slots, experts, groups) in
        [(32, 1, 288, 256, 1), (64, 1, 320, 256, 1), (144, 1, 288, 256, 1), (32, 4, 320, 256, 8), (7, 1, 70, 64, 1)]
    {
        let topology = Topology::new(ranks, nodes)?;
        let mut options = Options::default();
        options.num_groups = groups;
        options.num_threads = num_threads;
        let mut show =
            |what: &str, answer: &dyn Display| lines.push(format!("{ranks} ranks, {slots} slots, {what} {answer}"));
        let loads = numbers.loads(1, 6, experts)?;
        let plan = rebalance(&loads, slots, &topology, &options)?;
        show("balanced", &plan.digest());
        show("windows", &rebalance(&numbers.loads(3, 2, experts)?, slots, &topology, &options)?.digest());
        let later = numbers.loads(1, 6, experts)?;
        let mut again = options;
        again.previous = Some(&plan);
        let next = rebalance(&later, slots, &topology, &again)?;
        show("again", &next.digest());
        show("the way there", &hash_of_migration(&plan_migration(&plan, &next)?)?);
        again.max_moves = Some(20);
        show("twenty moves", &rebalance(&later, slots, &topology, &again)?.digest());
        let speeds = (0..ranks).map(|rank| if rank % 3 == 0 { 0.75 } else { 1.25 }).collect();
        // Seven ranks have no room for all experts where one of them is out of service.
        let active = (0..ranks).map(|rank| rank != 1 || ranks < 8).collect();
        let uneven = Topology::new(ranks, nodes)?.with_speeds(speeds)?.with_active(active)?;
        show("uneven ranks", &rebalance(&loads, slots, &uneven, &options)?.digest());
        if slots % u64::from(ranks) == 0 {
            options.policy = Policy::Deepseek;
            show("deepseek", &rebalance(&loads, slots, &topology, &options)?.digest());
        }
    }
    Ok(())
}

/// Nodes, ranks and slots of a small case, some of them uneven, slow or out of service.
fn small_topology(numbers: &mut Numbers, experts: u32) -> Result<(Topology, u64), Error> {
    let nodes = 1 + numbers.below(3);
    let ranks = nodes * (1 + numbers.below(3)) + if numbers.one_in(3) { numbers.below(3) } else { 0 };
    let mut topology = Topology::new(ranks, nodes)?;
    let mut slots = u64::from(ranks * (experts.div_ceil(ranks) + numbers.below(3)));
    if numbers.one_in(3) {
        let mut uneven: Vec<u32> = (0..ranks).map(|_| numbers.below(6)).collect();
        let missing = (experts + 2).saturating_sub(uneven.iter().sum());
        if let Some(first) = uneven.first_mut() {
            *first += missing;
        }
        slots = uneven.iter().copied().map(u64::from).sum();
        topology = topology.with_slots(uneven)?;
    }
    if numbers.one_in(3) {
        topology =
            topology.with_speeds((0..ranks).map(|_| [0.5, 1.0, 2.0, 1.25][numbers.below(4) as usize]).collect())?;
    }
    if numbers.one_in(3) {
        topology = topology.with_active((0..ranks).map(|rank| rank == 0 || !numbers.one_in(4)).collect())?;
    }
    Ok((topology, slots))
}

/// One small case: everything that can be asked of it, refusals included.
fn small(case: u64, num_threads: usize) -> Result<String, Error> {
    let mut numbers = Numbers(case);
    let mut line = format!("case {case}");
    let (layers, windows) = (1 + numbers.below(3) as usize, 1 + numbers.below(2) as usize);
    let experts = 1 + numbers.below(17);
    let (topology, slots) = small_topology(&mut numbers, experts)?;
    let mut options = Options::default();
    options.num_threads = num_threads;
    options.num_groups = if numbers.one_in(2) { topology.num_nodes() * (1 + numbers.below(2)) } else { 1 };
    options.num_groups = if experts % options.num_groups == 0 { options.num_groups } else { 1 };
    let loads = numbers.tied(windows, layers, experts as usize)?;
    let later = numbers.tied(windows, layers, experts as usize)?;
    let ids: Vec<i32> = (0..60).map(|_| i32::try_from(numbers.below(experts + 1)).unwrap_or(0) - 1).collect();
    let with = |options: &Options<'_>, loads: &Loads| rebalance(loads, slots, &topology, options);

    let mut deepseek = options;
    deepseek.policy = Policy::Deepseek;
    let deepseek_plan = with(&deepseek, &loads);
    said(&mut line, "deepseek", deepseek_plan.as_ref().map(hash_of_plan).map_err(|error| *error));
    let plan = match with(&options, &loads) {
        Ok(plan) => plan,
        Err(error) => {
            said::<Hash>(&mut line, "balanced", Err(error));
            return Ok(line);
        }
    };
    said(&mut line, "balanced", Ok(hash_of_plan(&plan)));
    said(&mut line, "report", hash_of_report(&plan, &loads, options.num_groups));
    said(&mut line, "later", hash_of_report(&plan, &later, options.num_groups));
    let mut limited = options;
    limited.max_off_node = Some(f64::from(numbers.below(3)) * 0.2);
    said(&mut line, "near", with(&limited, &loads).as_ref().map(hash_of_plan).map_err(|error| *error));
    let mut again = options;
    again.previous = Some(&plan);
    let next = with(&again, &later)?;
    said(&mut line, "again", Ok(hash_of_plan(&next)));
    again.policy = Policy::Deepseek;
    said(&mut line, "deepseek again", with(&again, &later).as_ref().map(hash_of_plan).map_err(|error| *error));
    again.policy = Policy::Balanced;
    for budget in 0..4 {
        again.max_moves = Some(budget);
        said(&mut line, "moves", with(&again, &later).as_ref().map(hash_of_plan).map_err(|error| *error));
    }
    again.max_moves = None;
    again.min_gain = Some(0.01);
    said(&mut line, "gain", with(&again, &later).as_ref().map(hash_of_plan).map_err(|error| *error));
    again.max_off_node = Some(0.1);
    said(&mut line, "near gain", with(&again, &later).as_ref().map(hash_of_plan).map_err(|error| *error));
    said(&mut line, "way", plan_migration(&plan, &next).and_then(|way| hash_of_migration(&way)));
    let mut limits = MigrationLimits::default();
    for (transfers, staged) in [(Some(1), None), (Some(2), Some(2)), (None, Some(1))] {
        (limits.max_node_transfers, limits.max_staged) = (transfers, staged);
        let way = plan_migration_within(&plan, &next, limits).and_then(|way| hash_of_migration(&way));
        said(&mut line, "way within", way);
    }
    let split = plan.split(&loads)?;
    said(&mut line, "split", Ok(Hash::of_floats(split.weights.iter().chain(&split.largest))));
    said(&mut line, "routes", hash_of_routes(&plan, &loads, &ids));
    let best = capacity(&loads, slots, &topology, &options)?;
    said(&mut line, "capacity", Ok(Hash::of_floats([&best.balancedness, &best.most])));
    // Where ranks say how many slots they have, other numbers are refused.
    let search = Search::default();
    let found = least_slots(&loads, 0.8, search, &topology, &options, |_| Ok::<_, Error>(()));
    said(&mut line, "least slots", found.map(|found| found.num_slots));
    Ok(line)
}

/// All lines, as this build and so many threads answer.
///
/// # Errors
/// A case that can not be made.
pub(crate) fn answers(num_threads: usize) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    large(&mut lines, num_threads)?;
    for case in 0..NUM_SMALL {
        lines.push(small(case, num_threads)?);
    }
    Ok(lines)
}
