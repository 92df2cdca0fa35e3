//! How well a placement carries loads, and how well any could. SPEC.md, "Balance".

use crate::balance::{check_groups, replicate, shape::Shape};
use crate::error::Error;
use crate::loads::Loads;
use crate::partition::to_usize;
use crate::placement::Placement;
use crate::refusal::Refusal;

/// What the lower bound on the busiest rank's time follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// The mean: all load over all speed.
    Mean,
    /// The largest replica: no numbers of replicas in these slots make it smaller.
    LargestReplica,
}

impl Bound {
    /// The name used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::LargestReplica => "largest_replica",
        }
    }
}

/// One layer of a placement under measured loads; times are loads divided by speeds, added up over the windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerReport {
    /// The layer.
    pub layer: usize,
    /// The time of every rank if all were equally busy.
    pub mean: f64,
    /// The time of the busiest rank.
    pub largest: f64,
    /// The busiest rank: in the window where it takes the longest, the lowest of equals.
    pub busiest_rank: u32,
    /// The best lower bound on `largest` for any placement in these slots.
    pub lower_bound: f64,
    /// What that bound follows from, in the window where it is largest.
    pub bound: Bound,
}

impl LayerReport {
    /// Mean over largest: 1 where all ranks are equally busy, and where there is no load.
    #[must_use]
    pub fn balancedness(&self) -> f64 {
        Self::balancedness_of(self.mean, self.largest)
    }

    /// The balancedness of a mean time and the largest, or of sums of them over layers: mean over largest, at most 1, and
    /// 1 where there is no load.
    #[must_use]
    pub fn balancedness_of(mean: f64, largest: f64) -> f64 {
        // The mean is rounded on its own, and must not seem to exceed the largest.
        if largest > 0.0 { (mean / largest).min(1.0) } else { 1.0 }
    }

    /// How far the busiest rank is above the bound, as a fraction of it: 0 where no placement is better.
    #[must_use]
    pub fn gap(&self) -> f64 {
        if self.lower_bound > 0.0 { (self.largest / self.lower_bound - 1.0).max(0.0) } else { 0.0 }
    }
}

impl Placement {
    pub(crate) fn expect_loads(&self, loads: &Loads) -> Result<(), Error> {
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let pairs = [
            ("num_layers", loads.num_layers(), self.num_layers()),
            ("num_experts", loads.num_experts(), to_usize(self.num_experts())),
        ];
        for (what, actual, expected) in pairs {
            if actual != expected {
                let (left_value, right_value) = (number(actual), number(expected));
                let refusal =
                    Refusal::Mismatch { left: "loads", right: "the placement", what, left_value, right_value };
                return Err(Error::refused(refusal));
            }
        }
        Ok(())
    }

    /// The load of every rank, `[W, L, R]`: an expert's load is split evenly over its replicas, and a rank's slots are
    /// added up in their order.
    ///
    /// # Errors
    /// Loads of another number of layers or experts.
    pub fn rank_loads(&self, loads: &Loads) -> Result<Vec<f64>, Error> {
        self.expect_loads(loads)?;
        let mut out = Vec::new();
        let mut shares = Vec::new();
        for window in 0..loads.num_windows() {
            for layer in 0..self.num_layers() {
                self.shares(loads.row(window, layer), layer, &mut shares);
                for (start, end) in self.slot_offsets().iter().zip(self.slot_offsets().iter().skip(1)) {
                    let slots = self.row(layer).get(to_usize(*start)..to_usize(*end)).unwrap_or_default();
                    let held = slots.iter().filter_map(|entry| usize::try_from(*entry).ok());
                    // Not `sum`, whose identity for floats is a negative zero.
                    out.push(held.fold(0.0, |sum, expert| sum + shares.get(expert).copied().unwrap_or(0.0)));
                }
            }
        }
        Ok(out)
    }

    /// The load of one replica of each expert of a layer.
    fn shares(&self, loads: &[f64], layer: usize, out: &mut Vec<f64>) {
        let mut counts = vec![0_u32; loads.len()];
        for &entry in self.row(layer) {
            if let Some(count) = usize::try_from(entry).ok().and_then(|expert| counts.get_mut(expert)) {
                *count += 1;
            }
        }
        out.clear();
        out.extend(loads.iter().zip(&counts).map(|(load, count)| load / f64::from(*count)));
    }

