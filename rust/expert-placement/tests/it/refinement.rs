//! Where the search for a better plan may end: no step of SPEC.md, "Refinement", helps any more.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeSet;

use expert_placement::{EMPTY, Loads, Options, Policy, Topology, rebalance};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::balance::cases;

/// What one layer has to carry, window by window, and the ranks that do.
struct Layer<'a> {
    windows: Vec<&'a [f64]>,
    topology: &'a Topology,
    /// Of each slot.
    ranks: Vec<u32>,
}

impl<'a> Layer<'a> {
    fn new(windows: Vec<&'a [f64]>, slots: u64, topology: &'a Topology) -> Self {
        let offsets = topology.slot_offsets(slots).unwrap();
        let ranks = (0..topology.num_ranks()).zip(offsets.windows(2));
        let ranks = ranks.flat_map(|(rank, ends)| (ends[0]..ends[1]).map(move |_| rank)).collect();
        Self { windows, topology, ranks }
    }

    fn node(&self, slot: usize) -> u32 {
        self.topology.node_of(self.ranks[slot]).unwrap()
    }

    fn is_usable(&self, slot: usize) -> bool {
        self.topology.active().is_none_or(|active| active[self.ranks[slot] as usize])
    }

    fn usable(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.ranks.len()).filter(|slot| self.is_usable(*slot))
    }

    fn on_node(&self, row: &[i32], expert: i32, node: u32) -> usize {
        holders(row, expert).into_iter().filter(|slot| self.node(*slot) == node).count()
    }

    fn is_on(&self, row: &[i32], expert: i32, rank: u32) -> bool {
        holders(row, expert).into_iter().any(|slot| self.ranks[slot] == rank)
    }

    fn times(&self, row: &[i32], loads: &[f64]) -> Vec<f64> {
        let mut times = vec![0.0; self.topology.num_ranks() as usize];
        for slot in self.usable().filter(|slot| row[*slot] != EMPTY) {
            let replicas = holders(row, row[slot]).len() as f64;
            let rank = self.ranks[slot] as usize;
            times[rank] +=
                loads[row[slot] as usize] / replicas / self.topology.speeds().map_or(1.0, |speeds| speeds[rank]);
        }
        times
    }

    /// The largest time, added up over the windows.
    fn largest(&self, row: &[i32]) -> f64 {
        self.windows.iter().map(|loads| self.times(row, loads).into_iter().fold(0.0, f64::max)).sum()
    }

    /// The ranks that are the busiest of some window.
    fn busiest(&self, row: &[i32]) -> BTreeSet<u32> {
        let mut busiest = BTreeSet::new();
        for loads in &self.windows {
            let times = self.times(row, loads);
            let largest = times.iter().copied().fold(0.0, f64::max);
            busiest
                .extend((0..).zip(&times).filter(|(_, time)| largest > 0.0 && **time >= largest).map(|(rank, _)| rank));
        }
        busiest
    }

    /// Whether what a slot holds may go to another slot.
    fn may_go(&self, row: &[i32], slot: usize, to: usize) -> bool {
        let (start, end, expert) = (self.node(slot), self.node(to), row[slot]);
        expert == EMPTY || start == end || self.on_node(row, expert, start) > 1 || self.on_node(row, expert, end) == 0
    }

    /// Whether the replica of a slot may be given up.
    fn may_end(&self, row: &[i32], slot: usize) -> bool {
        let of_node = |node| self.on_node(row, row[slot], node);
        let most = (0..self.topology.num_nodes()).map(of_node).max().unwrap();
        holders(row, row[slot]).len() > 1 && (of_node(self.node(slot)) > 1 || most == 1)
    }

    /// Whether a further replica may come to a slot.
    fn may_come(&self, row: &[i32], expert: i32, slot: usize) -> bool {
        let free = self.usable().filter(|other| !self.is_on(row, expert, self.ranks[*other]));
        let fewest = free.map(|other| self.on_node(row, expert, self.node(other))).min();
        fewest == Some(self.on_node(row, expert, self.node(slot)))
    }

    /// Every row that is one step away.
    fn steps(&self, row: &[i32]) -> Vec<Vec<i32>> {
        let busiest = self.busiest(row);
        let mut steps = Vec::new();
        let mut change = |changes: &[(usize, i32)]| {
            let mut after = row.to_vec();
            for (slot, expert) in changes {
                after[*slot] = *expert;
            }
            steps.push(after);
        };
        for hot in self.usable().filter(|slot| row[*slot] != EMPTY && busiest.contains(&self.ranks[*slot])) {
            if self.may_end(row, hot) {
                change(&[(hot, EMPTY)]);
            }
            for other in self.usable().filter(|other| !self.is_on(row, row[hot], self.ranks[*other])) {
                let is_back = row[other] != EMPTY && self.is_on(row, row[other], self.ranks[hot]);
                if !is_back && self.may_go(row, hot, other) && self.may_go(row, other, hot) {
                    change(&[(hot, row[other]), (other, row[hot])]);
                }
                if (row[other] == EMPTY || self.may_end(row, other)) && self.may_come(row, row[hot], other) {
                    change(&[(other, row[hot])]);
                }
            }
        }
        steps
    }

    /// What each rank holds.
    fn held(&self, row: &[i32]) -> BTreeSet<(u32, i32)> {
        self.usable().filter(|slot| row[*slot] != EMPTY).map(|slot| (self.ranks[slot], row[slot])).collect()
    }
}

