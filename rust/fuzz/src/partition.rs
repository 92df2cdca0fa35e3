//! Partitions against dealing experts out one by one, and large ones against the formulas in wide integers. SPEC.md,
//! "Partition", "Tables" and "Representations".

use expert_placement::{Error, Experts, Partition, Strategy};

use crate::input::Input;
use crate::tables::Tables;
use crate::{Outcome, report};

/// The most experts and ranks of which every table is looked at.
const FEW: u32 = 300;

#[derive(Debug)]
struct Case {
    experts: u32,
    ranks: u32,
    strategy: Strategy,
    rank: u32,
    expert: u32,
    shared: u32,
    skipped: u32,
}

impl Case {
    fn read(input: &mut Input<'_>) -> Self {
        let strategy = Strategy::ALL[input.below(3)];
        let is_small = input.is_set();
        let [experts, ranks] = if is_small {
            [u32::from(input.u16()) % FEW, 1 + u32::from(input.u16()) % FEW]
        } else {
            [input.edge(), input.edge()]
        };
        // Ids within their ranges most of the time.
        let mut id = |end: u32| if input.byte() < 250 { input.u32() % end.max(1) } else { input.edge() };
        let (rank, expert) = (id(ranks), id(experts));
        Self { experts, ranks, strategy, rank, expert, shared: input.byte().into(), skipped: input.byte().into() }
    }

    fn is_legal(&self) -> bool {
        self.experts < 1 << 31 && (1..1 << 31).contains(&self.ranks)
    }

    fn is_small(&self) -> bool {
        self.experts <= FEW && self.ranks <= FEW
    }
}

/// Checks one case.
pub fn run(bytes: &[u8]) -> Outcome {
    let case = Case::read(&mut Input::new(bytes));
    let Ok(partition) = Partition::new(case.experts, case.ranks, case.strategy) else {
        assert!(!case.is_legal(), "refused: {case:?}");
        return Outcome::Refused;
    };
    assert!(case.is_legal(), "not refused: {case:?}");
    let mut answers = answers(&partition, &case);
    plant(&case, &mut answers);
    report(&case, answers.compare(&expected(&case)));
    Outcome::Answered
}

#[cfg(not(feature = "planted"))]
fn plant(_: &Case, _: &mut Tables) {}

/// The owner in float32, which is right as long as ids are small.
#[cfg(feature = "planted")]
fn plant(case: &Case, answers: &mut Tables) {
    if case.strategy == Strategy::Proportional && case.expert < case.experts {
        let owner = ((case.expert as f32 + 1.0) * case.ranks as f32 - 1.0) / case.experts as f32;
        answers.table("owner")[0] = owner as i64;
    }
}

/// An answer as one entry: -1 where it is an error.
fn entry(answer: Result<u32, Error>) -> [i64; 1] {
    [answer.map_or(-1, i64::from)]
}

fn written(length: usize, write: impl FnOnce(&mut [i32]) -> Result<(), Error>) -> Vec<i32> {
    let mut out = vec![i32::MIN; length];
    if write(&mut out).is_ok() { out } else { vec![i32::MIN] }
}

/// What is left of a rank's experts, taken from the front, from behind and with some left out.
fn walked(experts: Option<Experts>, skipped: u32) -> Vec<i64> {
    let Some(mut experts) = experts else { return vec![] };
    let taken = [experts.next(), experts.next_back(), experts.nth(skipped as usize), experts.next()];
    let entries = taken.map(|expert| expert.map_or(-1, i64::from));
    entries.into_iter().chain([experts.remaining().into()]).collect()
}

