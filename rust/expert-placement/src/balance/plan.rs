//! One layer's plan, from nothing or from the placement that is there. SPEC.md, "Rebalancing".

use std::collections::{BTreeMap, VecDeque};

use super::nodes::Homes;
use super::refine::Step;
use super::shape::{Bin, Shape};
use super::state::{NONE, State};
use super::warm::{self, Course, Offer, Way};
use super::{Policy, deepseek, pack, recount, refine, replicate, trial, windows};
use crate::loads::Loads;
use crate::migration::rank_moves;
use crate::placement::EMPTY;

/// A layer counts as balanced where its busiest rank takes at most this fraction more than the lower bound: the search
/// for something better ends there.
pub(super) const TOLERANCE: f64 = 2e-4;

/// What all layers of a plan have in common.
pub(super) struct Job<'a> {
    pub(super) loads: &'a Loads,
    pub(super) shape: &'a Shape,
    /// The numbers of the field's algorithm, where it applies.
    pub(super) hierarchy: Option<&'a deepseek::Hierarchy>,
    pub(super) policy: Policy,
    /// The groups that are kept at home, where there are any.
    pub(super) groups: Option<Groups>,
}

/// Groups of experts, and which part of a layer's load may be served away from their homes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    pub(super) number: usize,
    pub(super) max_off_node: f64,
}

impl Groups {
    fn limit(self, weights: &[f64]) -> f64 {
        // A little more than the limit is rounding.
        self.max_off_node * weights.iter().sum::<f64>() * (1.0 + 1e-12)
    }
}

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    weights: Vec<f64>,
    singles: Vec<f32>,
    counts: Vec<u32>,
    row: Vec<i32>,
    state: State,
    other: State,
    replicate: replicate::Workspace,
    pack: pack::Workspace,
    refine: refine::Workspace,
    trial: trial::Workspace,
    recount: recount::Workspace,
    windows: windows::Workspace,
    deepseek: deepseek::Workspace,
    warm: warm::Workspace,
}

impl Workspace {
    /// Plans one layer from nothing.
    pub(super) fn plan(&mut self, job: &Job<'_>, layer: usize, out: &mut [i32]) {
        let &Job { loads, shape, policy, groups, .. } = job;
        loads.add_up(layer, &mut self.weights);
        self.refine.begin();
        let at_home = groups.map(|groups| {
            let homes = Homes::choose(&self.weights, groups.number, groups.limit(&self.weights), shape);
            shape.with_homes(homes)
        });
        let shape = at_home.as_ref().unwrap_or(shape);
        let field = self.plan_sum(job, shape, layer, out);
        if policy == Policy::Balanced && loads.num_windows() > 1 {
            self.plan_windows(job, shape, layer, field.as_deref(), out);
        }
    }

