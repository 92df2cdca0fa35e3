//! Rebalancing from a placement that is there: steps that pay most for each expert moved. SPEC.md, "Warm start".
//!
//! Each layer is improved step by step, and every state on the way is kept as an offer: so many moves, so long the
//! busiest rank. What the layers offer is then bought for the whole model with one budget.

use super::nodes::{may_exchange, may_replace};
use super::refine::{self, Step};
use super::shape::Shape;
use super::state::{NONE, State};

/// How an offer comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// The row stays as it is.
    Untouched,
    /// So many steps of the way, from the row without second replicas on a rank.
    Steps(usize),
    /// So many steps of the way that goes by the windows, from the same row.
    Windows(usize),
    /// The plan from nothing.
    FromNothing,
}

/// A placement that a layer could have: so many experts moved, and the busiest rank's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Offer {
    pub(crate) course: Course,
    pub(crate) moves: usize,
    pub(crate) time: f64,
    /// The load off node, where there are homes.
    pub(crate) off_node: f64,
}

/// The way of one layer: its steps and what they offer, with the old placement first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    pub(crate) steps: Vec<Step>,
    pub(crate) offers: Vec<Offer>,
}

impl Way {
    /// The offers in ascending order of moves, without those that cost no less than another and bring no more, or that
    /// have more load off node.
    ///
    /// The first, which changes nothing that need not be changed, is always one of them.
    pub(crate) fn worthwhile(&self, most_off_node: f64) -> Vec<Offer> {
        let mut offers = self.offers.clone();
        let mut is_first = true;
        offers.retain(|offer| std::mem::take(&mut is_first) || offer.off_node <= most_off_node);
        let first = offers.len().min(1);
        offers[first..].sort_by(|left, right| left.moves.cmp(&right.moves).then(left.time.total_cmp(&right.time)));
        let mut worthwhile: Vec<Offer> = Vec::with_capacity(offers.len());
        for offer in offers {
            if worthwhile.last().is_none_or(|last| offer.time < last.time) {
                worthwhile.push(offer);
            }
        }
        worthwhile
    }
}

/// Which experts each rank held before, one bit a rank.
#[derive(Debug, Default)]
pub(crate) struct Residents {
    bits: Vec<u64>,
    words: usize,
}

impl Residents {
    pub(crate) fn fill(&mut self, state: &State) {
        self.bits.clear();
        self.bits.extend_from_slice(state.holder_bits());
        self.words = state.words();
    }

    fn held(&self, bin: usize, item: u32) -> bool {
        item != NONE && self.bits[item as usize * self.words + bin / 64] >> (bin % 64) & 1 == 1
    }

    /// What it costs that a rank gets an item: nothing where it is not new there.
    fn cost(&self, bin: usize, item: u32) -> i64 {
        i64::from(item != NONE && !self.held(bin, item))
    }

    /// Whether an item is one that the rank held before, and no room.
    fn is_at_home(&self, bin: usize, item: u32) -> bool {
        item != NONE && self.held(bin, item)
    }

    /// Whether an exchange of the first rank, all of whose items are at home there, with the second may cost less than two
    /// moves: one of them held before what the other has, or the second has room or an item that is new there.
    fn may_undo(&self, hot: usize, cold: usize, state: &State) -> bool {
        state.items_of(cold).iter().any(|item| !self.is_at_home(cold, *item) || self.held(hot, *item))
            || state.items_of(hot).iter().any(|item| self.held(cold, *item))
    }

    /// How many experts the ranks hold that they did not hold before.
    pub(crate) fn moves(&self, state: &State) -> usize {
        let now = state.holder_bits();
        now.iter().zip(&self.bits).map(|(now, before)| (now & !before).count_ones() as usize).sum()
    }

    /// What a step is charged for the experts that it moves. One that undoes a move costs nothing, or less; it is charged
    /// as much as half a move.
    pub(crate) fn price(&self, step: Step) -> f64 {
        (self.cost_of(step) as f64).max(0.5)
    }

