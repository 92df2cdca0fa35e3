//! Where the replicas of every expert should live. SPEC.md, "Rebalancing".

#![expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "plans are made of indices into tables that are laid out here, from sizes that were checked to fit 31 bits"
)]

mod deepseek;
mod nodes;
mod pack;
mod plan;
mod recount;
mod refine;
pub(crate) mod replicate;
pub(crate) mod shape;
mod state;
mod tournament;
mod trial;
mod warm;
mod windows;

use core::fmt;
use core::str::FromStr;
use core::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::capacity::fewest_slots;
use crate::error::Error;
use crate::limits::{MAX_PLANNED_PAIRS, MAX_PLANNED_SLOTS};
use crate::loads::Loads;
use crate::placement::{EMPTY, Placement};
use crate::refusal::{Place, Refusal};
use crate::topology::Topology;
use plan::{Groups, Job, Warm, Workspace};
use shape::Shape;
use warm::Offer;

/// Which rule plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Replicas by the rule that is optimal for the largest one, packing, and local search; never worse than the other.
    #[default]
    Balanced,
    /// The algorithm of DeepSeek's EPLB, which the engines run, with its ties stated.
    Deepseek,
}

impl Policy {
    /// Every policy, in the order in which messages list them.
    pub const ALL: &'static [Self] = &[Self::Balanced, Self::Deepseek];

    /// The name used in files, on the command line and in Python.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Deepseek => "deepseek",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Policy {
    type Err = Error;

    /// The policy of this name, which is matched to the letter.
    ///
    /// # Errors
    /// A name that is none of [`Policy::ALL`]; the error lists them.
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|policy| policy.name() == name).ok_or_else(|| Error::unknown_policy(name))
    }
}

/// What a rebalance may be told beside loads, slots and topology.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options<'a> {
    /// Which rule plans.
    pub policy: Policy,
    /// Groups of experts that routing chooses among, G; 1 where it does not.
    pub num_groups: u32,
    /// The placement to start from: replicas stay where they are, as far as that costs no balance.
    pub previous: Option<&'a Placement>,
    /// How many experts may come to a rank that did not hold them, in the whole model; as many as it takes without it.
    pub max_moves: Option<u64>,
    /// What a move must bring at least: the busiest ranks' times that it saves, over the sum of the mean times.
    pub min_gain: Option<f64>,
    /// Which part of a layer's load may be served off the home nodes of its groups, in `0.0 ..= 1.0`.
    ///
    /// It applies where there are several nodes and they divide the groups. Without it the limit is [`MAX_OFF_NODE`], which
    /// is exceeded where whole groups do not fit on nodes.
    pub max_off_node: Option<f64>,
    /// How many threads share the layers; the result does not depend on it.
    pub num_threads: usize,
    /// Ends the call between two layers with an error, once another thread has set it: [`Error::is_interrupted`].
    pub stop: Option<&'a AtomicBool>,
}

/// Which part of a layer's load may be served off node without other word.
pub const MAX_OFF_NODE: f64 = 0.15;

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            num_groups: 1,
            previous: None,
            max_moves: None,
            min_gain: None,
            max_off_node: None,
            num_threads: 1,
            stop: None,
        }
    }
}

