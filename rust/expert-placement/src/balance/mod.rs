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
mod pack;
mod refine;
pub(crate) mod replicate;
pub(crate) mod shape;
mod state;
mod tournament;

use core::fmt;
use core::str::FromStr;

use rayon::prelude::*;

use crate::error::Error;
use crate::loads::Loads;
use crate::placement::{EMPTY, Placement};
use crate::refusal::{Place, Refusal};
use crate::topology::Topology;
use shape::Shape;
use state::{NONE, State};

/// A layer counts as balanced where its busiest rank takes at most this fraction more than the lower bound: the search
/// for something better ends there.
pub(crate) const TOLERANCE: f64 = 2e-4;

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
    pub const ALL: [Self; 2] = [Self::Balanced, Self::Deepseek];

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

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or_else(|| Error::unknown_policy(name))
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
    /// The placement to start from.
    pub previous: Option<&'a Placement>,
    /// How many threads share the layers; the result does not depend on it.
    pub num_threads: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { policy: Policy::default(), num_groups: 1, previous: None, num_threads: 1 }
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
    if shape.room < loads.num_experts() {
        return Err(Error::refused(Refusal::TooFewSlots {
            num_experts: experts,
            usable: u64::try_from(shape.room).unwrap_or(u64::MAX),
            num_slots,
            num_ranks: topology.num_ranks(),
            expert: 0,
            lost: false,
        }));
    }
    check_groups(options.num_groups, loads.num_experts())?;
    let hierarchy = hierarchy(loads, &shape, topology, options)?;
    let mut table = vec![EMPTY; loads.num_layers().saturating_mul(shape.num_slots)];
    if shape.num_slots > 0 {
        in_threads(
            options.num_threads,
            loads.num_layers(),
            &mut table,
            shape.num_slots,
            |layer, work: &mut Workspace, row| {
                work.plan(loads, layer, &shape, hierarchy.as_ref(), options, row);
            },
        )?;
    }
    Placement::new(experts, loads.num_layers(), topology.clone(), table)
}

fn check_groups(num_groups: u32, num_experts: usize) -> Result<(), Error> {
    let most = i128::from(u32::try_from(num_experts.max(1)).unwrap_or(u32::MAX));
    if num_groups == 0 || i128::from(num_groups) > most {
        return Err(Error::refused(Refusal::OutOfRange {
            place: Place::of("num_groups"),
            value: i128::from(num_groups),
            min: 1,
            max: most,
            because: "a group has at least one expert",
        }));
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
        // Where every rank can hold every expert there is nothing to compare.
        Policy::Balanced => Ok(built.ok().filter(|_| is_even && shape.room == shape.num_slots)),
    }
}

/// Calls `plan` for each layer with its row of the table, on as many threads; each thread has one workspace.
fn in_threads<W: Default + Send>(
    num_threads: usize,
    layers: usize,
    table: &mut [i32],
    width: usize,
    plan: impl Fn(usize, &mut W, &mut [i32]) + Sync + Send,
) -> Result<(), Error> {
    if num_threads <= 1 || layers == 1 {
        let mut work = W::default();
        for (layer, row) in table.chunks_mut(width).enumerate() {
            plan(layer, &mut work, row);
        }
        return Ok(());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads.min(layers)).build();
    let pool = pool.map_err(|_| Error::out_of_memory(u64::try_from(num_threads).unwrap_or(u64::MAX)))?;
    pool.install(|| {
        table.par_chunks_mut(width).enumerate().for_each_init(W::default, |work, (layer, row)| plan(layer, work, row));
    });
    Ok(())
}

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
struct Workspace {
    weights: Vec<f64>,
    singles: Vec<f32>,
    counts: Vec<u32>,
    state: State,
    replicate: replicate::Workspace,
    pack: pack::Workspace,
    refine: refine::Workspace,
    deepseek: deepseek::Workspace,
}

impl Workspace {
    /// Plans one layer.
    fn plan(
        &mut self,
        loads: &Loads,
        layer: usize,
        shape: &Shape,
        hierarchy: Option<&deepseek::Hierarchy>,
        options: &Options<'_>,
        out: &mut [i32],
    ) {
        loads.add_up(layer, &mut self.weights);
        if let Some(hierarchy) = hierarchy {
            self.singles.clear();
            self.singles.extend(self.weights.iter().map(|weight| *weight as f32));
            deepseek::place(&self.singles, hierarchy, &mut self.deepseek, out);
        }
        if options.policy == Policy::Deepseek {
            return;
        }
        // The field's packing is as good a start as any, unless it minds nodes or puts two replicas on one rank.
        let is_apart = hierarchy.is_some() && self.read(shape, out);
        let field = hierarchy.map(|_| self.state.largest());
        let is_start = is_apart && shape.num_nodes == 1;
        if !is_start {
            replicate::replicate(&self.weights, shape, &mut self.replicate, &mut self.counts);
            self.state.begin(&self.weights, &self.counts, shape);
            pack::pack(shape, &mut self.pack, &mut self.state);
        }
        let least = shape.least_time(self.weights.iter().sum());
        let largest_share = replicate::largest_share(&self.weights, &self.state.counts);
        let target = least.max(largest_share / shape.largest_speed) * (1.0 + TOLERANCE);
        refine::refine(target, shape, &mut self.refine, &mut self.state);
        if is_start || field.is_none_or(|field| self.state.largest() <= field) {
            write(&self.state, shape, out);
        }
    }

    /// The state that a row of the table describes, into `state`; whether it has no two replicas of an expert on a rank.
    fn read(&mut self, shape: &Shape, row: &[i32]) -> bool {
        self.counts.clear();
        self.counts.resize(self.weights.len(), 0);
        for entry in row.iter().filter(|entry| **entry != EMPTY) {
            self.counts[*entry as usize] += 1;
        }
        self.state.begin(&self.weights, &self.counts, shape);
        let mut is_apart = true;
        for (index, bin) in shape.bins.iter().enumerate() {
            let first = self.state.first[index];
            for (place, entry) in (first..).zip(&row[bin.start..bin.start + bin.room]) {
                let item = if *entry == EMPTY { NONE } else { *entry as u32 };
                is_apart &= item == NONE || !self.state.holds(index, item);
                self.state.items[place] = item;
                self.state.set_holder(index, item, true);
            }
            self.state.settle(index, bin.speed);
        }
        is_apart
    }
}

/// Writes the slots of a state: each rank's experts ascending, empty slots last.
fn write(state: &State, shape: &Shape, out: &mut [i32]) {
    out.fill(EMPTY);
    for (index, bin) in shape.bins.iter().enumerate() {
        let slots = &mut out[bin.start..bin.start + bin.room];
        for (slot, item) in slots.iter_mut().zip(state.items_of(index)) {
            *slot = if *item == NONE { EMPTY } else { *item as i32 };
        }
        // As unsigned numbers, so that -1 comes last.
        slots.sort_unstable_by_key(|entry| *entry as u32);
    }
}
