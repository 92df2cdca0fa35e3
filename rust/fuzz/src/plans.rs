//! Plans against all layouts, against the field's algorithm written plainly, and against the laws. SPEC.md, "Rebalancing".

use expert_placement::{EMPTY, MAX_OFF_NODE, Options, Placement, Policy, rebalance};

use crate::input::Input;
use crate::ranks::{Measured, Ranks};
use crate::{Outcome, is_close, law, report};

#[derive(Debug)]
struct Case {
    ranks: Ranks,
    experts: usize,
    loads: Measured,
    policy: Policy,
    groups: usize,
    previous: Option<Vec<Vec<i32>>>,
    max_moves: Option<u64>,
    min_gain: Option<f64>,
    max_off_node: Option<f64>,
    with_threads: bool,
}

impl Case {
    fn read(input: &mut Input<'_>) -> Self {
        let policy = Policy::ALL[input.below(2)];
        let ranks = Ranks::read(input, 4, 4);
        let experts = input.below(7);
        let [windows, layers] = [[1, 1, 1, 2], [1, 1, 2, 3]].map(|numbers| numbers[input.below(4)]);
        let groups = if input.below(3) == 0 { input.below(7) } else { 1 };
        let previous =
            (input.below(3) == 0).then(|| (0..layers).map(|_| ranks.legal_row(input, experts)).collect()).flatten();
        let budget = input.below(12);
        let max_moves = (previous.is_some() && budget < 6).then_some(budget as u64);
        let min_gain = (previous.is_some() && input.below(6) == 0).then(|| f64::from(input.byte()) / 64.0);
        let max_off_node = (input.below(6) == 0).then(|| f64::from(input.byte()) / 250.0);
        let with_threads = input.below(32) == 31;
        let loads = Measured::read(input, windows, layers, experts);
        Self { ranks, experts, loads, policy, groups, previous, max_moves, min_gain, max_off_node, with_threads }
    }

    /// How many experts the usable ranks can hold: a second replica brings a rank nothing.
    fn room(&self) -> usize {
        let usable = (0..self.ranks.num_ranks()).filter(|rank| self.ranks.active[*rank]);
        usable.map(|rank| self.experts.min(self.ranks.slots[rank] as usize)).sum()
    }

    fn has_groups(&self) -> bool {
        (1..=self.experts.max(1)).contains(&self.groups) && self.experts % self.groups == 0
    }

    fn is_plain(&self) -> bool {
        self.max_moves.is_none() && self.min_gain.is_none() && self.max_off_node.is_none()
    }

    /// Whether the ranks are such that the field's algorithm can be asked: equal, and all in service.
    fn is_even(&self) -> bool {
        let Ranks { slots, speeds, active, num_nodes, .. } = &self.ranks;
        !active.contains(&false)
            && slots.iter().all(|one| *one == slots[0])
            && speeds.iter().all(|one| *one == speeds[0])
            && (self.groups % num_nodes != 0 || slots.len() % num_nodes == 0)
            && self.experts <= self.ranks.num_slots()
            && self.has_groups()
    }