    /// Plans one layer for the sum of its windows. The field's plan, where there are several windows and it applies.
    fn plan_sum(&mut self, job: &Job<'_>, shape: &Shape, layer: usize, out: &mut [i32]) -> Option<Vec<i32>> {
        let &Job { loads, hierarchy, policy, .. } = job;
        if let Some(hierarchy) = hierarchy {
            deepseek::singles(&self.weights, &mut self.singles);
            deepseek::place(&self.singles, hierarchy, &mut self.deepseek, out);
        }
        if policy == Policy::Deepseek {
            return None;
        }
        let field_row = hierarchy.filter(|_| loads.num_windows() > 1).map(|_| out.to_vec());
        // The field's packing is as good a start as any, unless it minds nodes; two replicas on a rank are separated, where
        // it is not bound to have some.
        let is_read = hierarchy.is_some() && shape.room == shape.num_slots;
        let is_apart = is_read && self.read(shape, out);
        let field = hierarchy.map(|_| if is_read { self.state.largest() } else { self.largest(shape, out) });
        let is_start = is_read && shape.num_nodes == 1 && (is_apart || refine::separate(shape, &mut self.state));
        if let Some(homes) = &shape.homes {
            self.begin_at_home(homes, shape);
        } else if !is_start {
            replicate::replicate(&self.weights, shape, &mut self.replicate, &mut self.counts);
            self.state.begin(&self.weights, &self.counts, shape);
            pack::pack(shape, &mut self.pack, &mut self.state);
        }
        let least = shape.least_time(self.weights.iter().sum());
        // The best numbers of replicas, which are those of a start that was made from them.
        let is_of_best = shape.homes.is_none() && (!is_start || is_apart);
        let largest_share = if is_of_best {
            replicate::largest_share(&self.weights, &self.state.counts)
        } else {
            replicate::replicate(&self.weights, shape, &mut self.replicate, &mut self.counts);
            replicate::largest_share(&self.weights, &self.counts)
        };
        let target = least.max(largest_share / shape.largest_speed) * (1.0 + TOLERANCE);
        if shape.homes.is_some() {
            self.warm.remember(&self.state);
            warm::walk(&self.weights, target, shape, &mut self.warm, &mut self.state, State::largest);
        }
        refine::refine(&self.weights, target, shape, &mut self.refine, &mut self.state);
        let is_paired = shape.is_even_speed && shape.num_nodes == 1 && shape.bins.iter().all(|bin| bin.room == 2);
        if !is_paired {
            trial::improve(&self.weights, target, shape, &mut self.trial, &mut self.refine, &mut self.state);
        }
        let largest = self.state.largest();
        if is_paired && largest > target {
            self.counts.clear();
            self.counts.extend_from_slice(&self.state.counts);
            let ranks = shape.bins.len();
            // All ranks are equally fast, so that the search can go by loads.
            let speed = shape.largest_speed;
            let (least, goal) = (largest * speed, target * speed);
            if recount::search(&self.weights, ranks, least, goal, &mut self.recount, &mut self.counts) {
                std::mem::swap(&mut self.state, &mut self.other);
                self.state.begin(&self.weights, &self.counts, shape);
                pack::pack(shape, &mut self.pack, &mut self.state);
                refine::refine(&self.weights, target, shape, &mut self.refine, &mut self.state);
                // No two replicas of an expert may be a pair, which the search does not see.
                if self.state.largest() > largest {
                    std::mem::swap(&mut self.state, &mut self.other);
                }
            }
        }
        let is_below_field = is_start && is_apart;
        let may_differ = !is_below_field && shape.homes.is_none();
        if may_differ && field.is_some_and(|field| field < self.state.largest()) {
            // Two replicas on one rank may balance better; the search goes on from there, with the second one given up.
            std::mem::swap(&mut self.state, &mut self.other);
            self.begin_from(shape, out);
            warm::walk(&self.weights, target, shape, &mut self.warm, &mut self.state, State::largest);
            refine::refine(&self.weights, target, shape, &mut self.refine, &mut self.state);
            if self.other.largest() <= self.state.largest() {
                std::mem::swap(&mut self.state, &mut self.other);
            }
        }
        if field.is_none_or(|field| self.state.largest() < field * (1.0 - 1e-9)) {
            write(&self.state, shape, out);
            return field_row;
        }
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        row.resize(out.len(), EMPTY);
        write(&self.state, shape, &mut row);
        // By the measure that reports use, so that not even rounding makes this policy the worse one.
        let is_worse = hierarchy.is_some() && self.largest(shape, &row) > self.largest(shape, out);
        if !is_worse {
            out.copy_from_slice(&row);
        }
        self.row = row;
        if is_worse {
            self.give_useless_copies_up(job, layer, out);
        }
        field_row
    }

    /// Empties slots of the field's plan that hold a second replica on a rank, where that leaves no rank busier.
    fn give_useless_copies_up(&mut self, job: &Job<'_>, layer: usize, out: &mut [i32]) {
        let before = self.time_of(job, layer, out);
        job.loads.add_up(layer, &mut self.weights);
        self.begin_from(job.shape, out);
        let mut row = vec![EMPTY; out.len()];
        write(&self.state, job.shape, &mut row);
        // A share more or less is another rounding, and no gain.
        if self.time_of(job, layer, &row) <= before * (1.0 + 1e-12) {
            out.copy_from_slice(&row);
        }
    }

