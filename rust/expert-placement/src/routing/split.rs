//! How much of an expert's load each replica should serve, so that the busiest rank is done as early as can be.
//! SPEC.md, "Weights of replicas".
//!
//! The least time z in which all load is served is the largest, over sets of ranks, of the load that these ranks alone
//! can serve over their speeds. It is found as a sequence of maximal flows from experts to ranks whose capacity is
//! z x speed: a flow that leaves load behind names a set of ranks that is too slow, whose own time is the next z.

use crate::error::Error;
use crate::expert_map::with_room;
use crate::loads::Loads;
use crate::partition::to_usize;
use crate::placement::Placement;

/// The parts of its expert's load that each slot serves, and the time of the busiest rank with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// For each layer and slot its part, in 0 ..= 1; those of one expert add up to 1. 0 for an empty slot.
    pub weights: Vec<f64>,
    /// For each layer the time of its busiest rank.
    pub largest: Vec<f64>,
}

/// What rounding leaves of a load, or of a rank's room, as a part of it.
const NEGLIGIBLE: f64 = 1e-14;

impl Placement {
    /// The parts of every expert's load that its replicas serve where the busiest rank of each layer is done as early as
    /// can be; windows are added up. It is within a part in 10^9 of that where speeds are within a factor of 10^4 of each
    /// other, and beyond within what float64 makes of sums of so different numbers.
    ///
    /// Replicas of an expert on one rank serve equal parts of what the rank serves, and an expert without load is split
    /// evenly. Of parts equally good those are given to which the flow comes that takes experts and ranks in the order
    /// of their ids.
    ///
    /// # Errors
    /// Loads of another shape, or too little memory.
    pub fn split(&self, loads: &Loads) -> Result<Split, Error> {
        self.expect_loads(loads)?;
        let mut weights = with_room(self.physical_to_logical().len())?;
        let mut largest = with_room(self.num_layers())?;
        let mut load = Vec::new();
        for layer in 0..self.num_layers() {
            loads.add_up(layer, &mut load);
            let mut flow = Flow::new(self, layer, &load)?;
            flow.solve();
            weights.extend(flow.weights(self.row(layer)));
            largest.push(flow.largest());
        }
        Ok(Split { weights, largest })
    }
}

/// An expert's replicas on one rank.
#[derive(Clone, Copy)]
struct Edge {
    expert: usize,
    rank: usize,
    /// How many slots it stands for.
    slots: f64,
    flow: f64,
}

/// Experts and ranks, the load of an expert that is not served yet, and the room of a rank that is left.
struct Flow {
    edges: Vec<Edge>,
    /// Edges of each expert, and of each rank.
    of_expert: Vec<Vec<usize>>,
    of_rank: Vec<Vec<usize>>,
    load: Vec<f64>,
    unserved: Vec<f64>,
    speed: Vec<f64>,
    served: Vec<f64>,
    time: f64,
    /// The largest load, by which all are divided.
    unit: f64,
}

impl Flow {
    fn new(placement: &Placement, layer: usize, load: &[f64]) -> Result<Self, Error> {
        let (experts, ranks) = (to_usize(placement.num_experts()), to_usize(placement.num_ranks()));
        let mut edges: Vec<Edge> = with_room(placement.num_slots())?;
        let mut of_expert = vec![Vec::new(); experts];
        let mut of_rank = vec![Vec::new(); ranks];
        for (slot, &entry) in placement.row(layer).iter().enumerate() {
            let Ok(expert) = usize::try_from(entry) else { continue };
            let rank = to_usize(placement.owner_of_slot(slot));
            let Some(own): Option<&mut Vec<usize>> = of_expert.get_mut(expert) else { continue };
            // Slots ascend, so that a second one on the same rank comes right after the first.
            match own.last().and_then(|last| edges.get_mut(*last)) {
                Some(edge) if edge.rank == rank => edge.slots += 1.0,
                _ => {
                    own.push(edges.len());
                    if let Some(own) = of_rank.get_mut(rank) {
                        own.push(edges.len());
                    }
                    edges.push(Edge { expert, rank, slots: 1.0, flow: 0.0 });
                }
            }
        }
        // Any unit will do: in this one the smallest floats are no matter.
        let unit = load.iter().copied().fold(0.0, f64::max);
        let load: Vec<f64> = load.iter().map(|load| if unit > 0.0 { load / unit } else { 0.0 }).collect();
        let speed = (0..ranks).map(|rank| placement.topology().speed(rank)).collect();
        Ok(Self {
            edges,
            of_expert,
            of_rank,
            unserved: load.clone(),
            load,
            speed,
            served: vec![0.0; ranks],
            time: 0.0,
            unit,
        })
    }