    fn cost_of(&self, step: Step) -> i64 {
        match step {
            Step::Swap { hot, gives, cold, takes } => {
                self.cost(cold, gives) + self.cost(hot, takes) - self.cost(hot, gives) - self.cost(cold, takes)
            }
            Step::Replace { bin, old, new } => self.cost(bin, new) - self.cost(bin, old),
        }
    }
}

/// Memory that one layer after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) residents: Residents,
    touched: Vec<(usize, f64)>,
    /// Slots that can be given another expert: their rank, what they hold, its share, and what the others that hold it
    /// would get.
    spare: Vec<(usize, u32, f64, f64)>,
    refine: refine::Workspace,
}

/// Walks from a state towards `target`, and keeps every state that is better than all before it.
///
/// What an offer is worth is what `time` says of its state.
pub(crate) fn walk(
    weights: &[f64],
    target: f64,
    shape: &Shape,
    work: &mut Workspace,
    state: &mut State,
    time: impl Fn(&State) -> f64,
) -> Way {
    let mut way = Way::default();
    let offer = |course, work: &Workspace, state: &State| Offer {
        course,
        moves: work.residents.moves(state),
        time: time(state),
        off_node: state.off_node(),
    };
    way.offers.push(offer(Course::Steps(0), work, state));
    let most_steps = 32 * shape.bins.len() + 256;
    while way.steps.len() < most_steps {
        let hot = state.hottest();
        if state.times.get(hot).is_none_or(|time| *time <= target) {
            break;
        }
        if let Some(step) = best_step(weights, hot, target, shape, work, state) {
            refine::apply(step, weights, shape, state);
            way.steps.push(step);
        } else {
            work.refine.sort(state);
            let Some(swap) = refine::best_double_swap(hot, target, shape, &mut work.refine, state) else { break };
            for (gives, takes) in swap.gives.into_iter().zip(swap.takes) {
                let step = Step::Swap { hot, gives, cold: swap.cold, takes };
                refine::apply(step, weights, shape, state);
                way.steps.push(step);
            }
        }
        let offer = offer(Course::Steps(way.steps.len()), work, state);
        // An offer that costs no less and brings no more than another is none.
        while way.offers.len() > 1
            && way.offers.last().is_some_and(|last| last.moves >= offer.moves && last.time >= offer.time)
        {
            way.offers.pop();
        }
        if way.offers.iter().all(|other| offer.time < other.time) {
            way.offers.push(offer);
        }
    }
    way
}

impl Workspace {
    /// Begins with what the ranks hold in this state.
    pub(crate) fn remember(&mut self, state: &State) {
        self.residents.fill(state);
    }
}

/// A step's worth: how much excess over the target it takes away for each move that it costs.
#[derive(Clone, Copy)]
struct Best {
    worth: f64,
    step: Option<Step>,
}

impl Best {
    fn offer(&mut self, relief: f64, step: Step, residents: &Residents) {
        let worth = relief / residents.price(step);
        if worth > self.worth {
            *self = Self { worth, step: Some(step) };
        }
    }
}

/// The step that takes the most excess time away for each move, of those that relieve the busiest rank and leave no other
/// as busy.
fn best_step(
    weights: &[f64],
    hot: usize,
    target: f64,
    shape: &Shape,
    work: &mut Workspace,
    state: &State,
) -> Option<Step> {
    let least_gain = state.times[hot] * 1e-12;
    let mut best = Best { worth: least_gain, step: None };
    offer_swaps(hot, target, shape, &work.residents, state, &mut best);
    offer_replacements(weights, hot, target, shape, work, state, &mut best);
    best.step
}

fn excess(time: f64, target: f64) -> f64 {
    (time - target).max(0.0)
}

/// What rounding may add to the relief that a step seems to bring, as a part of the busiest rank's time.
const ROUNDING: f64 = 1e-14;

