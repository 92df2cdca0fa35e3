//! The field's own algorithm, DeepSeek's EPLB, with its ties stated. SPEC.md, "The policy `deepseek`".
//!
//! Groups of experts are packed into nodes, experts replicated inside each node, replicas packed into its ranks. Shares
//! are float32 and pack sums float64, as in the implementation that SGLang runs; ties go to the lower index, as its sort
//! does where it is stable.

use super::tournament::{OUT, Tournament, ascending, descending};
use crate::error::Error;
use crate::refusal::Refusal;

/// The numbers of the algorithm, each dividing the ones that it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    experts: usize,
    groups: usize,
    nodes: usize,
    ranks: usize,
    slots: usize,
}

impl Hierarchy {
    /// The hierarchy for so many groups and nodes; one of each where the nodes do not divide the groups.
    pub(super) fn new(
        experts: usize,
        num_slots: usize,
        ranks: usize,
        nodes: usize,
        groups: usize,
    ) -> Result<Self, Error> {
        let (groups, nodes) = if groups % nodes == 0 { (groups, nodes) } else { (1, 1) };
        let divides = |parameter, value: usize, by, divisor: usize| {
            if value % divisor == 0 {
                return Ok(());
            }
            let number = |value| u64::try_from(value).unwrap_or(u64::MAX);
            let (value, divisor) = (number(value), number(divisor));
            Err(Error::refused(Refusal::NotDivisible { parameter, value, by, divisor }))
        };
        divides("num_slots", num_slots, "num_ranks", ranks)?;
        divides("num_experts", experts, "num_groups", groups)?;
        divides("num_ranks", ranks, "num_nodes", nodes)?;
        Ok(Self { experts, groups, nodes, ranks, slots: num_slots / ranks })
    }
}

/// From this sum on, float32 has no room for sums of loads.
const MOST: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0; // 2^127
/// Below this largest load, float32 has few digits left for the others.
const LEAST: f64 = 7.888_609_052_210_118e-31; // 2^-100

/// The loads of a layer as float32: as they are, or times a power of two where they are out of its range.
pub(super) fn singles(weights: &[f64], out: &mut Vec<f32>) {
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let is_within = weights.iter().sum::<f64>() <= MOST && (largest >= LEAST || largest == 0.0);
    // The largest load becomes one in 0.5 .. 1; what has no exponent of its own is small enough for the most that is allowed.
    let exponent = ((largest.to_bits() >> 52) & 0x7ff) as i32 - 1022;
    let scale = if is_within { 1.0 } else { power_of_two((-exponent).min(1000)) };
    out.clear();
    out.extend(weights.iter().map(|weight| (*weight * scale) as f32));
}

/// 2^`exponent`, from its bits, since the precision of `powi` is the platform's; loads add up to at most 1e301, so that
/// the exponent is in -1002 ..= 1000.
const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    weights: Vec<f32>,
    group_sums: Vec<f32>,
    group_places: Vec<usize>,
    /// The expert at each place of the order in which nodes hold them.
    experts: Vec<usize>,
    counts: Vec<u32>,
    items: Vec<u32>,
    shares: Vec<f32>,
    places: Vec<usize>,
    keys: Vec<u64>,
    sums: Vec<f64>,
    sizes: Vec<usize>,
    tournament: Tournament,
}

/// Writes the expert of each slot of one layer.
pub(super) fn place(loads: &[f32], hierarchy: &Hierarchy, work: &mut Workspace, out: &mut [i32]) {
    let Hierarchy { groups, nodes, ranks, slots, experts } = *hierarchy;
    if experts == 0 {
        return;
    }
    let group_size = experts / groups;
    work.group_sums.clear();
    work.group_sums.extend(loads.chunks_exact(group_size).map(group_sum));
    let (group_sums, mut group_places) = (std::mem::take(&mut work.group_sums), std::mem::take(&mut work.group_places));
    pack(&group_sums, nodes, work, &mut group_places);
    work.group_sums = group_sums;
    work.experts.clear();
    work.experts.resize(experts, 0);
    for (group, &place) in group_places.iter().enumerate() {
        for within in 0..group_size {
            work.experts[place * group_size + within] = group * group_size + within;
        }
    }
    work.group_places = group_places;

    let (experts_a_node, slots_a_node) = (experts / nodes, ranks * slots / nodes);
    let mut places = std::mem::take(&mut work.places);
    for (node, out) in out.chunks_exact_mut(slots_a_node).enumerate() {
        let first = node * experts_a_node;
        work.weights.clear();
        work.weights.extend(work.experts[first..first + experts_a_node].iter().map(|expert| loads[*expert]));
        replicate(slots_a_node, work);
        let mut shares = std::mem::take(&mut work.shares);
        shares.clear();
        shares.extend(work.items.iter().map(|item| share(work, *item as usize)));
        pack(&shares, ranks / nodes, work, &mut places);
        work.shares = shares;
        for (&item, &place) in work.items.iter().zip(&places) {
            out[place] = work.experts[first + item as usize] as i32;
        }
    }
    work.places = places;
}

/// The load of a group: added up in float64 and rounded once.
fn group_sum(loads: &[f32]) -> f32 {
    loads.iter().map(|load| f64::from(*load)).sum::<f64>() as f32
}

fn share(work: &Workspace, item: usize) -> f32 {
    work.weights[item] / work.counts[item] as f32
}

/// Gives each of `slots` slots an item of `work.weights`: each item once in order, then again and again the one with the
/// largest share. The list of items is left in `work.items`, their numbers of replicas in `work.counts`.
fn replicate(slots: usize, work: &mut Workspace) {
    let number = work.weights.len();
    work.counts.clear();
    work.counts.resize(number, 1);
    work.items.clear();
    work.items.extend(0..number as u32);
    if slots == number {
        return;
    }
    work.tournament.fill(work.weights.iter().map(|weight| descending(f64::from(*weight))));
    for _ in number..slots {
        let item = work.tournament.winner();
        work.items.push(item as u32);
        work.counts[item] += 1;
        let share = share(work, item);
        work.tournament.set(item, descending(f64::from(share)));
    }
}

/// Packs weights into packs of equal size: in descending order, each into the pack of the least sum that has room. Writes
/// for each weight its place: the pack's number times the packs' size, and its position in the pack.
fn pack(weights: &[f32], packs: usize, work: &mut Workspace, places: &mut Vec<usize>) {
    let size = weights.len() / packs;
    places.clear();
    if size == 1 {
        places.extend(0..packs);
        return;
    }
    // The complement of a float's bits orders descending, and the index below them makes the order stable.
    work.keys.clear();
    let keys = weights.iter().zip(0_u64..).map(|(weight, index)| (u64::from(!weight.to_bits()) << 32) | index);
    work.keys.extend(keys);
    work.keys.sort_unstable();
    places.resize(weights.len(), 0);
    work.sums.clear();
    work.sums.resize(packs, 0.0);
    work.sizes.clear();
    work.sizes.resize(packs, 0);
    work.tournament.fill(work.sums.iter().map(|sum| ascending(*sum)));
    for key in &work.keys {
        let index = (key & 0xFFFF_FFFF) as usize;
        let pack = work.tournament.winner();
        places[index] = pack * size + work.sizes[pack];
        work.sizes[pack] += 1;
        work.sums[pack] += f64::from(weights[index]);
        let is_full = work.sizes[pack] == size;
        work.tournament.set(pack, if is_full { OUT } else { ascending(work.sums[pack]) });
    }
}