/// Plans a placement of every expert for measured loads.
///
/// # Errors
/// Fewer usable slots than experts, numbers that do not divide where the policy needs it, groups that do not divide the
/// experts, or a previous placement of another shape.
pub fn rebalance(
    loads: &Loads,
    num_slots: u64,
    topology: &Topology,
    options: &Options<'_>,
) -> Result<Placement, Error> {
    let shape = Shape::new(topology, num_slots, loads.num_experts())?;
    let experts = u32::try_from(loads.num_experts()).unwrap_or(u32::MAX);
    let most_slots = MAX_PLANNED_SLOTS / u64::try_from(loads.num_layers()).unwrap_or(u64::MAX);
    if num_slots > most_slots {
        return Err(Error::refused(Refusal::OutOfRange {
            place: Place::of("num_slots"),
            value: i128::from(num_slots),
            min: 0,
            max: i64::try_from(most_slots).unwrap_or(i64::MAX),
            because: "a plan has at most 2^28 slots in all layers",
        }));
    }
    if let Some(previous) = options.previous {
        expect_previous(previous, loads, num_slots, topology)?;
    }
    if shape.room < loads.num_experts() {
        let lost = options.previous.and_then(|previous| lost_expert(previous, &shape));
        return Err(Error::refused(Refusal::TooFewSlots {
            num_experts: experts,
            usable: u64::try_from(shape.room).unwrap_or(u64::MAX),
            num_slots,
            enough: fewest_slots(topology, loads.num_experts(), topology.num_ranks().into()).ok(),
            lost,
        }));
    }
    let most_ranks = MAX_PLANNED_PAIRS / u64::from(experts.max(1));
    if u64::try_from(shape.bins.len()).is_ok_and(|ranks| ranks > most_ranks) {
        return Err(Error::refused(Refusal::OutOfRange {
            place: Place::of("num_ranks"),
            value: topology.num_ranks().into(),
            min: 1,
            max: i64::try_from(most_ranks).unwrap_or(i64::MAX),
            because: "a plan has at most 2^31 pairs of an expert and a usable rank",
        }));
    }
    check_groups(options.num_groups, loads.num_experts())?;
    check_limits(options)?;
    let hierarchy = hierarchy(loads, &shape, topology, options)?;
    let groups = kept_groups(loads.num_experts(), &shape, options)?;
    let mut table = vec![EMPTY; loads.num_layers().saturating_mul(shape.num_slots)];
    if shape.num_slots > 0 {
        let job = Job { loads, shape: &shape, hierarchy: hierarchy.as_ref(), policy: options.policy, groups };
        if let (Policy::Deepseek, Some(previous)) = (options.policy, options.previous) {
            let plan = |layer, work: &mut Workspace, row: &mut [i32]| {
                work.plan_in_place(&job, layer, previous.row(layer), row);
            };
            in_threads(options, &mut table, shape.num_slots, plan)?;
        } else if let Some(previous) = options.previous {
            from_previous(&job, options, previous, &mut table)?;
        } else {
            let plan = |layer, work: &mut Workspace, row: &mut [i32]| work.plan(&job, layer, row);
            in_threads(options, &mut table, shape.num_slots, plan)?;
        }
    }
    let plan = Placement::new(experts, loads.num_layers(), topology.clone(), table)?;
    if let Some(part) = options.max_off_node.filter(|_| options.max_moves.is_none() && options.min_gain.is_none()) {
        let fractions = plan.off_node_fractions(loads, options.num_groups)?;
        let over = fractions.iter().enumerate().find(|(_, fraction)| **fraction > part + 1e-9);
        if let Some((layer, fraction)) = over {
            let (limit, least) = (part.to_bits(), fraction.to_bits());
            return Err(Error::refused(Refusal::OffNode { limit, layer, least }));
        }
    }
    Ok(plan)
}

/// Fills the table from a placement that is there: what every layer could become, then what the moves are spent on.
fn from_previous(job: &Job<'_>, options: &Options<'_>, previous: &Placement, table: &mut [i32]) -> Result<(), Error> {
    let mut layers: Vec<Warm> = Vec::new();
    layers.resize_with(job.loads.num_layers(), Warm::default);
    in_threads(options, &mut layers, 1, |layer, work: &mut Workspace, warm| {
        for warm in warm {
            *warm = work.plan_from(job, layer, previous.row(layer));
        }
    })?;
    let chosen = choose(&layers, job, options)?;
    in_threads(options, table, job.shape.num_slots, |layer, work: &mut Workspace, row| {
        let warm = &layers[layer];
        work.realise(job, layer, warm, &warm.way.offers[chosen[layer]], previous.row(layer), row);
    })
}

/// The offer that each layer takes.
fn choose(layers: &[Warm], job: &Job<'_>, options: &Options<'_>) -> Result<Vec<usize>, Error> {
    if options.max_moves.is_none() && options.min_gain.is_none() {
        // As good as from nothing, with the fewest moves.
        let cheapest = |warm: &Warm| {
            let good = warm
                .way
                .offers
                .iter()
                .enumerate()
                .filter(|(_, offer)| offer.off_node <= warm.limit && offer.time <= warm.target * (1.0 + 1e-12));
            good.min_by_key(|(_, offer)| offer.moves).map_or(0, |(index, _)| index)
        };
        return Ok(layers.iter().map(cheapest).collect());
    }
    let needed: usize = layers.iter().map(|warm| warm.way.offers.first().map_or(0, |offer| offer.moves)).sum();
    let budget = options.max_moves.map_or(usize::MAX, |moves| usize::try_from(moves).unwrap_or(usize::MAX));
    if budget < needed {
        return Err(Error::refused(Refusal::OutOfRange {
            place: Place::of("max_moves"),
            value: i128::from(u64::try_from(budget).unwrap_or(u64::MAX)),
            min: i64::try_from(needed).unwrap_or(i64::MAX),
            max: i64::MAX,
            because: "experts without a live replica need that many",
        }));
    }
    let mut means = 0.0;
    for layer in 0..job.loads.num_layers() {
        for window in 0..job.loads.num_windows() {
            means += job.shape.mean_time(job.loads.row(window, layer).iter().sum());
        }
    }
    if budget == needed {
        // Nothing can be spent, and so nothing changes that need not.
        return Ok(vec![0; layers.len()]);
    }
    let offers: Vec<Vec<Offer>> =
        layers.iter().map(|warm| warm.way.worthwhile(warm.limit.max(warm.was_off_node))).collect();
    let chosen = warm::spend(&offers, budget, options.min_gain.filter(|gain| *gain > 0.0).map(|gain| gain * means));
    // Back to the places among all offers.
    let place = |(layer, index): (usize, usize)| {
        let wanted = offers[layer][index];
        layers[layer].way.offers.iter().position(|offer| *offer == wanted).unwrap_or(0)
    };
    Ok(chosen.into_iter().enumerate().map(place).collect())
}

