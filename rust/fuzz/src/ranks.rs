//! Small topologies and tables out of a fuzzer's bytes, as plain numbers, and the crate's objects for them.

use expert_placement::{EMPTY, Loads, Placement, Topology};

use crate::input::Input;

/// How the crate is told of the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// A number for each rank.
    List,
    /// One number for all.
    Each,
    /// Nothing: the slots are a linear partition over the ranks.
    Nothing,
}

/// Ranks in plain numbers.
#[derive(Clone, Debug)]
pub(crate) struct Ranks {
    pub(crate) slots: Vec<u32>,
    pub(crate) speeds: Vec<f64>,
    pub(crate) active: Vec<bool>,
    pub(crate) num_nodes: usize,
    told: Told,
}

impl Ranks {
    /// Ranks of up to so many slots each; some are out of service, and some are faster than others.
    pub(crate) fn read(input: &mut Input<'_>, most_ranks: usize, most_slots: usize) -> Self {
        let num_ranks = 1 + input.below(most_ranks);
        let num_nodes = 1 + input.below(num_ranks);
        let told = [Told::List, Told::Each, Told::Nothing][input.below(3)];
        let each = input.below(most_slots + 1);
        let slots: Vec<u32> = match told {
            Told::List => (0..num_ranks).map(|_| input.below(most_slots + 1) as u32).collect(),
            Told::Each => vec![each as u32; num_ranks],
            Told::Nothing => dealt(each * num_ranks + input.below(num_ranks), num_ranks),
        };
        let [differ, fail] = [input.below(4) == 0, input.below(4) == 0];
        let speeds = (0..num_ranks).map(|_| if differ { [1.0, 0.5, 2.0, 3.0][input.below(4)] } else { 1.0 }).collect();
        let mut active: Vec<bool> = (0..num_ranks).map(|_| !fail || input.is_set()).collect();
        active[0] |= !active.contains(&true);
        Self { slots, speeds, active, num_nodes, told }
    }

    /// The same ranks, of which others are in service.
    pub(crate) fn with_active(&self, active: Vec<bool>) -> Self {
        Self { active, ..self.clone() }
    }

    /// Ranks of these slots, all alike, on a node.
    #[cfg(test)]
    pub(crate) fn with(slots: &[u32]) -> Self {
        let (speeds, active) = (vec![1.0; slots.len()], vec![true; slots.len()]);
        Self { slots: slots.to_vec(), speeds, active, num_nodes: 1, told: Told::List }
    }

