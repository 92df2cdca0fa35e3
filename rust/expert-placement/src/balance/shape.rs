//! The ranks that a plan may use: active ones with slots, and how many different experts each can hold.

use super::nodes::Homes;
use crate::error::Error;
use crate::partition::to_usize;
use crate::topology::Topology;

/// One usable rank.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bin {
    /// The first of its slots.
    pub(crate) start: usize,
    /// How many slots it has.
    pub(crate) slots: usize,
    /// How many experts it can hold: its slots, or E where that is less, since a second replica brings a rank nothing.
    pub(crate) room: usize,
    pub(crate) speed: f64,
    pub(crate) node: usize,
}

/// All usable ranks, in ascending order.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) bins: Vec<Bin>,
    /// The sum of all rooms.
    pub(crate) room: usize,
    pub(crate) num_slots: usize,
    /// The speed of all active ranks together, those without slots included.
    pub(crate) active_speed: f64,
    /// The speed of all usable ranks together.
    pub(crate) total_speed: f64,
    pub(crate) largest_speed: f64,
    pub(crate) is_even_speed: bool,
    pub(crate) num_nodes: usize,
    /// How many usable ranks each node has.
    pub(crate) bins_of_node: Vec<usize>,
    /// Where the experts of one layer are at home, if it matters.
    pub(crate) homes: Option<Homes>,
}

impl Shape {
    /// The usable ranks of a topology with so many slots.
    pub(crate) fn new(topology: &Topology, num_slots: u64, num_experts: usize) -> Result<Self, Error> {
        let offsets = topology.slot_offsets(num_slots)?;
        let mut bins = Vec::new();
        let mut active_speed = 0.0;
        for (rank, (start, end)) in (0..topology.num_ranks()).zip(offsets.iter().zip(offsets.iter().skip(1))) {
            let (start, end, index) = (to_usize(*start), to_usize(*end), to_usize(rank));
            if topology.is_active(index) {
                active_speed += topology.speed(index);
            }
            if topology.is_active(index) && start < end {
                let node = to_usize(topology.node_of(rank)?);
                let slots = end - start;
                bins.push(Bin { start, slots, room: slots.min(num_experts), speed: topology.speed(index), node });
            }
        }
        let num_slots = usize::try_from(num_slots).unwrap_or(usize::MAX);
        Ok(Self::of(bins, num_slots, to_usize(topology.num_nodes()), active_speed))
    }

    fn of(bins: Vec<Bin>, num_slots: usize, num_nodes: usize, active_speed: f64) -> Self {
        let mut bins_of_node = vec![0; num_nodes];
        for bin in &bins {
            bins_of_node[bin.node] += 1;
        }
        Self {
            active_speed,
            bins_of_node,
            room: bins.iter().map(|bin| bin.room).sum(),
            num_slots,
            total_speed: bins.iter().map(|bin| bin.speed).sum(),
            largest_speed: bins.iter().map(|bin| bin.speed).fold(0.0, f64::max),
            is_even_speed: bins.windows(2).all(|pair| pair[0].speed.to_bits() == pair[1].speed.to_bits()),
            num_nodes,
            homes: None,
            bins,
        }
    }

    /// The same for a layer whose experts are at home somewhere.
    pub(crate) fn with_homes(&self, homes: Homes) -> Self {
        Self { homes: Some(homes), ..self.clone() }
    }

    /// The usable ranks of one node by themselves, for so many experts.
    pub(crate) fn only(&self, node: usize, num_experts: usize) -> Self {
        let of_node = self.bins.iter().filter(|bin| bin.node == node);
        let bins: Vec<Bin> = of_node.map(|bin| Bin { node: 0, room: bin.room.min(num_experts), ..*bin }).collect();
        let speed = bins.iter().map(|bin| bin.speed).sum();
        Self::of(bins, self.num_slots, 1, speed)
    }

    /// The time of every active rank if all were equally busy.
    pub(crate) fn mean_time(&self, total_load: f64) -> f64 {
        if total_load > 0.0 { total_load / self.active_speed } else { 0.0 }
    }

    /// The least time that the busiest rank can take: all usable speed used evenly.
    pub(crate) fn least_time(&self, total_load: f64) -> f64 {
        if total_load > 0.0 { total_load / self.total_speed } else { 0.0 }
    }
}