    /// The start with groups: every node by itself, replicating what is at home there.
    ///
    /// Where more is at home on a node than it has room for, the lightest experts are guests where there is the most.
    fn begin_at_home(&mut self, homes: &Homes, shape: &Shape) {
        let mut hosted: Vec<Vec<u32>> = vec![Vec::new(); shape.num_nodes];
        let mut room = vec![0; shape.num_nodes];
        for bin in &shape.bins {
            room[bin.node] += bin.room;
        }
        let mut order: Vec<u32> = (0..self.weights.len() as u32).collect();
        order.sort_by_key(|expert| (!self.weights[*expert as usize].to_bits(), *expert));
        let mut guests = Vec::new();
        for expert in order {
            let home = homes.of(expert);
            if hosted[home].len() < room[home] {
                hosted[home].push(expert);
            } else {
                guests.push(expert);
            }
        }
        for expert in guests {
            // Of equally much room the lower node; there is room for every expert somewhere.
            let node = (0..shape.num_nodes).rev().max_by_key(|node| room[*node] - hosted[*node].len()).unwrap_or(0);
            hosted[node].push(expert);
        }
        let mut rows = Vec::new();
        let mut counts = vec![0; self.weights.len()];
        let weights = std::mem::take(&mut self.weights);
        for (node, experts) in hosted.iter_mut().enumerate() {
            experts.sort_unstable();
            let alone = shape.only(node, experts.len());
            self.weights.clear();
            self.weights.extend(experts.iter().map(|expert| weights[*expert as usize]));
            if !experts.is_empty() {
                replicate::replicate(&self.weights, &alone, &mut self.replicate, &mut self.counts);
                self.state.begin(&self.weights, &self.counts, &alone);
                pack::pack(&alone, &mut self.pack, &mut self.state);
                let target = alone.least_time(self.weights.iter().sum()) * (1.0 + TOLERANCE);
                refine::refine(&self.weights, target, &alone, &mut self.refine, &mut self.state);
                for (expert, count) in experts.iter().zip(&self.state.counts) {
                    counts[*expert as usize] = *count;
                }
            }
            for (index, bin) in alone.bins.iter().enumerate() {
                let items = if experts.is_empty() { &[] } else { self.state.items_of(index) };
                rows.push((
                    bin.start,
                    items.iter().filter(|item| **item != NONE).map(|item| experts[*item as usize]).collect(),
                ));
            }
        }
        self.weights = weights;
        // Nodes are consecutive ranks, and so the rows are in the order of the ranks.
        let rows: Vec<(usize, Vec<u32>)> = rows;
        self.counts = counts;
        self.state.begin(&self.weights, &self.counts, shape);
        for (index, (_, items)) in rows.iter().enumerate() {
            let first = self.state.first[index];
            for (place, &item) in (first..).zip(items) {
                self.state.items[place] = item;
                self.state.set_holder(index, item, true);
            }
            self.state.settle(index, shape);
        }
    }

    /// Goes on from the plan for the sum of the windows, in `out`, to one for the windows themselves, and keeps whichever
    /// is best: that, the plan for the sum, or the field's plan, where there is one.
    fn plan_windows(&mut self, job: &Job<'_>, shape: &Shape, layer: usize, field: Option<&[i32]>, out: &mut [i32]) {
        let loads = job.loads;
        let mut best = self.time_of(job, layer, out);
        let sum = out.to_vec();
        if let Some(field) = field {
            let time = self.time_of(job, layer, field);
            if time < best {
                best = time;
                out.copy_from_slice(field);
            }
        }
        // The field's plan has homes of its own, which need not be those that its groups were given.
        let settled = match (&shape.homes, job.groups, field) {
            (Some(homes), Some(groups), Some(_)) => {
                loads.add_up(layer, &mut self.weights);
                self.begin_from(shape, &sum);
                let settled = || Homes::of_row(&self.state.shares, groups.number, homes.limit(), shape, &sum);
                (!homes.hold_all(shape, &self.state)).then(|| shape.with_homes(settled()))
            }
            _ => None,
        };
        let shape = settled.as_ref().unwrap_or(shape);
        let mut row = std::mem::take(&mut self.row);
        // The field's plan without second replicas on a rank is another start, where there was one. (With groups it
        // stands for itself.)
        let other = field.filter(|field| shape.homes.is_none() && *field != sum.as_slice());
        for start in std::iter::once(sum.as_slice()).chain(other) {
            loads.add_up(layer, &mut self.weights);
            self.begin_from(shape, start);
            for is_refined in [false, true] {
                if is_refined {
                    windows::refine(loads, layer, shape, &mut self.windows, &mut self.state);
                }
                row.clear();
                row.resize(out.len(), EMPTY);
                write(&self.state, shape, &mut row);
                let time = self.time_of(job, layer, &row);
                if time < best {
                    best = time;
                    out.copy_from_slice(&row);
                }
            }
        }
        self.row = row;
        if field.is_some_and(|field| *out == *field) {
            self.give_useless_copies_up(job, layer, out);
        }
    }