fn check_limits(options: &Options<'_>) -> Result<(), Error> {
    let needs = "the placement to start from, previous";
    if options.previous.is_none() && (options.max_moves.is_some() || options.min_gain.is_some()) {
        let limit = if options.max_moves.is_some() { "max_moves" } else { "min_gain" };
        return Err(Error::refused(Refusal::Needs { parameter: limit, needs }));
    }
    if options.policy == Policy::Deepseek && (options.max_moves.is_some() || options.min_gain.is_some()) {
        let needs = "no max_moves and no min_gain: it knows nothing of moves";
        return Err(Error::refused(Refusal::Unsupported { policy: "deepseek", needs }));
    }
    match options.min_gain {
        Some(gain) if !(gain.is_finite() && gain >= 0.0) => Err(Error::refused(Refusal::BadNumber {
            place: Place::of("min_gain"),
            bits: gain.to_bits(),
            expected: "a finite number of at least 0",
        })),
        _ => Ok(()),
    }
}

fn expect_previous(previous: &Placement, loads: &Loads, num_slots: u64, topology: &Topology) -> Result<(), Error> {
    let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let pairs = [
        ("num_layers", number(previous.num_layers()), number(loads.num_layers())),
        ("num_experts", previous.num_experts().into(), number(loads.num_experts())),
        ("num_slots", number(previous.num_slots()), num_slots),
        ("num_ranks", previous.num_ranks().into(), topology.num_ranks().into()),
    ];
    for (what, left_value, right_value) in pairs {
        if left_value != right_value {
            let (left, right) = ("previous", "the plan");
            return Err(Error::refused(Refusal::Mismatch { left, right, what, left_value, right_value }));
        }
    }
    let offsets = topology.slot_offsets(num_slots)?;
    let differs = previous.slot_offsets().iter().zip(&offsets).enumerate().find(|(_, (left, right))| left != right);
    match differs {
        None => Ok(()),
        Some((rank, (left, right))) => Err(Error::refused(Refusal::Mismatch {
            left: "previous",
            right: "the plan",
            what: "the start of a rank's slots",
            left_value: u64::from(*left),
            right_value: u64::from(*right),
        })
        .at(rank)),
    }
}

/// An expert that no usable rank holds any more, and the layer.
fn lost_expert(previous: &Placement, shape: &Shape) -> Option<(usize, u32)> {
    (0..previous.num_layers()).find_map(|layer| {
        let row = previous.row(layer);
        let held = |expert: i32| shape.bins.iter().any(|bin| row[bin.start..bin.start + bin.slots].contains(&expert));
        (0..previous.num_experts()).find(|expert| !held(*expert as i32)).map(|expert| (layer, expert))
    })
}

pub(crate) fn check_groups(num_groups: u32, num_experts: usize) -> Result<(), Error> {
    let most = i64::try_from(num_experts.max(1)).unwrap_or(i64::MAX);
    if num_groups == 0 || i64::from(num_groups) > most {
        return Err(Error::refused(Refusal::OutOfRange {
            place: Place::of("num_groups"),
            value: i128::from(num_groups),
            min: 1,
            max: most,
            because: "a group has at least one expert",
        }));
    }
    let (experts, groups) = (u64::try_from(num_experts).unwrap_or(u64::MAX), u64::from(num_groups));
    if experts % groups != 0 {
        let (parameter, by) = ("num_experts", "num_groups");
        return Err(Error::refused(Refusal::NotDivisible { parameter, value: experts, by, divisor: groups }));
    }
    Ok(())
}