fn offer_swaps(hot: usize, target: f64, shape: &Shape, residents: &Residents, state: &State, best: &mut Best) {
    let (hot_time, hot_speed) = (state.times[hot], shape.bins[hot].speed);
    let (cooler, rounding) = (hot_time * (1.0 - 1e-12), hot_time * ROUNDING);
    // No exchange relieves more than all that the busiest rank has too much, and most cost two moves.
    let full_price = excess(hot_time, target) / 2.0;
    let is_settled = state.items_of(hot).iter().all(|item| residents.is_at_home(hot, *item));
    for (cold, bin) in shape.bins.iter().enumerate() {
        // More than the way to the busiest rank's time can not be moved, and no more than what is moved is relieved.
        let most = (cooler - state.times[cold]) * bin.speed / hot_speed;
        if cold == hot || most + rounding <= best.worth * 0.5 {
            continue;
        }
        if best.worth >= full_price && is_settled && !residents.may_undo(hot, cold, state) {
            continue;
        }
        let before = excess(hot_time, target) + excess(state.times[cold], target);
        for (&gives, &share) in state.items_of(hot).iter().zip(state.shares_of(hot)) {
            if gives == NONE || state.holds(cold, gives) {
                continue;
            }
            // The items of a rank are in descending order, so that more and more is moved.
            for (&takes, &other) in state.items_of(cold).iter().zip(state.shares_of(cold)) {
                let moved = share - other;
                if moved <= 0.0 || moved / hot_speed + rounding <= best.worth * 0.5 {
                    continue;
                }
                let times = ((state.loads[hot] - moved) / hot_speed, (state.loads[cold] + moved) / bin.speed);
                if times.1 >= cooler {
                    break;
                }
                let relief = before - excess(times.0, target) - excess(times.1, target);
                if relief > best.worth * 0.5
                    && (takes == NONE || !state.holds(hot, takes))
                    && may_exchange((hot, &[gives]), (cold, &[takes]), shape, state)
                {
                    best.offer(relief, Step::Swap { hot, gives, cold, takes }, residents);
                }
            }
        }
    }
}

fn offer_replacements(
    weights: &[f64],
    hot: usize,
    target: f64,
    shape: &Shape,
    work: &mut Workspace,
    state: &State,
    best: &mut Best,
) {
    let Workspace { residents, touched, spare, .. } = work;
    let (hot_time, rounding) = (state.times[hot] * (1.0 - 1e-12), state.times[hot] * ROUNDING);
    let after = |new: u32| weights[new as usize] / f64::from(state.counts[new as usize] + 1);
    let mine = state.items_of(hot).iter().zip(state.shares_of(hot)).filter(|(item, _)| **item != NONE);
    let relieved = mine.fold(0.0, |most: f64, (new, share)| most.max(share - after(*new)));
    let rooms = shape.bins.iter().zip(&state.times).map(|(bin, time)| (state.times[hot] - time) * bin.speed);
    let room = rooms.fold(0.0, f64::max) * (1.0 + 1e-9) + rounding;
    spare.clear();
    for index in 0..shape.bins.len() {
        for (&item, &share) in state.items_of(index).iter().zip(state.shares_of(index)) {
            // What one rank gives up the others that hold it get, and none has room for more than there is anywhere.
            let others = match item {
                NONE => 0.0,
                _ if state.counts[item as usize] < 2 => continue,
                _ => share / f64::from(state.counts[item as usize] - 1),
            };
            if others - relieved <= room {
                spare.push((index, item, share, others));
            }
        }
    }
    for (&new, &share) in state.items_of(hot).iter().zip(state.shares_of(hot)) {
        if new == NONE {
            break;
        }
        let next_share = after(new);
        // The ranks that hold the expert are relieved by no more than this.
        let most: f64 = state
            .holders_of(new)
            .map(|holder| excess(state.times[holder], target).min((share - next_share) / shape.bins[holder].speed))
            .sum();
        for &(index, old, old_share, others) in spare.iter() {
            let is_too_little = most + excess(state.times[index], target) + rounding <= best.worth * 0.5;
            if is_too_little || state.holds(index, new) {
                continue;
            }
            if others - (share - next_share) > room
                || (state.loads[index] + (next_share - old_share)) / shape.bins[index].speed >= hot_time
            {
                continue;
            }
            refine::list_changes(index, old, new, weights, state, touched);
            let mut relief = 0.0;
            let mut is_cooler = true;
            for &(holder, change) in touched.iter() {
                let time = (state.loads[holder] + change) / shape.bins[holder].speed;
                is_cooler &= time < hot_time;
                relief += excess(state.times[holder], target) - excess(time, target);
            }
            if is_cooler && relief > best.worth * 0.5 && may_replace(old, new, index, weights, shape, state) {
                best.offer(relief, Step::Replace { bin: index, old, new }, residents);
            }
        }
    }
}