fn answers(partition: &Partition, case: &Case) -> Tables {
    let mut tables = Tables::default();
    tables.put("count", entry(partition.count(case.rank)));
    tables.put("start", entry(partition.start(case.rank)));
    tables.put("owner", entry(partition.owner(case.expert)));
    tables.put("local_index", entry(partition.local_index(case.expert)));
    tables.put("walked", walked(partition.experts(case.rank).ok(), case.skipped));
    tables.put("min_redundant_experts", [partition.min_redundant_experts()]);
    tables.put("is_uniform", [partition.is_uniform()]);
    if !case.is_small() {
        return tables;
    }
    let (experts, ranks, shared) = (case.experts as usize, case.ranks as usize, case.shared as usize);
    tables.put("counts", written(ranks, |out| partition.write_counts(out)));
    tables.put("starts", written(ranks, |out| partition.write_starts(out)));
    tables.put("offsets", written(ranks + 1, |out| partition.write_offsets(out)));
    tables.put("owners", written(experts, |out| partition.write_owners(out)));
    tables.put("local_indices", written(experts, |out| partition.write_local_indices(out)));
    let all: Vec<i64> = (0..i64::from(case.experts)).rev().collect();
    tables.put("owners_of", written(experts, |out| partition.write_owners_of(&all, out)));
    tables.put("local_indices_of", written(experts, |out| partition.write_local_indices_of(&all, out)));
    if case.rank < case.ranks {
        let count = partition.experts(case.rank).map_or(0, Iterator::count);
        tables.put("local_experts", written(count, |out| partition.write_local_experts(case.rank, out)));
        let map = |out: &mut [i32]| partition.write_expert_map(case.rank, out);
        tables.put("expert_map", written(experts, map));
        let map = |out: &mut [i32]| partition.write_expert_map_with_shared(case.rank, case.shared, out);
        tables.put("expert_map_with_shared", written(experts + shared, map));
        let map = |out: &mut [i32]| partition.write_expert_map_with_sentinel(case.rank, out);
        tables.put("expert_map_with_sentinel", written(experts + 1, map));
        let map = |out: &mut [i32]| partition.write_expert_mask(case.rank, case.shared, out);
        tables.put("expert_mask", written(experts + shared + 1, map));
    }
    tables
}

/// The experts of every rank in local order, dealt out one by one.
fn dealt(experts: u32, ranks: u32, strategy: Strategy) -> Vec<Vec<i64>> {
    let mut hands: Vec<Vec<i64>> = vec![Vec::new(); ranks as usize];
    // Whose turn it is.
    let mut turn = 0;
    for expert in 0..i64::from(experts) {
        hands[turn].push(expert);
        turn = (turn + 1) % hands.len();
    }
    match strategy {
        Strategy::RoundRobin => hands,
        Strategy::Linear => {
            // Hands as large, of experts that follow each other.
            let mut next = 0..;
            hands.iter().map(|hand| next.by_ref().take(hand.len()).collect()).collect()
        }
        _ => {
            // With every rank a further E / R-th of the experts is due.
            let (mut due, mut next) = (0, 0..);
            let one_more = |hand: &mut Vec<i64>| {
                hand.clear();
                due += experts;
                while due >= ranks {
                    due -= ranks;
                    hand.extend(next.next());
                }
            };
            hands.iter_mut().for_each(one_more);
            hands
        }
    }
}

/// The answers about one rank and one expert, by the formulas in integers that nothing leaves.
struct Stated {
    experts: i128,
    ranks: i128,
    strategy: Strategy,
}

impl Stated {
    fn start(&self, rank: i128) -> i128 {
        match self.strategy {
            Strategy::RoundRobin => rank,
            // Each rank before has the floor of the quotient, and the first ones one more.
            Strategy::Linear => rank * self.experts.div_euclid(self.ranks) + rank.min(self.experts % self.ranks),
            _ => (rank * self.experts).div_euclid(self.ranks),
        }
    }

    fn stride(&self) -> i128 {
        if self.strategy == Strategy::RoundRobin { self.ranks } else { 1 }
    }

    fn count(&self, rank: i128) -> i128 {
        match self.strategy {
            // The members of rank, rank + R, ... that are below E.
            Strategy::RoundRobin => (self.experts - rank + self.ranks - 1).div_euclid(self.ranks).max(0),
            _ => self.start(rank + 1) - self.start(rank),
        }
    }

    /// The last rank that starts at or before the expert, found by halving.
    fn owner(&self, expert: i128) -> i128 {
        if self.strategy == Strategy::RoundRobin {
            return expert % self.ranks;
        }
        let (mut low, mut high) = (0, self.ranks);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.start(middle) <= expert { low = middle } else { high = middle }
        }
        low
    }

    fn local_index(&self, expert: i128) -> i128 {
        (expert - self.start(self.owner(expert))) / self.stride()
    }
}

fn expected(case: &Case) -> Tables {
    let stated = Stated { experts: case.experts.into(), ranks: case.ranks.into(), strategy: case.strategy };
    let rank = Some(i128::from(case.rank)).filter(|_| case.rank < case.ranks);
    let expert = Some(i128::from(case.expert)).filter(|_| case.expert < case.experts);
    let answer = |value: Option<i128>| [value.map_or(-1, |value| i64::try_from(value).expect("an answer is an int32"))];
    let mut tables = Tables::default();
    tables.put("count", answer(rank.map(|rank| stated.count(rank))));
    tables.put("start", answer(rank.map(|rank| stated.start(rank))));
    tables.put("owner", answer(expert.map(|expert| stated.owner(expert))));
    tables.put("local_index", answer(expert.map(|expert| stated.local_index(expert))));
    tables.put("walked", rank.map_or(vec![], |rank| walk(&stated, rank, case.skipped.into())));
    tables.put("min_redundant_experts", answer(Some((-stated.experts).rem_euclid(stated.ranks))));
    tables.put("is_uniform", [stated.experts % stated.ranks == 0]);
    if case.is_small() {
        whole_tables(case, &mut tables);
    }
    tables
}