    pub(crate) fn num_ranks(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn num_slots(&self) -> usize {
        self.slots.iter().sum::<u32>() as usize
    }

    /// The rank of each slot.
    pub(crate) fn of_slots(&self) -> Vec<usize> {
        self.slots.iter().enumerate().flat_map(|(rank, slots)| vec![rank; *slots as usize]).collect()
    }

    /// The slots of a rank.
    pub(crate) fn range(&self, rank: usize) -> std::ops::Range<usize> {
        let start = self.slots[..rank].iter().sum::<u32>() as usize;
        start..start + self.slots[rank] as usize
    }

    /// The node of each rank: nodes have ranks that follow each other, as many as they are dealt in turn.
    pub(crate) fn nodes(&self) -> Vec<usize> {
        let counts = dealt(self.num_ranks(), self.num_nodes);
        counts.iter().enumerate().flat_map(|(node, count)| vec![node; *count as usize]).collect()
    }

    /// Whether a rank is active and has slots.
    pub(crate) fn is_usable(&self, rank: usize) -> bool {
        self.active[rank] && self.slots[rank] > 0
    }

    pub(crate) fn topology(&self) -> Topology {
        let topology = Topology::new(self.num_ranks() as u32, self.num_nodes as u32);
        let topology = topology.and_then(|topology| match self.told {
            Told::List => topology.with_slots(self.slots.clone()),
            Told::Each => topology.with_slots_per_rank(self.slots[0]),
            Told::Nothing => Ok(topology),
        });
        let topology = topology.and_then(|topology| topology.with_speeds(self.speeds.clone()));
        topology.and_then(|topology| topology.with_active(self.active.clone())).expect("legal ranks")
    }

    /// A row whose entries may be anything near what is legal.
    pub(crate) fn row(&self, input: &mut Input<'_>, experts: usize) -> Vec<i32> {
        (0..self.num_slots()).map(|_| input.below(experts + 3) as i32 - 2).collect()
    }

    /// A legal row, where the active ranks have room for every expert.
    pub(crate) fn legal_row(&self, input: &mut Input<'_>, experts: usize) -> Option<Vec<i32>> {
        let is_active: Vec<bool> = self.of_slots().into_iter().map(|rank| self.active[rank]).collect();
        let mut row: Vec<i32> = (0..self.num_slots())
            .map(|slot| if is_active[slot] { input.below(experts + 1) as i32 - 1 } else { EMPTY })
            .collect();
        for expert in 0..experts as i32 {
            if !row.contains(&expert) {
                // In the place of nothing, or of what is elsewhere too.
                let is_spare =
                    |slot: &usize| row[*slot] == EMPTY || row.iter().filter(|entry| **entry == row[*slot]).count() > 1;
                let spare: Vec<usize> = (0..row.len()).filter(|slot| is_active[*slot]).filter(is_spare).collect();
                let slot = *spare.get(input.below(spare.len().max(1)))?;
                row[slot] = expert;
            }
        }
        Some(row)
    }

    /// Whether a row is one that a placement on these ranks may have.
    pub(crate) fn is_legal(&self, row: &[i32], experts: usize) -> bool {
        let is_entry =
            |(entry, rank): (&i32, usize)| *entry == EMPTY || (0..experts as i32).contains(entry) && self.active[rank];
        row.iter().zip(self.of_slots()).all(is_entry) && (0..experts as i32).all(|expert| row.contains(&expert))
    }

    pub(crate) fn placement(&self, rows: &[Vec<i32>], experts: usize) -> Option<Placement> {
        Placement::new(experts as u32, rows.len(), self.topology(), rows.concat()).ok()
    }

    /// The time of every rank for one window of loads: shares added up in the order of the slots, over the speed.
    pub(crate) fn times(&self, row: &[i32], loads: &[f64]) -> Vec<f64> {
        let load = self.loads(row, loads);
        load.iter().zip(&self.speeds).map(|(load, speed)| load / speed).collect()
    }

    /// The load of every rank, bit by bit as it is stated.
    pub(crate) fn loads(&self, row: &[i32], loads: &[f64]) -> Vec<f64> {
        let share = |expert: i32| {
            let replicas = row.iter().filter(|entry| **entry == expert).count();
            loads[expert as usize] / replicas as f64
        };
        let held = |rank| row[self.range(rank)].iter().filter(|entry| **entry != EMPTY);
        (0..self.num_ranks()).map(|rank| held(rank).fold(0.0, |sum, expert| sum + share(*expert))).collect()
    }
}

/// How many of `number` each of `hands` gets where they are dealt in turn.
fn dealt(number: usize, hands: usize) -> Vec<u32> {
    let mut counts = vec![0; hands];
    (0..number).for_each(|one| counts[one % hands] += 1);
    counts
}

/// Measured loads in plain numbers: windows of layers of experts.
#[derive(Clone, Debug)]
pub(crate) struct Measured(pub(crate) Vec<Vec<Vec<f64>>>);

impl Measured {
    pub(crate) fn read(input: &mut Input<'_>, windows: usize, layers: usize, experts: usize) -> Self {
        let mut row = || (0..experts).map(|_| input.load()).collect();
        Self((0..windows).map(|_| (0..layers).map(|_| row()).collect()).collect())
    }

    pub(crate) fn loads(&self) -> Loads {
        let experts = self.0[0][0].len();
        Loads::new(self.0.len(), self.0[0].len(), experts, self.0.concat().concat()).expect("legal loads")
    }

    /// The loads of one layer, window by window.
    pub(crate) fn of_layer(&self, layer: usize) -> Vec<&[f64]> {
        self.0.iter().map(|window| window[layer].as_slice()).collect()
    }

    /// The loads of one layer added up over the windows, in their order.
    pub(crate) fn summed(&self, layer: usize) -> Vec<f64> {
        let mut sum = self.0[0][layer].clone();
        for window in &self.0[1..] {
            sum.iter_mut().zip(&window[layer]).for_each(|(sum, load)| *sum += load);
        }
        sum
    }

    /// The same with every load changed.
    pub(crate) fn map(&self, change: impl Fn(f64) -> f64 + Copy) -> Self {
        let row = |row: &Vec<f64>| row.iter().copied().map(change).collect();
        Self(self.0.iter().map(|window| window.iter().map(row).collect()).collect())
    }
}