/// The slots of a row with an expert.
fn holders(row: &[i32], expert: i32) -> Vec<usize> {
    (0..row.len()).filter(|slot| row[*slot] == expert).collect()
}

/// Plans, and looks at every step from there, unless the plan is near its bound or the field's; how many layers are left.
fn look(values: &[f64], [windows, layers, experts]: [usize; 3], slots: u64, topology: &Topology) -> usize {
    let loads = &Loads::new(windows, layers, experts, values.to_vec()).unwrap();
    let mut options = Options::default();
    let plan = rebalance(loads, slots, topology, &options).unwrap();
    options.policy = Policy::Deepseek;
    let field = rebalance(loads, slots, topology, &options).ok();
    let width = plan.num_slots();
    let mut looked = 0;
    for (layer, report) in plan.report(loads).unwrap().iter().enumerate() {
        let of_windows = (0..windows).map(|window| &values[(window * layers + layer) * experts..][..experts]).collect();
        let this = Layer::new(of_windows, slots, topology);
        let row = &plan.physical_to_logical()[layer * width..][..width];
        let is_of_the_field = field
            .as_ref()
            .is_some_and(|field| this.held(&field.physical_to_logical()[layer * width..][..width]) == this.held(row));
        if report.largest <= report.lower_bound * (1.0 + 2e-4) || is_of_the_field {
            continue;
        }
        looked += 1;
        let now = this.largest(row);
        for after in this.steps(row) {
            assert!(this.largest(&after) >= now * (1.0 - 1e-9), "{row:?} takes {now}, {after:?} less");
        }
    }
    looked
}