    fn plan(&self, loads: &Measured, change: impl FnOnce(&mut Options<'_>)) -> Option<Vec<Vec<i32>>> {
        self.placement(loads, change).map(|plan| rows(&plan))
    }

    fn placement(&self, loads: &Measured, change: impl FnOnce(&mut Options<'_>)) -> Option<Placement> {
        let previous = self.previous.as_ref().map(|rows| self.ranks.placement(rows, self.experts).expect("legal rows"));
        let mut options = Options::default();
        options.policy = self.policy;
        options.num_groups = self.groups as u32;
        options.previous = previous.as_ref();
        options.max_moves = self.max_moves;
        options.min_gain = self.min_gain;
        options.max_off_node = self.max_off_node;
        change(&mut options);
        rebalance(&loads.loads(), self.ranks.num_slots() as u64, &self.ranks.topology(), &options).ok()
    }

    /// The mean over the windows of the largest time of a layer, times their number.
    fn largest(&self, row: &[i32], layer: usize) -> f64 {
        self.largest_of(row, &self.loads.of_layer(layer))
    }

    fn largest_of(&self, row: &[i32], windows: &[&[f64]]) -> f64 {
        windows.iter().map(|loads| self.ranks.times(row, loads).into_iter().fold(0.0, f64::max)).sum()
    }

    /// How often each rank holds each expert.
    fn copies(&self, row: &[i32]) -> Vec<Vec<usize>> {
        let of_rank = |rank: usize| {
            let slots = &row[self.ranks.range(rank)];
            (0..self.experts).map(|expert| slots.iter().filter(|entry| **entry == expert as i32).count()).collect()
        };
        (0..self.ranks.num_ranks()).map(of_rank).collect()
    }

    fn keeps_apart(&self, row: &[i32]) -> bool {
        self.copies(row).concat().into_iter().all(|copies| copies <= 1)
    }

    /// How many experts come to ranks that did not hold them as often.
    fn moves(&self, from: &[i32], to: &[i32]) -> usize {
        let (before, after) = (self.copies(from).concat(), self.copies(to).concat());
        before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).sum()
    }
}

/// Checks one case.
pub fn run(bytes: &[u8]) -> Outcome {
    let case = Case::read(&mut Input::new(bytes));
    let Some(plan) = case.placement(&case.loads, |_| {}) else {
        let is_plain = case.is_plain() && case.policy == Policy::Balanced;
        assert!(!is_plain || case.room() < case.experts || !case.has_groups(), "refused: {case:?}");
        let is_field = case.policy == Policy::Deepseek && case.is_plain();
        assert!(!is_field || !case.is_even() || case.ranks.num_slots() == 0, "refused: {case:?}");
        return Outcome::Refused;
    };
    assert!(case.room() >= case.experts && case.has_groups(), "not refused: {case:?}");
    let mut rows = rows(&plan);
    plant(&case, &mut rows);
    report(&case, check(&case, &rows));
    report(&case, bounds(&case, &rows, &plan));
    Outcome::Answered
}

#[cfg(not(feature = "planted"))]
fn plant(_: &Case, _: &mut [Vec<i32>]) {}

/// A plan that knows nothing of ranks out of service.
#[cfg(feature = "planted")]
fn plant(case: &Case, rows: &mut [Vec<i32>]) {
    if case.ranks.active.contains(&false) && case.previous.is_none() {
        let ranks = case.ranks.with_active(vec![true; case.ranks.num_ranks()]);
        let loads = case.loads.loads();
        let plan = rebalance(&loads, ranks.num_slots() as u64, &ranks.topology(), &Options::default());
        if let (Ok(plan), Policy::Balanced) = (plan, case.policy) {
            rows.clone_from_slice(&self::rows(&plan));
        }
    }
}

fn rows(plan: &Placement) -> Vec<Vec<i32>> {
    let table = plan.physical_to_logical();
    let slots = plan.num_slots();
    (0..plan.num_layers()).map(|layer| table[layer * slots..(layer + 1) * slots].to_vec()).collect()
}

/// The laws of plans, of a plan by whomever it was made.
fn check(case: &Case, plan: &[Vec<i32>]) -> Result<(), String> {
    let is_balanced = case.policy == Policy::Balanced;
    for row in plan {
        law("plan_leaves_no_expert_out", (0..case.experts as i32).all(|expert| row.contains(&expert)))?;
        law("inactive_ranks_stay_empty", case.ranks.is_legal(row, case.experts))?;
    }
    law("plans_repeat_themselves", case.plan(&case.loads, |_| {}).as_deref() == Some(plan))?;
    if case.with_threads {
        let threads = case.plan(&case.loads, |options| options.num_threads = 2);
        law("threads_change_nothing", threads.as_deref() == Some(plan))?;
    }
    let scaled = case.plan(&case.loads.map(|load| load * 4.0), |_| {});
    law("only_ratios_of_loads_matter", scaled.as_deref() == Some(plan))?;
    match &case.previous {
        None => from_nothing(case, plan)?,
        Some(previous) => from_previous(case, plan, previous)?,
    }
    for (layer, row) in plan.iter().enumerate() {
        let before = case.previous.as_ref().map(|rows| case.copies(&rows[layer]).concat());
        let more = case.copies(row).concat();
        let is_kept = |place: usize| more[place] <= before.as_ref().map_or(1, |before| before[place].max(1));
        if is_balanced && !(0..more.len()).all(is_kept) {
            // Second copies are taken from the field's algorithm where they pay.
            let field = field_row(case, layer);
            law(
                "replicas_are_kept_apart",
                field.is_some_and(|field| is_close(case.largest(&field, layer), case.largest(row, layer))),
            )?;
        }
    }
    Ok(())
}

fn from_nothing(case: &Case, plan: &[Vec<i32>]) -> Result<(), String> {
    for (layer, row) in plan.iter().enumerate() {
        let alone = Measured(case.loads.0.iter().map(|window| vec![window[layer].clone()]).collect());
        let alone = case.plan(&alone, |_| {});
        law("layers_are_planned_alone", alone.as_ref().is_some_and(|alone| alone[0] == *row))?;
        let field = field_row(case, layer);
        if case.policy == Policy::Deepseek {
            law("deepseek_is_followed_exactly", row.is_empty() || field.as_ref() == Some(row))?;
            continue;
        }
        let largest = case.largest(row, layer);
        if let Some(field) = field {
            law("never_worse_than_deepseek", largest <= case.largest(&field, layer) * (1.0 + 1e-9))?;
        }
        if case.loads.0.len() > 1 {
            let summed = Measured(vec![vec![case.loads.summed(layer)]]);
            let of_sum = case.plan(&summed, |_| {}).map(|rows| case.largest(&rows[0], layer));
            law("windows_are_planned_for", of_sum.is_none_or(|of_sum| largest <= of_sum * (1.0 + 1e-9)))?;
        }
    }
    Ok(())
}

fn from_previous(case: &Case, plan: &[Vec<i32>], previous: &[Vec<i32>]) -> Result<(), String> {
    let moves: usize = plan.iter().zip(previous).map(|(row, before)| case.moves(before, row)).sum();
    law("budget_is_kept", case.max_moves.is_none_or(|budget| moves as u64 <= budget))?;
    for (row, before) in plan.iter().zip(previous) {
        for rank in 0..case.ranks.num_ranks() {
            let (now, then) = (&row[case.ranks.range(rank)], &before[case.ranks.range(rank)]);
            let stay = |expert: i32| {
                let count = |slots: &[i32]| slots.iter().filter(|entry| **entry == expert).count();
                let same = now.iter().zip(then).filter(|(now, then)| **now == expert && **then == expert).count();
                same == count(now).min(count(then))
            };
            law("staying_experts_keep_their_slots", (0..case.experts as i32).all(stay))?;
        }
    }
    if case.policy == Policy::Deepseek {
        return Ok(());
    }
    if let Some(budget) = case.max_moves {
        law("no_moves_change_nothing", budget > 0 || plan == previous)?;
        let sum = |plan: &[Vec<i32>]| plan.iter().enumerate().map(|(layer, row)| case.largest(row, layer)).sum::<f64>();
        let more = case.plan(&case.loads, |options| options.max_moves = Some(budget + 1));
        law("more_moves_never_hurt", more.is_some_and(|more| sum(&more) <= sum(plan) * (1.0 + 1e-9)))?;
    } else if case.is_plain() && case.groups == 1 {
        let anew = case.plan(&case.loads, |options| options.previous = None).unwrap_or_default();
        for (layer, (row, anew)) in plan.iter().zip(&anew).enumerate() {
            let bound: f64 = case.loads.of_layer(layer).iter().map(|loads| stated_bound(case, loads)).sum();
            let (ours, other) = (case.largest(row, layer), case.largest(anew, layer));
            let is_good = ours <= other * (1.0 + 1e-9) || ours <= bound * (1.0 + 2e-4 + 1e-9);
            law("free_moves_balance_as_from_nothing", is_good)?;
        }
    }
    Ok(())
}

/// The row of the field's algorithm for a layer, where it applies.
fn field_row(case: &Case, layer: usize) -> Option<Vec<i32>> {
    if !case.is_even() {
        return None;
    }
    if case.experts == 0 {
        return Some(vec![EMPTY; case.ranks.num_slots()]);
    }
    let loads: Vec<f32> = case.loads.summed(layer).into_iter().map(|load| load as f32).collect();
    let (slots, ranks) = (case.ranks.num_slots(), case.ranks.num_ranks());
    let is_hierarchical = case.groups % case.ranks.num_nodes == 0;
    let [groups, nodes] = if is_hierarchical { [case.groups, case.ranks.num_nodes] } else { [1, 1] };
    Some(field(&loads, slots, groups, nodes, ranks))
}

/// Which weights each pack gets, in the order in which they come to it.
fn packed(weights: &[f32], packs: usize) -> Vec<Vec<usize>> {
    let each = weights.len() / packs;
    if each == 1 {
        return (0..packs).map(|pack| vec![pack]).collect();
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|left, right| weights[*right].total_cmp(&weights[*left]).then(left.cmp(right)));
    let (mut content, mut sums) = (vec![Vec::new(); packs], vec![0.0_f64; packs]);
    for weight in order {
        let open = (0..packs).filter(|pack| content[*pack].len() < each);
        let pack = open.min_by(|left, right| sums[*left].total_cmp(&sums[*right])).expect("a pack with room");
        content[pack].push(weight);
        sums[pack] += f64::from(weights[weight]);
    }
    content
}

/// The field's algorithm: groups into nodes, replicas in every node, replicas into ranks.
fn field(loads: &[f32], slots: usize, groups: usize, nodes: usize, ranks: usize) -> Vec<i32> {
    let of_group = loads.len() / groups;
    let heavy = |group: &[f32]| group.iter().map(|load| f64::from(*load)).sum::<f64>() as f32;
    let sums: Vec<f32> = loads.chunks(of_group).map(heavy).collect();
    let mut row = Vec::new();
    for groups in packed(&sums, nodes) {
        let experts: Vec<usize> = groups.iter().flat_map(|group| group * of_group..(group + 1) * of_group).collect();
        let (mut replicas, mut counts) = (experts.clone(), vec![1_u16; loads.len()]);
        while replicas.len() < slots / nodes {
            let share = |expert: usize| loads[expert] / f32::from(counts[expert]);
            // The first of equals in the order of the node.
            let mut heaviest = experts[0];
            for &expert in &experts {
                if share(expert) > share(heaviest) {
                    heaviest = expert;
                }
            }
            counts[heaviest] += 1;
            replicas.push(heaviest);
        }
        let shares: Vec<f32> = replicas.iter().map(|expert| loads[*expert] / f32::from(counts[*expert])).collect();
        for pack in packed(&shares, ranks / nodes) {
            row.extend(pack.into_iter().map(|replica| replicas[replica] as i32));
        }
    }
    row
}

/// Every row that these ranks may have, as far as there are at most so many.
fn layouts(case: &Case, most: usize) -> Option<Vec<Vec<i32>>> {
    let of_slots = case.ranks.of_slots();
    let mut rows = vec![vec![]];
    for rank in of_slots {
        let last = if case.ranks.active[rank] { case.experts as i32 } else { 0 };
        let longer = |row: &Vec<i32>| (-1..last).map(|entry| [row.as_slice(), &[entry]].concat()).collect::<Vec<_>>();
        rows = rows.iter().flat_map(longer).collect();
        if rows.len() > most {
            return None;
        }
    }
    rows.retain(|row| case.ranks.is_legal(row, case.experts));
    Some(rows)
}

/// The least largest share of any numbers of replicas that can be held apart, by adding them one by one.
fn least_share(case: &Case, loads: &[f64]) -> f64 {
    let rooms: Vec<usize> = (0..case.ranks.num_ranks())
        .filter(|rank| case.ranks.is_usable(*rank))
        .map(|rank| case.experts.min(case.ranks.slots[rank] as usize))
        .collect();
    let mut counts = vec![1_usize; case.experts];
    loop {
        let share = |expert: usize| loads[expert] / counts[expert] as f64;
        let most = (0..case.experts).map(share).fold(0.0, f64::max);
        let Some(heaviest) = (0..case.experts).find(|expert| share(*expert) == most) else { return 0.0 };
        counts[heaviest] += 1;
        if most == 0.0 || !can_be_apart(&counts, &rooms) {
            return most;
        }
    }
}

/// Whether ranks with such rooms can hold so many replicas of each expert, none twice: the experts with the most go to the
/// ranks with the most room.
fn can_be_apart(counts: &[usize], rooms: &[usize]) -> bool {
    let (mut counts, mut rooms) = (counts.to_vec(), rooms.to_vec());
    counts.sort_unstable_by(|left, right| right.cmp(left));
    for count in counts {
        rooms.sort_unstable_by(|left, right| right.cmp(left));
        if count > rooms.len() || (count > 0 && rooms[count - 1] == 0) {
            return false;
        }
        rooms[..count].iter_mut().for_each(|room| *room -= 1);
    }
    true
}

/// The lower bound of "Balance" for one window.
fn stated_bound(case: &Case, loads: &[f64]) -> f64 {
    let usable =
        || (0..case.ranks.num_ranks()).filter(|rank| case.ranks.is_usable(*rank)).map(|rank| case.ranks.speeds[rank]);
    if loads.iter().sum::<f64>() == 0.0 {
        return 0.0;
    }
    let spread = loads.iter().sum::<f64>() / usable().sum::<f64>();
    spread.max(least_share(case, loads) / usable().fold(0.0, f64::max))
}

/// The reported bounds, the best of all layouts where these are few, and the load off node.
fn bounds(case: &Case, rows: &[Vec<i32>], plan: &Placement) -> Result<(), String> {
    let reports = plan.report(&case.loads.loads()).expect("a report");
    let layouts = (case.loads.0.len() == 1).then(|| layouts(case, 3000)).flatten();
    let is_home_kept = case.groups > 1 && case.ranks.num_nodes > 1 && case.groups % case.ranks.num_nodes == 0;
    for (layer, (row, report)) in rows.iter().zip(&reports).enumerate() {
        let windows = case.loads.of_layer(layer);
        let bound = windows.iter().map(|loads| stated_bound(case, loads)).sum();
        law("bound_is_the_stated_one", is_close(report.lower_bound, bound))?;
        let largest = case.largest(row, layer);
        law("plans_respect_the_bound", bound <= largest * (1.0 + 1e-9))?;
        if let Some(layouts) = &layouts {
            let best = |rows: &mut dyn Iterator<Item = &Vec<i32>>| {
                rows.map(|row| case.largest(row, layer)).fold(f64::INFINITY, f64::min)
            };
            let all = best(&mut layouts.iter());
            law("bound_is_respected_by_all_layouts", bound <= all * (1.0 + 1e-9) && all <= largest * (1.0 + 1e-9))?;
            let share = |row: &Vec<i32>| {
                let held = |expert: usize| row.iter().filter(|entry| **entry == expert as i32).count() as f64;
                (0..case.experts).map(|expert| windows[0][expert] / held(expert)).fold(0.0, f64::max)
            };
            let apart = layouts.iter().filter(|row| case.keeps_apart(row)).map(share).fold(f64::INFINITY, f64::min);
            law("replication_is_optimal", is_close(least_share(case, windows[0]), apart))?;
            let usable: Vec<usize> = (0..case.ranks.num_ranks()).filter(|rank| case.ranks.is_usable(*rank)).collect();
            let is_single = usable
                .iter()
                .all(|rank| case.ranks.slots[*rank] == 1 && case.ranks.speeds[*rank] == case.ranks.speeds[usable[0]]);
            if is_single && !is_home_kept && case.policy == Policy::Balanced && case.previous.is_none() {
                law("single_slots_are_used_best", is_close(largest, all))?;
            }
        }
    }
    if case.policy == Policy::Balanced && case.previous.is_none() && is_home_kept {
        off_node(case, rows, plan)?;
    }
    Ok(())
}

/// Where nodes have room for whole groups no more is served off node than may be.
fn off_node(case: &Case, rows: &[Vec<i32>], plan: &Placement) -> Result<(), String> {
    let (nodes, of_group) = (case.ranks.nodes(), case.experts / case.groups);
    let mut room = vec![0; case.ranks.num_nodes];
    (0..case.ranks.num_ranks()).filter(|rank| case.ranks.active[*rank]).for_each(|rank| {
        room[nodes[rank]] += case.ranks.slots[rank] as usize;
    });
    if room.iter().map(|room| room / of_group).sum::<usize>() < case.groups {
        return Ok(());
    }
    let limit = case.max_off_node.unwrap_or(MAX_OFF_NODE);
    let told = plan.off_node_fractions(&case.loads.loads(), case.groups as u32).expect("fractions");
    let of_slots = case.ranks.of_slots();
    for (layer, row) in rows.iter().enumerate() {
        let loads = case.loads.summed(layer);
        let (mut served, mut total) = (0.0, 0.0);
        for group in 0..case.groups {
            let mut of_node = vec![0.0; case.ranks.num_nodes];
            for (slot, entry) in row.iter().enumerate().filter(|(_, entry)| **entry >= 0) {
                let expert = *entry as usize;
                if expert / of_group == group {
                    let replicas = row.iter().filter(|other| *other == entry).count();
                    of_node[nodes[of_slots[slot]]] += loads[expert] / replicas as f64;
                }
            }
            served += of_node.iter().copied().fold(0.0, f64::max);
            total += of_node.iter().sum::<f64>();
        }
        let off = if total > 0.0 { 1.0 - served / total } else { 0.0 };
        law("off_node_is_what_it_says", (off - told[layer]).abs() <= 1e-9)?;
        law("load_off_node_is_limited", off <= limit + 1e-9)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three experts of loads 6, 3 and 1 on two ranks of two slots.
    fn case() -> Case {
        Case {
            ranks: Ranks::with(&[2, 2]),
            experts: 3,
            loads: Measured(vec![vec![vec![6.0, 3.0, 1.0]]]),
            policy: Policy::Balanced,
            groups: 1,
            previous: None,
            max_moves: None,
            min_gain: None,
            max_off_node: None,
            with_threads: true,
        }
    }

    fn broken(case: &Case, row: &[i32]) -> String {
        check(case, &[row.to_vec()]).expect_err("a law is broken")
    }

    #[test]
    fn what_the_crate_plans_is_a_plan() {
        let case = case();
        let plan = case.placement(&case.loads, |_| {}).unwrap();
        assert_eq!(check(&case, &rows(&plan)), Ok(()));
        assert_eq!(bounds(&case, &rows(&plan), &plan), Ok(()));
    }

    #[test]
    fn broken_plans_are_refused_by_the_name_of_the_law() {
        let mut case = case();
        assert_eq!(broken(&case, &[0, 1, 0, 1]), "plan_leaves_no_expert_out");
        assert_eq!(broken(&case, &[2, 1, 1, 0]), "plans_repeat_themselves");
        case.ranks.active = vec![false, true];
        case.ranks.slots = vec![1, 3];
        assert_eq!(broken(&case, &[0, 0, 1, 2]), "inactive_ranks_stay_empty");
        // What the laws say of a plan alone, without a second look at the planner.
        let mut case = self::case();
        assert_eq!(from_nothing(&case, &[vec![0, 0, 1, 2]]), Err("layers_are_planned_alone".to_owned()));
        case.policy = Policy::Deepseek;
        assert_eq!(case.plan(&case.loads, |_| {}).as_deref(), Some([field_row(&case, 0).unwrap()].as_slice()));
        case.policy = Policy::Balanced;
        case.max_moves = Some(0);
        let previous = [vec![0, 1, 2, 0]];
        case.previous = Some(previous.to_vec());
        let warm = |row: &[i32]| from_previous(&case, &[row.to_vec()], &previous);
        assert_eq!(warm(&[0, 1, 2, 0]), Ok(()));
        assert_eq!(warm(&[0, 1, 2, 1]), Err("budget_is_kept".to_owned()));
        assert_eq!(warm(&[1, 0, 2, 0]), Err("staying_experts_keep_their_slots".to_owned()));
    }

    #[test]
    fn bounds_that_another_plan_reports_are_refused() {
        let mut case = case();
        let plan = case.placement(&case.loads, |_| {}).unwrap();
        case.ranks.speeds = vec![2.0, 1.0];
        assert_eq!(bounds(&case, &rows(&plan), &plan), Err("bound_is_the_stated_one".to_owned()));
    }

    #[test]
    fn the_plain_algorithm_gives_the_golden_case() {
        let layers = [
            [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
            [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
        ];
        let expected =
            [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1], [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]];
        for (loads, expected) in layers.iter().zip(expected) {
            assert_eq!(field(&loads.map(|load: u8| f32::from(load)), 16, 4, 2, 8), expected);
        }
    }

    #[test]
    fn replicas_that_can_be_apart_are_told() {
        assert!(
            can_be_apart(&[2, 1, 1], &[2, 2]) && !can_be_apart(&[3, 1], &[2, 2]) && !can_be_apart(&[2, 2, 1], &[2, 2])
        );
    }
}