/// The hierarchy of the field's algorithm: needed for its policy, and for the comparison with it where it applies.
fn hierarchy(
    loads: &Loads,
    shape: &Shape,
    topology: &Topology,
    options: &Options<'_>,
) -> Result<Option<deepseek::Hierarchy>, Error> {
    let (ranks, nodes) = (topology.num_ranks() as usize, topology.num_nodes() as usize);
    let is_even = topology.active().is_none()
        && shape.is_even_speed
        && shape.bins.len() == ranks
        && shape.bins.iter().enumerate().all(|(rank, bin)| bin.start * ranks == rank * shape.num_slots);
    let built =
        deepseek::Hierarchy::new(loads.num_experts(), shape.num_slots, ranks, nodes, options.num_groups as usize);
    match options.policy {
        Policy::Deepseek => {
            let built = built?;
            if !is_even && shape.num_slots > 0 {
                let needs = "equal slots, equal speeds and all ranks active";
                return Err(Error::refused(Refusal::Unsupported { policy: "deepseek", needs }));
            }
            Ok(Some(built))
        }
        Policy::Balanced => Ok(built.ok().filter(|_| is_even)),
    }
}

/// The groups that a plan keeps at home: those that whole nodes can share, as in the field's algorithm.
fn kept_groups(num_experts: usize, shape: &Shape, options: &Options<'_>) -> Result<Option<Groups>, Error> {
    if let Some(part) = options.max_off_node {
        if !(0.0..=1.0).contains(&part) {
            return Err(Error::refused(Refusal::BadNumber {
                place: Place::of("max_off_node"),
                bits: part.to_bits(),
                expected: "a number in 0.0..=1.0",
            }));
        }
        if options.policy == Policy::Deepseek {
            let needs = "no max_off_node: with groups that nodes divide it serves nothing off node";
            return Err(Error::refused(Refusal::Unsupported { policy: "deepseek", needs }));
        }
    }
    let number = options.num_groups as usize;
    let is_kept = options.policy == Policy::Balanced && number > 1 && number % shape.num_nodes == 0;
    if !is_kept && options.max_off_node.is_some() {
        let because = "without groups max_off_node limits nothing";
        return Err(Error::refused(match number {
            0 | 1 if num_experts < 2 => Refusal::Unsupported {
                policy: "balanced",
                needs: "no max_off_node for fewer than two experts, which make no groups",
            },
            0 | 1 => Refusal::OutOfRange {
                place: Place::of("num_groups"),
                value: i128::from(options.num_groups),
                min: 2,
                max: i64::try_from(num_experts).unwrap_or(i64::MAX),
                because,
            },
            _ => Refusal::NotDivisible {
                parameter: "num_groups",
                value: options.num_groups.into(),
                by: "num_nodes",
                divisor: u64::try_from(shape.num_nodes).unwrap_or(u64::MAX),
            },
        }));
    }
    let max_off_node = options.max_off_node.unwrap_or(MAX_OFF_NODE);
    Ok((is_kept && shape.num_nodes > 1).then_some(Groups { number, max_off_node }))
}

/// Calls `plan` for each layer with its part of a table, on as many threads; each thread has one workspace.
fn in_threads<W: Default + Send, T: Send>(
    options: &Options<'_>,
    table: &mut [T],
    width: usize,
    plan: impl Fn(usize, &mut W, &mut [T]) + Sync + Send,
) -> Result<(), Error> {
    let layers = table.len() / width;
    let is_stopped = || options.stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
    // More threads than processors bring nothing; two share the layers even of one, so that the result with threads is
    // the one that is tested wherever it runs.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let num_threads = options.num_threads.min(layers).min(processors.max(2));
    if num_threads <= 1 {
        let mut work = W::default();
        for (layer, part) in table.chunks_mut(width).enumerate() {
            if is_stopped() {
                return Err(Error::interrupted());
            }
            plan(layer, &mut work, part);
        }
        return Ok(());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build();
    let pool = pool.map_err(|_| Error::out_of_memory(u64::try_from(num_threads).unwrap_or(u64::MAX)))?;
    pool.install(|| {
        table.par_chunks_mut(width).enumerate().for_each_init(W::default, |work, (layer, part)| {
            if !is_stopped() {
                plan(layer, work, part);
            }
        });
    });
    if is_stopped() { Err(Error::interrupted()) } else { Ok(()) }
}