proptest! {
    /// Domain: random loads and topologies of up to 5 ranks, 9 experts and 3 layers.
    #[test]
    fn no_step_helps_a_plan((values, layers, experts, slots, topology) in cases()) {
        look(&values, [1, layers, experts], slots, &topology);
    }

    /// Domain: the same with the loads of a layer as those of several windows.
    #[test]
    fn no_step_helps_a_plan_for_windows((values, windows, experts, slots, topology) in cases()) {
        look(&values, [windows, 1, experts], slots, &topology);
    }

    /// Domain: up to 5 ranks of up to 4 slots each, over up to 3 nodes, and counts of tokens, so that ranks tie.
    #[test]
    fn no_step_helps_a_plan_for_equal_loads(
        slots in vec(0_u32..5, 1..6), nodes in 1_u32..4, loads in vec(0_u8..6, 1..9),
    ) {
        let ranks = slots.len() as u32;
        let topology = Topology::new(ranks, nodes.min(ranks)).unwrap().with_slots(slots.clone()).unwrap();
        let total: u32 = slots.iter().sum();
        let loads: Vec<f64> = loads.into_iter().take(total as usize).map(f64::from).collect();
        prop_assume!(!loads.is_empty());
        look(&loads, [1, 1, loads.len()], u64::from(total), &topology);
    }

    /// Domain: two ranks to eight of one to four slots each, most loads of one size.
    #[test]
    fn no_step_helps_a_plan_for_equal_ranks(
        (ranks, each, nodes) in (2_u32..9, 1_u32..5, 1_u32..3), loads in vec(prop_oneof![0.5..2.0, Just(1.0)], 1..16),
    ) {
        let topology = Topology::new(ranks, nodes.min(ranks)).unwrap();
        let slots = u64::from(ranks * each);
        let experts = loads.len().min(slots as usize);
        look(&loads[..experts], [1, 1, experts], slots, &topology);
    }
}

/// Loads by windows, slots and speeds of the ranks, the number of nodes, and the largest time at most.
type Case = (&'static [&'static [f64]], &'static [u32], &'static [f64], u32, f64);

/// Of the second, two ranks are the busiest.
const TWO_WINDOWS: [[f64; 7]; 2] =
    [[0.2107, 1.613_67, 5.845_33, 1.211_51, 2.294_94, 0.388_62, 4.560_61], [3.0, 0.0, 0.697_25, 0.0, 1.0, 1.0, 1.0]];

/// Domain: plans in which the nearest exchanges are not allowed, a node would have more replicas of an expert than
/// another, a rank is better off with fewer replicas, or two ranks are the busiest, of one window or of another.
#[test]
fn steps_that_are_seldom_are_found() {
    let cases: [Case; 8] = [
        (&[&[50.0, 3.0]], &[1; 5], &[2.0, 2.0, 2.0, 1.0, 2.0], 2, 6.25),
        (&[&[1.0, 3.0]], &[2, 2], &[3.0, 0.5], 1, 4.0 / 3.0),
        (&[&[0.0, 0.75, 3.0]], &[0, 6, 3], &[1.0, 3.0, 0.5], 1, 1.25),
        (&[&TWO_WINDOWS[0], &TWO_WINDOWS[1]], &[3, 3, 3], &[0.5, 1.0, 1.0], 3, f64::INFINITY),
        (&[&[2.0, 1.0, 1.0]], &[1, 2, 3], &[1.0; 3], 2, 1.5),
        (&[&[1.0, 3.0, 2.0, 5.0]], &[2, 1, 0, 4], &[1.0; 4], 2, 4.5),
        (&[&[0.0, 2.0, 2.0, 1.0, 1.0]], &[3, 3, 3], &[1.0; 3], 3, 2.0),
        (&[&[5.0, 50.0, 1.0, 50.0, 31.0, 3.0]], &[1, 3, 3, 3, 2], &[3.0, 2.0, 0.5, 1.5, 0.5], 1, f64::INFINITY),
    ];
    let mut looked = 0;
    for (windows, slots, speeds, nodes, most) in cases {
        let topology = Topology::new(slots.len() as u32, nodes)
            .and_then(|topology| topology.with_slots(slots.to_vec()))
            .and_then(|topology| topology.with_speeds(speeds.to_vec()))
            .unwrap();
        let total = slots.iter().map(|slots| u64::from(*slots)).sum();
        let size = [windows.len(), 1, windows[0].len()];
        let loads = Loads::new(size[0], 1, size[2], windows.concat()).unwrap();
        let plan = rebalance(&loads, total, &topology, &Options::default()).unwrap();
        let largest = plan.report(&loads).unwrap()[0].largest;
        assert!(largest <= most, "{windows:?}: {largest}");
        looked += look(&windows.concat(), size, total, &topology);
    }
    // Two are at their bounds.
    assert_eq!(looked, 6);
}