/// The largest table that is filled to spend a budget; beyond it, each layer's offers are bought in the order of what they
/// bring for a move.
const MOST_ENTRIES: usize = 50_000_000;

/// Which offer each layer takes, so that the sum of the busiest ranks' times is the least that a budget of moves allows.
///
/// Both rules depend on the offers and not on the budget, and so a larger budget never buys less.
pub(crate) fn spend(layers: &[Vec<Offer>], budget: usize, least_gain: Option<f64>) -> Vec<usize> {
    let most: usize = layers.iter().map(|offers| offers.iter().map(|offer| offer.moves).max().unwrap_or(0)).sum();
    let number: usize = layers.iter().map(Vec::len).sum();
    match least_gain {
        None if most.saturating_mul(number) <= MOST_ENTRIES => exactly(layers, budget.min(most)),
        _ => by_slope(layers, budget, least_gain.unwrap_or(0.0)),
    }
}

/// By dynamic programming over the layers and the moves spent.
fn exactly(layers: &[Vec<Offer>], budget: usize) -> Vec<usize> {
    let mut best = vec![0.0_f64; budget + 1];
    let mut taken: Vec<Vec<u32>> = Vec::with_capacity(layers.len());
    for offers in layers {
        let mut next = vec![f64::INFINITY; budget + 1];
        let mut choice = vec![0_u32; budget + 1];
        for (index, offer) in (0..).zip(offers) {
            for spent in offer.moves..=budget {
                let time = best[spent - offer.moves] + offer.time;
                // Of equals the offer with fewer moves, which comes first.
                if time < next[spent] {
                    next[spent] = time;
                    choice[spent] = index;
                }
            }
        }
        best = next;
        taken.push(choice);
    }
    // The fewest moves that bring the most.
    let mut left = 0;
    for (spent, time) in best.iter().enumerate() {
        if *time < best[left] {
            left = spent;
        }
    }
    let mut chosen = vec![0; layers.len()];
    for (layer, offers) in layers.iter().enumerate().rev() {
        chosen[layer] = taken[layer][left] as usize;
        left -= offers[chosen[layer]].moves;
    }
    chosen
}

/// By slope: along the lower hull of each layer's offers, what brings the most for a move first, as long as it fits and
/// brings the least gain.
fn by_slope(layers: &[Vec<Offer>], budget: usize, least_gain: f64) -> Vec<usize> {
    let mut chosen: Vec<usize> = vec![0; layers.len()];
    let mut left =
        budget.saturating_sub(layers.iter().filter_map(|offers| offers.first()).map(|offer| offer.moves).sum());
    loop {
        let mut best = (0.0, 0, 0, 0);
        for (layer, offers) in layers.iter().enumerate() {
            let now = offers[chosen[layer]];
            for (index, offer) in offers.iter().enumerate().skip(chosen[layer] + 1) {
                let cost = offer.moves.saturating_sub(now.moves);
                // What takes no move has an infinite slope, or, where it brings nothing, NaN, which is above no other.
                let slope = (now.time - offer.time) / cost as f64;
                if slope > best.0 {
                    best = (slope, layer, index, cost);
                }
            }
        }
        let (slope, layer, index, cost) = best;
        if slope <= 0.0 || slope < least_gain || cost > left {
            return chosen;
        }
        left -= cost;
        chosen[layer] = index;
    }
}