    /// One report for each layer.
    ///
    /// # Errors
    /// Loads of another number of layers or experts.
    pub fn report(&self, loads: &Loads) -> Result<Vec<LayerReport>, Error> {
        let rank_loads = self.rank_loads(loads)?;
        let slots = u64::try_from(self.num_slots()).unwrap_or(u64::MAX);
        let shape = Shape::new(self.topology(), slots, loads.num_experts())?;
        let ranks = to_usize(self.num_ranks());
        let mut work = replicate::Workspace::default();
        let mut counts = Vec::new();
        let mut reports = Vec::new();
        for layer in 0..self.num_layers() {
            let mut report =
                LayerReport { layer, mean: 0.0, largest: 0.0, busiest_rank: 0, lower_bound: 0.0, bound: Bound::Mean };
            let (mut longest, mut highest) = (-1.0, -1.0);
            for window in 0..loads.num_windows() {
                let row = loads.row(window, layer);
                let first = (window * self.num_layers() + layer) * ranks;
                let times = rank_loads.get(first..first + ranks).unwrap_or_default();
                let times = times.iter().enumerate().map(|(rank, load)| load / self.topology().speed(rank));
                let mut largest = 0.0;
                for (rank, time) in (0..).zip(times) {
                    largest = f64::max(largest, time);
                    let order = time.total_cmp(&longest);
                    if order.is_gt() || (order.is_eq() && rank < report.busiest_rank) {
                        longest = time;
                        report.busiest_rank = rank;
                    }
                }
                let total = row.iter().sum();
                let (mean, least) = (shape.mean_time(total), shape.least_time(total));
                replicate::replicate(row, &shape, &mut work, &mut counts);
                let replica = replicate::largest_share(row, &counts) / shape.largest_speed;
                let (bound, because) =
                    if replica > least { (replica, Bound::LargestReplica) } else { (least, Bound::Mean) };
                // Rounding must not lift a bound above what a placement reaches.
                let bound = bound.min(largest);
                if bound > highest {
                    highest = bound;
                    report.bound = because;
                }
                report.mean += mean;
                report.largest += largest;
                report.lower_bound += bound;
            }
            reports.push(report);
        }
        Ok(reports)
    }

    /// The sum over layers and windows of the mean time over that of the largest: 1 where all ranks are always equally
    /// busy, and where there is no load.
    ///
    /// # Errors
    /// Loads of another number of layers or experts.
    pub fn balancedness(&self, loads: &Loads) -> Result<f64, Error> {
        let reports = self.report(loads)?;
        let mean = reports.iter().map(|report| report.mean).sum();
        Ok(LayerReport::balancedness_of(mean, reports.iter().map(|report| report.largest).sum()))
    }

    /// For each layer the part of its load that is served off node: by replicas that are not on the home node of their
    /// group, which is the node that serves most of the group's load. 0 where there is no load.
    ///
    /// # Errors
    /// Loads of another number of layers or experts, or groups that do not divide the experts.
    pub fn off_node_fractions(&self, loads: &Loads, num_groups: u32) -> Result<Vec<f64>, Error> {
        self.expect_loads(loads)?;
        check_groups(num_groups, loads.num_experts())?;
        let nodes = to_usize(self.topology().num_nodes());
        let size = loads.num_experts() / to_usize(num_groups);
        let mut node_of_slot = Vec::with_capacity(self.num_slots());
        for (rank, (start, end)) in (0..).zip(self.slot_offsets().iter().zip(self.slot_offsets().iter().skip(1))) {
            let node = to_usize(self.topology().node_of(rank)?);
            node_of_slot.resize(node_of_slot.len() + to_usize(end - start), node);
        }
        let (mut weights, mut shares) = (Vec::new(), Vec::new());
        let mut fractions = Vec::with_capacity(self.num_layers());
        for layer in 0..self.num_layers() {
            loads.add_up(layer, &mut weights);
            self.shares(&weights, layer, &mut shares);
            let mut served = vec![0.0; to_usize(num_groups) * nodes];
            for (entry, node) in self.row(layer).iter().zip(&node_of_slot) {
                let Ok(expert) = usize::try_from(*entry) else { continue };
                if let Some((sum, share)) = served.get_mut(expert / size * nodes + node).zip(shares.get(expert)) {
                    *sum += share;
                }
            }
            // What is off node, added up by itself: a difference to the total would leave rounding where there is none.
            let (mut off, mut total) = (0.0, 0.0);
            for group in served.chunks_exact(nodes) {
                let most = group.iter().copied().fold(0.0, f64::max);
                let home = group.iter().position(|load| *load >= most);
                for (node, load) in group.iter().enumerate() {
                    total += load;
                    off += if Some(node) == home { 0.0 } else { *load };
                }
            }
            fractions.push(if total > 0.0 { off / total } else { 0.0 });
        }
        Ok(fractions)
    }
}