    /// The sum over the windows of the busiest rank's time under a row of the table, as reports give it.
    fn time_of(&mut self, job: &Job<'_>, layer: usize, row: &[i32]) -> f64 {
        let mut time = 0.0;
        for window in 0..job.loads.num_windows() {
            self.weights.clear();
            self.weights.extend_from_slice(job.loads.row(window, layer));
            time += self.largest(job.shape, row);
        }
        time
    }

    /// The busiest rank's time under a row of the table, its slots added up in their order.
    fn largest(&mut self, shape: &Shape, row: &[i32]) -> f64 {
        self.counts.clear();
        self.counts.resize(self.weights.len(), 0);
        for entry in row.iter().filter(|entry| **entry != EMPTY) {
            self.counts[*entry as usize] += 1;
        }
        let load = |expert: usize| self.weights[expert] / f64::from(self.counts[expert]);
        let times = shape.bins.iter().map(|bin| {
            let held = row[bin.start..bin.start + bin.slots].iter().filter(|entry| **entry != EMPTY);
            held.fold(0.0, |sum, entry| sum + load(*entry as usize)) / bin.speed
        });
        times.fold(0.0, f64::max)
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
            self.state.settle(index, shape);
        }
        is_apart
    }
}

/// What one layer can become, beginning with what it is.
#[derive(Debug, Default)]
pub(super) struct Warm {
    pub(super) way: Way,
    /// The steps of the way that goes by the windows, where there are several.
    window_steps: Vec<Step>,
    /// What the plan from nothing would be, in the ranks that hold most of it already; the last of the offers.
    row: Vec<i32>,
    /// The busiest rank's time in the plan from nothing.
    pub(super) target: f64,
    /// How much load may be off node.
    pub(super) limit: f64,
    /// How much load off node there was.
    pub(super) was_off_node: f64,
}

impl Workspace {
    /// Plans one layer from the row that is there, whose slots are those of `shape`.
    pub(super) fn plan_from(&mut self, job: &Job<'_>, layer: usize, before: &[i32]) -> Warm {
        let shape = job.shape;
        let mut row = vec![EMPTY; before.len()];
        self.plan(job, layer, &mut row);
        job.loads.add_up(layer, &mut self.weights);
        // A rank with more slots than there are experts may hold more in the field's plan than a state knows of.
        let is_known = shape.bins.iter().all(|bin| {
            let held = row[bin.start..bin.start + bin.slots].iter().filter(|entry| **entry != EMPTY);
            held.count() <= bin.room
        });
        let target = if is_known {
            self.read(shape, &row);
            self.state.largest()
        } else {
            self.begin_from(shape, &row);
            self.largest(shape, &row)
        };
        let ideal = std::mem::take(&mut self.state);
        let mut untouched = before.to_vec();
        clear_unusable(shape, &mut untouched);
        // Groups stay where they are, and what is off node stays below the limit, or below what it was.
        let (mut was_off_node, mut at_home) = (0.0, None);
        if let Some(groups) = job.groups {
            self.read(shape, &untouched);
            let (limit, shares) = (groups.limit(&self.weights), &self.state.shares);
            let homes = Homes::of_row(shares, groups.number, limit, shape, &untouched);
            was_off_node = homes.off_node(shares, shape, &untouched);
            at_home = Some(shape.with_homes(homes));
        }
        let shape = at_home.as_ref().unwrap_or(shape);
        self.begin_from(shape, before);
        let start = self.state.clone();
        let time = |state: &State| windows::time(job.loads, layer, shape, state);
        let mut way = warm::walk(&self.weights, target, shape, &mut self.warm, &mut self.state, time);
        let aligned = align(&ideal, &start, shape);
        let mut ideal_time = time(&aligned);
        if (0..self.weights.len() as i32).all(|expert| untouched.contains(&expert)) {
            let time = self.time_of(job, layer, &untouched);
            way.offers.insert(0, Offer { course: Course::Untouched, moves: 0, time, off_node: was_off_node });
        }
        if is_known {
            write_over(&aligned, shape, before, &mut row);
        } else {
            ideal_time = self.time_of(job, layer, &row);
            stay_in_place(shape, before, &mut row);
        }
        let mut by_windows = Way::default();
        if job.loads.num_windows() > 1 {
            self.state.clone_from(&start);
            let Self { windows: work, warm, state, .. } = self;
            by_windows = windows::walk(job.loads, layer, ideal_time, shape, &warm.residents, work, state);
            way.offers.append(&mut by_windows.offers);
        }
        let of_rank = |bin: &Bin| {
            let slots = bin.start..bin.start + bin.slots;
            rank_moves(&before[slots.clone()], &row[slots])
        };
        // Slot by slot, since the field's plan may have two replicas on a rank, which a state counts once.
        let moves = shape.bins.iter().map(of_rank).sum();
        // Whatever homes the plan from nothing has, it keeps to the limit.
        way.offers.push(Offer { course: Course::FromNothing, moves, time: ideal_time, off_node: 0.0 });
        let limit = shape.homes.as_ref().map_or(f64::INFINITY, Homes::limit);
        Warm { way, window_steps: by_windows.steps, row, target: ideal_time, limit, was_off_node }
    }