/// A rank's experts taken as `walked` takes them.
fn walk(stated: &Stated, rank: i128, skipped: i128) -> Vec<i64> {
    let at = |index: i128| (stated.start(rank) + index * stated.stride()) as i64;
    // The indices that are left.
    let (mut first, mut last) = (0, stated.count(rank));
    let mut taken = Vec::new();
    let front = |first: &mut i128, last: i128| {
        let expert = if *first < last { at(*first) } else { -1 };
        *first = (*first + 1).min(last);
        expert
    };
    taken.push(front(&mut first, last));
    taken.push(if first < last { at(last - 1) } else { -1 });
    last = (last - 1).max(first);
    first = (first + skipped).min(last);
    taken.push(front(&mut first, last));
    taken.push(front(&mut first, last));
    taken.push((last - first) as i64);
    taken
}

fn whole_tables(case: &Case, tables: &mut Tables) {
    let hands = dealt(case.experts, case.ranks, case.strategy);
    let counts = hands.iter().map(|hand| hand.len() as i64);
    let mut offsets = vec![0];
    for count in counts.clone() {
        offsets.push(offsets[offsets.len() - 1] + count);
    }
    let is_contiguous = case.strategy != Strategy::RoundRobin;
    let start = |rank: usize| if is_contiguous { offsets[rank] } else { rank as i64 };
    let mut owners = vec![-1; case.experts as usize];
    let mut local_indices = owners.clone();
    for (rank, hand) in hands.iter().enumerate() {
        for (index, expert) in hand.iter().enumerate() {
            owners[*expert as usize] = rank as i64;
            local_indices[*expert as usize] = index as i64;
        }
    }
    tables.put("counts", counts);
    tables.put("starts", (0..hands.len()).map(start));
    tables.put("offsets", if is_contiguous { offsets.clone() } else { vec![i64::from(i32::MIN)] });
    tables.put("owners", owners.iter().copied());
    tables.put("local_indices", local_indices.iter().copied());
    tables.put("owners_of", owners.iter().copied().rev());
    tables.put("local_indices_of", local_indices.iter().copied().rev());
    if let Some(hand) = hands.get(case.rank as usize) {
        let mut map = vec![-1; case.experts as usize];
        for (index, expert) in hand.iter().enumerate() {
            map[*expert as usize] = index as i64;
        }
        let shared = (0..i64::from(case.shared)).map(|shared| hand.len() as i64 + shared);
        tables.put("local_experts", hand.iter().copied());
        tables.put("expert_map", map.iter().copied());
        tables.put("expert_map_with_shared", map.iter().copied().chain(shared));
        tables.put("expert_map_with_sentinel", map.iter().copied().chain([-1]));
        let mask = map.iter().map(|entry| i64::from(*entry >= 0));
        tables.put("expert_mask", mask.chain(vec![1; case.shared as usize]).chain([0]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_every_table_matters() {
        for &strategy in Strategy::ALL {
            let case = Case { experts: 30, ranks: 8, strategy, rank: 6, expert: 25, shared: 2, skipped: 1 };
            crate::tables::expect_every_entry_matters(&expected(&case));
            let large = Case { experts: (1 << 31) - 1, ranks: 1 << 30, rank: 5, ..case };
            crate::tables::expect_every_entry_matters(&expected(&large));
        }
    }

    #[test]
    fn the_rule_that_opened_the_matter_is_refused() {
        let case =
            Case { experts: 30, ranks: 8, strategy: Strategy::Linear, rank: 7, expert: 29, shared: 0, skipped: 0 };
        let mut answers = answers(&Partition::new(30, 8, Strategy::Linear).unwrap(), &case);
        assert_eq!(answers.compare(&expected(&case)), Ok(()));
        // Every rank 30 // 8 experts, and the last one the rest too.
        answers.0[0].1 = vec![9];
        assert_eq!(answers.compare(&expected(&case)), Err("count[0] is 9, expected 3".to_owned()));
    }
}