    fn solve(&mut self) {
        let everyone = vec![true; self.speed.len()];
        self.time = self.least_time(&everyone).unwrap_or(0.0);
        // Every time is that of another set of ranks, and larger; rounding alone could keep it from growing.
        loop {
            let reached = self.augment_all();
            let is_done = !(0..self.load.len()).any(|expert| self.is_unserved(expert));
            match self.least_time(&reached) {
                Some(time) if time > self.time && !is_done => self.time = time,
                _ => return self.serve_rest(),
            }
        }
    }

    fn is_unserved(&self, expert: usize) -> bool {
        self.unserved.get(expert).zip(self.load.get(expert)).is_some_and(|(rest, load)| *rest > load * NEGLIGIBLE)
    }

    fn is_serving(&self, edge: &Edge) -> bool {
        self.load.get(edge.expert).is_some_and(|load| edge.flow > load * NEGLIGIBLE)
    }

    /// What rounding has left without room goes to the rank that is done with it first, the lowest of equals.
    fn serve_rest(&mut self) {
        for expert in 0..self.load.len() {
            let rest = self.unserved.get(expert).copied().unwrap_or(0.0);
            if rest <= 0.0 {
                continue;
            }
            let done = |edge: &Edge| {
                let (served, speed) = (self.served.get(edge.rank), self.speed.get(edge.rank));
                served.zip(speed).map_or(f64::INFINITY, |(served, speed)| (served + rest) / speed)
            };
            let edges = self.of_expert.get(expert).map(Vec::as_slice).unwrap_or_default();
            let own = edges.iter().filter_map(|at| Some((*at, self.edges.get(*at)?)));
            let first = own.min_by(|(_, one), (_, other)| done(one).total_cmp(&done(other))).map(|(at, _)| at);
            let Some(edge) = first.and_then(|at| self.edges.get_mut(at)) else { continue };
            edge.flow += rest;
            if let Some(served) = self.served.get_mut(edge.rank) {
                *served += rest;
            }
        }
    }

    /// The time of the ranks of a set that hold anything, where they serve all load that they alone can serve.
    fn least_time(&self, ranks: &[bool]) -> Option<f64> {
        let is_in =
            |edge: &usize| self.edges.get(*edge).and_then(|edge| ranks.get(edge.rank)).copied().unwrap_or(false);
        let bound = self.of_expert.iter().zip(&self.load).filter(|(edges, _)| edges.iter().all(is_in));
        let load: f64 = bound.map(|(_, load)| *load).sum();
        let holding = self.of_rank.iter().zip(ranks).zip(&self.speed);
        let speed: f64 =
            holding.filter(|((edges, is_in), _)| **is_in && !edges.is_empty()).map(|(_, speed)| *speed).sum();
        if speed > 0.0 { Some(load / speed) } else { None }
    }

    /// What a rank can still serve; none where that is no more than rounding.
    fn room(&self, rank: usize) -> f64 {
        let capacity = self.speed.get(rank).map_or(0.0, |speed| self.time * speed);
        let room = capacity - self.served.get(rank).copied().unwrap_or(0.0);
        if room > capacity * NEGLIGIBLE { room } else { 0.0 }
    }

    /// Serves as much as there is room for. Returns the ranks that were reached from what stays unserved.
    fn augment_all(&mut self) -> Vec<bool> {
        loop {
            let paths = self.search();
            let Some(end) = paths.end else { return paths.reached };
            self.augment(&paths, end);
        }
    }