    /// The old row as a state: a second replica on a rank, and whatever ranks out of service held, is gone, and an expert
    /// that lost its last replica by that has a new one.
    fn begin_from(&mut self, shape: &Shape, before: &[i32]) {
        let mut row = vec![EMPTY; before.len()];
        for bin in &shape.bins {
            let slots = bin.start..bin.start + bin.slots;
            let mut held: Vec<i32> = before[slots].iter().copied().filter(|entry| *entry != EMPTY).collect();
            held.sort_unstable();
            held.dedup();
            row[bin.start..bin.start + held.len()].copy_from_slice(&held);
        }
        self.read(shape, &row);
        self.warm.remember(&self.state);
        let mut lost: Vec<u32> =
            (0..self.counts.len() as u32).filter(|expert| self.counts[*expert as usize] == 0).collect();
        // The heaviest first, of equals the lower expert.
        lost.sort_by_key(|expert| (!self.weights[*expert as usize].to_bits(), *expert));
        for expert in lost {
            refine::bring_back(expert, &self.weights, shape, &mut self.state);
        }
    }

    /// Writes the row of one of a layer's offers.
    pub(super) fn realise(
        &mut self,
        job: &Job<'_>,
        layer: usize,
        warm: &Warm,
        offer: &Offer,
        before: &[i32],
        out: &mut [i32],
    ) {
        let shape = job.shape;
        let steps = match offer.course {
            Course::FromNothing => return out.copy_from_slice(&warm.row),
            Course::Untouched => {
                out.copy_from_slice(before);
                return clear_unusable(shape, out);
            }
            Course::Steps(steps) => &warm.way.steps[..steps],
            Course::Windows(steps) => &warm.window_steps[..steps],
        };
        job.loads.add_up(layer, &mut self.weights);
        self.begin_from(shape, before);
        for step in steps {
            refine::apply(*step, &self.weights, shape, &mut self.state);
        }
        write_over(&self.state, shape, before, out);
    }

    /// Plans one layer from nothing, and puts what stays on its rank where it is.
    pub(super) fn plan_in_place(&mut self, job: &Job<'_>, layer: usize, before: &[i32], out: &mut [i32]) {
        self.plan(job, layer, out);
        stay_in_place(job.shape, before, out);
    }
}

/// Puts what a rank of a row held before into the slots where it was.
fn stay_in_place(shape: &Shape, before: &[i32], row: &mut [i32]) {
    for bin in &shape.bins {
        let slots = bin.start..bin.start + bin.slots;
        let coming = row[slots.clone()].iter().filter(|entry| **entry != EMPTY).map(|entry| *entry as u32).collect();
        keep_in_place(coming, &before[slots.clone()], &mut row[slots]);
    }
}

/// Empties the slots of ranks that a plan may not use.
fn clear_unusable(shape: &Shape, out: &mut [i32]) {
    let mut next = 0;
    for bin in &shape.bins {
        out[next..bin.start].fill(EMPTY);
        next = bin.start + bin.slots;
    }
    out[next..].fill(EMPTY);
}