    /// A breadth-first search from all experts with unserved load, over ranks that hold them and back over what those
    /// serve of others, to the first rank with room.
    fn search(&self) -> Paths {
        let mut paths = Paths {
            end: None,
            reached: vec![false; self.speed.len()],
            to_rank: vec![usize::MAX; self.speed.len()],
            to_expert: vec![usize::MAX; self.load.len()],
        };
        let mut seen = vec![false; self.load.len()];
        let mut queue: std::collections::VecDeque<usize> = std::collections::VecDeque::new();
        for expert in 0..self.load.len() {
            if self.is_unserved(expert) {
                queue.push_back(expert);
                if let Some(seen) = seen.get_mut(expert) {
                    *seen = true;
                }
            }
        }
        while let Some(expert) = queue.pop_front() {
            for &at in self.of_expert.get(expert).map(Vec::as_slice).unwrap_or_default() {
                let Some(edge) = self.edges.get(at) else { continue };
                let (Some(reached), Some(to_rank)) =
                    (paths.reached.get_mut(edge.rank), paths.to_rank.get_mut(edge.rank))
                else {
                    continue;
                };
                if *reached {
                    continue;
                }
                (*reached, *to_rank) = (true, at);
                if self.room(edge.rank) > 0.0 {
                    paths.end = Some(edge.rank);
                    return paths;
                }
                for &back in self.of_rank.get(edge.rank).map(Vec::as_slice).unwrap_or_default() {
                    let Some(other) = self.edges.get(back).filter(|other| self.is_serving(other)) else {
                        continue;
                    };
                    if let (Some(seen), Some(to_expert)) =
                        (seen.get_mut(other.expert), paths.to_expert.get_mut(other.expert))
                    {
                        if !*seen {
                            (*seen, *to_expert) = (true, back);
                            queue.push_back(other.expert);
                        }
                    }
                }
            }
        }
        paths
    }

    /// Moves along the path to `end` what fits.
    fn augment(&mut self, paths: &Paths, end: usize) {
        let (mut rank, mut amount, mut path) = (end, self.room(end), Vec::new());
        let first = loop {
            let Some(&forward) = paths.to_rank.get(rank) else { return };
            let Some(expert) = self.edges.get(forward).map(|edge| edge.expert) else { return };
            let back = paths.to_expert.get(expert).copied().unwrap_or(usize::MAX);
            path.push((forward, back));
            let Some(edge) = self.edges.get(back) else { break expert };
            amount = amount.min(edge.flow);
            rank = edge.rank;
        };
        let Some(rest) = self.unserved.get_mut(first) else { return };
        amount = amount.min(*rest);
        *rest -= amount;
        for (forward, back) in path {
            if let Some(edge) = self.edges.get_mut(forward) {
                edge.flow += amount;
            }
            if let Some(edge) = self.edges.get_mut(back) {
                edge.flow -= amount;
            }
        }
        if let Some(served) = self.served.get_mut(end) {
            *served += amount;
        }
    }

    /// What each expert's edges serve of it, as parts of 1.
    fn part(&self, edge: &Edge) -> f64 {
        let edges = self.of_expert.get(edge.expert).map(Vec::as_slice).unwrap_or_default();
        let all = || edges.iter().filter_map(|at| self.edges.get(*at));
        let served: f64 = all().map(|edge| edge.flow).sum();
        if served > 0.0 { edge.flow / served } else { edge.slots / all().map(|edge| edge.slots).sum::<f64>() }
    }

    /// The part of each slot.
    fn weights<'a>(&'a self, row: &'a [i32]) -> impl Iterator<Item = f64> + 'a {
        let mut at = vec![(0, 0.0); self.of_expert.len()];
        row.iter().map(move |entry| {
            let Some(expert) = usize::try_from(*entry).ok() else { return 0.0 };
            let (Some(edges), Some((place, used))) = (self.of_expert.get(expert), at.get_mut(expert)) else {
                return 0.0;
            };
            let Some(edge) = edges.get(*place).and_then(|at| self.edges.get(*at)) else { return 0.0 };
            *used += 1.0;
            if *used >= edge.slots {
                (*place, *used) = (*place + 1, 0.0);
            }
            self.part(edge) / edge.slots
        })
    }

    /// The time of the busiest rank with these parts.
    fn largest(&self) -> f64 {
        let time = |(edges, speed): (&Vec<usize>, &f64)| {
            let edges = edges.iter().filter_map(|at| self.edges.get(*at));
            let load: f64 =
                edges.map(|edge| self.part(edge) * self.load.get(edge.expert).copied().unwrap_or(0.0)).sum();
            load / speed
        };
        self.of_rank.iter().zip(&self.speed).map(time).fold(0.0, f64::max) * self.unit
    }
}

/// What a search found: the edge over which each rank and each expert was reached, and the first rank with room.
struct Paths {
    end: Option<usize>,
    reached: Vec<bool>,
    to_rank: Vec<usize>,
    to_expert: Vec<usize>,
}