/// The same sets of experts, each with the rank that holds most of it already, among ranks that can be exchanged.
fn align(ideal: &State, start: &State, shape: &Shape) -> State {
    let ranks = shape.bins.len();
    let kind = |bin: usize| (shape.bins[bin].room, shape.bins[bin].speed.to_bits(), shape.bins[bin].node);
    let mut overlaps = Vec::new();
    let mut common = vec![0_usize; ranks];
    for from in 0..ranks {
        for &item in ideal.items_of(from).iter().filter(|item| **item != NONE) {
            for to in start.holders_of(item).filter(|to| kind(from) == kind(*to)) {
                if common[to] == 0 {
                    overlaps.push((0, usize::from(from != to), from, to));
                }
                common[to] += 1;
            }
        }
        for overlap in overlaps.iter_mut().rev().take_while(|overlap| overlap.2 == from) {
            overlap.0 = std::mem::take(&mut common[overlap.3]);
        }
    }
    // The largest overlap first; of equals a set stays where it is, and then the lower ranks.
    overlaps.sort_unstable_by_key(|(common, moves, from, to)| (std::cmp::Reverse(*common), *moves, *from, *to));
    let (mut goes_to, mut is_taken) = (vec![usize::MAX; ranks], vec![false; ranks]);
    // What overlaps with nothing stays where it is, too, if it can, and else goes to the lowest rank of its kind.
    let pairs = overlaps.into_iter().map(|(_, _, from, to)| (from, to)).chain((0..ranks).map(|bin| (bin, bin)));
    for (from, to) in pairs {
        if goes_to[from] == usize::MAX && !is_taken[to] {
            goes_to[from] = to;
            is_taken[to] = true;
        }
    }
    let mut left: BTreeMap<_, VecDeque<usize>> = BTreeMap::new();
    for to in (0..ranks).filter(|to| !is_taken[*to]) {
        left.entry(kind(to)).or_default().push_back(to);
    }
    for (from, to) in goes_to.iter_mut().enumerate().filter(|(_, to)| **to == usize::MAX) {
        // As many sets of a kind are left as ranks.
        *to = left.get_mut(&kind(from)).and_then(VecDeque::pop_front).unwrap_or(from);
    }
    let mut aligned = ideal.clone();
    for (from, &to) in goes_to.iter().enumerate() {
        for &item in ideal.items_of(from) {
            aligned.set_holder(from, item, false);
        }
        aligned.items[ideal.first[to]..ideal.first[to + 1]].copy_from_slice(ideal.items_of(from));
    }
    for bin in 0..ranks {
        for place in aligned.first[bin]..aligned.first[bin + 1] {
            let item = aligned.items[place];
            aligned.set_holder(bin, item, true);
        }
        aligned.settle(bin, shape);
    }
    aligned
}

/// Writes the slots of a state over a row that is there: what stays on a rank stays in its slot, and what comes takes the
/// free slots in the order of the experts.
fn write_over(state: &State, shape: &Shape, before: &[i32], out: &mut [i32]) {
    out.fill(EMPTY);
    for (index, bin) in shape.bins.iter().enumerate() {
        let slots = bin.start..bin.start + bin.slots;
        let coming = state.items_of(index).iter().copied().filter(|item| *item != NONE).collect();
        keep_in_place(coming, &before[slots.clone()], &mut out[slots]);
    }
}

/// Writes one rank's slots: what it held before keeps its slot, and the rest takes the free ones in ascending order,
/// slots that were empty first.
fn keep_in_place(mut coming: Vec<u32>, before: &[i32], out: &mut [i32]) {
    coming.sort_unstable();
    out.fill(EMPTY);
    for (slot, &entry) in out.iter_mut().zip(before) {
        if let Some(place) = coming.iter().position(|item| entry != EMPTY && *item == entry as u32) {
            *slot = entry;
            coming.remove(place);
        }
    }
    let mut free: Vec<usize> = (0..out.len()).filter(|slot| out[*slot] == EMPTY).collect();
    free.sort_by_key(|slot| before[*slot] != EMPTY);
    for (slot, item) in free.into_iter().zip(coming) {
        out[slot] = item as i32;
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
