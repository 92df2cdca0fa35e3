//! The named invariants of SPEC.md, checked natively over whole domains.
//!
//! A law is one function with the name of its heading in SPEC.md; the function's second argument is its quantifier.
//! The same laws hold the `u8` instantiation of the arithmetic, where every value of the type is reached, and the
//! public [`Partition`]. The Python checks compare this list of names with the specification's.

use std::ops::{Range, RangeInclusive};

use rayon::prelude::*;

use crate::arithmetic::byte;
use crate::{Partition, Strategy};

/// What a law asks of an implementation. Ranks and experts given are always in range.
trait Rule {
    fn num_experts(&self) -> u64;
    fn num_ranks(&self) -> u64;
    fn strategy(&self) -> Strategy;
    fn count(&self, rank: u64) -> u64;
    fn start(&self, rank: u64) -> u64;
    fn owner(&self, expert: u64) -> u64;
    fn local_index(&self, expert: u64) -> u64;
    /// The tables that the rule writes at once, where it does.
    fn tables(&self) -> Option<Tables> {
        None
    }
    /// The same rule for one expert more, where the type has room for it.
    fn grown(&self) -> Option<Self>
    where
        Self: Sized;
}

/// What batch queries write for all ranks, or experts, at once; no offsets for a rule that is not contiguous.
#[derive(Clone)]
struct Tables {
    counts: Vec<i32>,
    starts: Vec<i32>,
    offsets: Option<Vec<i32>>,
    owners: Vec<i32>,
    local_indices: Vec<i32>,
}

impl Tables {
    fn of(partition: &Partition) -> Self {
        fn written(length: u32, write: impl Fn(&mut [i32]) -> Result<(), crate::Error>) -> Vec<i32> {
            let mut out = vec![7; length.try_into().unwrap()];
            write(&mut out).unwrap();
            out
        }
        let (experts, ranks) = (partition.num_experts(), partition.num_ranks());
        let contiguous = partition.strategy().is_contiguous();
        Self {
            counts: written(ranks, |out| partition.write_counts(out)),
            starts: written(ranks, |out| partition.write_starts(out)),
            offsets: contiguous.then(|| written(ranks + 1, |out| partition.write_offsets(out))),
            owners: written(experts, |out| partition.write_owners(out)),
            local_indices: written(experts, |out| partition.write_local_indices(out)),
        }
    }

    fn at(table: &[i32], index: u64) -> u64 {
        let entry = usize::try_from(index).ok().and_then(|index| table.get(index));
        entry.and_then(|entry| u64::try_from(*entry).ok()).unwrap_or(BEYOND)
    }
}

/// All answers of a rule, asked once, for the laws to look at.
struct Answers {
    num_experts: u64,
    num_ranks: u64,
    strategy: Strategy,
    counts: Vec<u64>,
    starts: Vec<u64>,
    owners: Vec<u64>,
    local_indices: Vec<u64>,
    tables: Option<Tables>,
    /// Counts and starts with one expert more.
    grown: Option<[Vec<u64>; 2]>,
}

/// What a law sees where a rule led it out of range; no law holds of it.
const BEYOND: u64 = 1 << 40;

impl Answers {
    fn of(rule: &impl Rule) -> Self {
        let (experts, ranks) = (0..rule.num_experts(), 0..rule.num_ranks());
        Self {
            num_experts: rule.num_experts(),
            num_ranks: rule.num_ranks(),
            strategy: rule.strategy(),
            counts: ranks.clone().map(|rank| rule.count(rank)).collect(),
            starts: ranks.clone().map(|rank| rule.start(rank)).collect(),
            owners: experts.clone().map(|expert| rule.owner(expert)).collect(),
            local_indices: experts.map(|expert| rule.local_index(expert)).collect(),
            tables: rule.tables(),
            grown: rule.grown().map(|more| {
                let counts = ranks.clone().map(|rank| more.count(rank)).collect();
                [counts, ranks.map(|rank| more.start(rank)).collect()]
            }),
        }
    }

    fn at(table: &[u64], index: u64) -> u64 {
        usize::try_from(index).ok().and_then(|index| table.get(index)).copied().unwrap_or(BEYOND)
    }

    const fn num_experts(&self) -> u64 {
        self.num_experts
    }

    const fn num_ranks(&self) -> u64 {
        self.num_ranks
    }

    const fn strategy(&self) -> Strategy {
        self.strategy
    }

    fn count(&self, rank: u64) -> u64 {
        Self::at(&self.counts, rank)
    }

    fn start(&self, rank: u64) -> u64 {
        Self::at(&self.starts, rank)
    }

    fn owner(&self, expert: u64) -> u64 {
        Self::at(&self.owners, expert)
    }

    fn local_index(&self, expert: u64) -> u64 {
        Self::at(&self.local_indices, expert)
    }

    fn grown_count(&self, rank: u64) -> Option<u64> {
        self.grown.as_ref().map(|[counts, _]| Self::at(counts, rank))
    }

    fn grown_start(&self, rank: u64) -> Option<u64> {
        self.grown.as_ref().map(|[_, starts]| Self::at(starts, rank))
    }

    fn stride(&self) -> u64 {
        if self.strategy().is_contiguous() { 1 } else { self.num_ranks() }
    }

    fn holds(&self, rank: u64, expert: u64) -> bool {
        let (start, stride) = (self.start(rank), self.stride());
        expert >= start && expert < start + self.count(rank) * stride && (stride == 1 || (expert - start) % stride == 0)
    }
}

impl Rule for Partition {
    fn num_experts(&self) -> u64 {
        self.num_experts().into()
    }
    fn num_ranks(&self) -> u64 {
        self.num_ranks().into()
    }
    fn strategy(&self) -> Strategy {
        self.strategy()
    }
    fn count(&self, rank: u64) -> u64 {
        self.count(rank.try_into().unwrap()).unwrap().into()
    }
    fn start(&self, rank: u64) -> u64 {
        self.start(rank.try_into().unwrap()).unwrap().into()
    }
    fn owner(&self, expert: u64) -> u64 {
        self.owner(expert.try_into().unwrap()).unwrap().into()
    }
    fn local_index(&self, expert: u64) -> u64 {
        self.local_index(expert.try_into().unwrap()).unwrap().into()
    }
    fn tables(&self) -> Option<Tables> {
        Some(Tables::of(self))
    }
    fn grown(&self) -> Option<Self> {
        Self::new(self.num_experts() + 1, self.num_ranks(), self.strategy()).ok()
    }
}

/// The arithmetic in `u8`, so that 255 experts on 255 ranks stand at the edge of the type.
struct Bytes {
    experts: u8,
    ranks: u8,
    strategy: Strategy,
}

impl Bytes {
    fn shares(&self) -> byte::Shares {
        byte::Shares::of(self.experts, self.ranks)
    }
}

impl Rule for Bytes {
    fn num_experts(&self) -> u64 {
        self.experts.into()
    }
    fn num_ranks(&self) -> u64 {
        self.ranks.into()
    }
    fn strategy(&self) -> Strategy {
        self.strategy
    }
    fn count(&self, rank: u64) -> u64 {
        let rank = rank.try_into().unwrap();
        match self.strategy {
            Strategy::Linear | Strategy::RoundRobin => self.shares().count(rank),
            Strategy::Proportional => byte::proportional_count(self.experts, self.ranks, rank),
        }
        .into()
    }
    fn start(&self, rank: u64) -> u64 {
        let rank = rank.try_into().unwrap();
        match self.strategy {
            Strategy::Linear => self.shares().linear_start(rank),
            Strategy::RoundRobin => rank,
            Strategy::Proportional => byte::proportional_start(self.experts, self.ranks, rank),
        }
        .into()
    }
    fn owner(&self, expert: u64) -> u64 {
        let expert = expert.try_into().unwrap();
        match self.strategy {
            Strategy::Linear => self.shares().linear_owner(expert),
            Strategy::RoundRobin => byte::round_robin_owner(self.ranks, expert),
            Strategy::Proportional => byte::proportional_owner(self.experts, self.ranks, expert),
        }
        .into()
    }
    fn local_index(&self, expert: u64) -> u64 {
        let expert = expert.try_into().unwrap();
        match self.strategy {
            Strategy::Linear => self.shares().linear_local_index(expert),
            Strategy::RoundRobin => byte::round_robin_local_index(self.ranks, expert),
            Strategy::Proportional => byte::proportional_local_index(self.experts, self.ranks, expert),
        }
        .into()
    }
    fn grown(&self) -> Option<Self> {
        Some(Self { experts: self.experts.checked_add(1)?, ..*self })
    }
}

type ForPartition = (&'static str, fn(&Answers) -> bool);
/// The first rank, or expert, of a range at which the law is broken.
type ForEach = (&'static str, fn(&Answers, Range<u64>) -> Option<u64>);
/// The first pair of two ranges at which it is.
type ForPair = (&'static str, fn(&Answers, Range<u64>, Range<u64>) -> Option<(u64, u64)>);

/// A law over ranks or experts one at a time. It stands inside the loop over them, so that what does not depend on the
/// rank, such as a division, is done once for all.
macro_rules! each {
    ($name:literal, |$p:ident, $x:ident| $law:expr) => {
        ($name, |$p, domain| domain.into_iter().find(|&$x| !$law))
    };
}

/// The same of pairs.
macro_rules! pair {
    ($name:literal, |$p:ident, $x:ident, $y:ident| $law:expr) => {
        ($name, |$p, left, right| {
            left.into_iter().find_map(|$x| Some(($x, right.clone().into_iter().find(|&$y| !$law)?)))
        })
    };
}

fn for_partition() -> Vec<ForPartition> {
    vec![
        ("ends_meet", |p| {
            let last = p.num_ranks() - 1;
            !p.strategy().is_contiguous() || p.start(0) == 0 && p.start(last) + p.count(last) == p.num_experts()
        }),
        ("counts_total_num_experts", |p| (0..p.num_ranks()).map(|r| p.count(r)).sum::<u64>() == p.num_experts()),
    ]
}

fn for_each_rank() -> Vec<ForEach> {
    vec![
        each!("contiguous", |p, r| {
            !p.strategy().is_contiguous() || r + 1 == p.num_ranks() || p.start(r + 1) == p.start(r) + p.count(r)
        }),
        each!("start_in_range", |p, r| {
            p.start(r) <= if p.strategy().is_contiguous() { p.num_experts() } else { p.num_ranks() - 1 }
        }),
        each!("growth_changes_one_rank", |p, r| {
            let grows = u64::from(r == p.num_experts() % p.num_ranks());
            p.strategy() == Strategy::Proportional || p.grown_count(r).is_none_or(|count| count == p.count(r) + grows)
        }),
        each!("growth_moves_starts_by_at_most_one", |p, r| {
            let moved = |start| start == p.start(r) || start == p.start(r) + 1;
            !p.strategy().is_contiguous() || p.grown_start(r).is_none_or(moved)
        }),
        each!("starts_follow_the_rule", |p, r| {
            let (experts, ranks, start) = (p.num_experts(), p.num_ranks(), p.start(r));
            match p.strategy() {
                Strategy::Linear => start == r * (experts / ranks) + r.min(experts % ranks),
                Strategy::RoundRobin => start == r,
                Strategy::Proportional => start * ranks <= r * experts && r * experts < (start + 1) * ranks,
            }
        }),
        each!("larger_shares_first", |p, r| {
            p.strategy() == Strategy::Proportional || r + 1 == p.num_ranks() || p.count(r) >= p.count(r + 1)
        }),
        each!("equal_when_divisible", |p, r| {
            p.num_experts() % p.num_ranks() != 0 || p.count(r) == p.num_experts() / p.num_ranks()
        }),
        each!("smallest_possible_maximum", |p, r| {
            let (experts, ranks) = (p.num_experts(), p.num_ranks());
            let most = experts.div_ceil(ranks);
            // (most - 1) * ranks < experts, where most may be 0.
            p.count(r) <= most && most * ranks >= experts && most * ranks < experts + ranks
        }),
        each!("largest_possible_minimum", |p, r| {
            let fewest = p.num_experts() / p.num_ranks();
            p.count(r) >= fewest && (fewest + 1) * p.num_ranks() > p.num_experts()
        }),
        each!("empty_only_when_scarce", |p, r| if p.num_experts() < p.num_ranks() {
            p.count(r) <= 1
        } else {
            p.count(r) >= 1
        }),
        each!("agrees_with_seed", |p, r| {
            let (base, remainder) = (p.num_experts() / p.num_ranks(), p.num_experts() % p.num_ranks());
            p.strategy() != Strategy::Linear
                || p.count(r) == base + u64::from(r < remainder) && p.start(r) == r * base + r.min(remainder)
        }),
        each!("rank_tables_agree_with_scalars", |p, r| {
            p.tables.as_ref().is_none_or(|tables| {
                Tables::at(&tables.counts, r) == p.count(r) && Tables::at(&tables.starts, r) == p.start(r)
            })
        }),
        each!("offsets_are_prefix_sums", |p, r| {
            p.tables.as_ref().and_then(|tables| tables.offsets.as_ref()).is_none_or(|offsets| {
                let (before, after) = (Tables::at(offsets, r), Tables::at(offsets, r + 1));
                (r > 0 || before == 0) && after == before + p.count(r)
            })
        }),
        each!("local_index_inverts", |p, r| {
            (0..p.count(r)).all(|i| {
                let expert = p.start(r) + i * p.stride();
                p.owner(expert) == r && p.local_index(expert) == i
            })
        }),
    ]
}

fn for_each_expert() -> Vec<ForEach> {
    vec![
        each!("owner_in_range", |p, e| p.owner(e) < p.num_ranks()),
        each!("owner_inverts", |p, e| {
            let (owner, local) = (p.owner(e), p.local_index(e));
            local < p.count(owner) && p.start(owner) + local * p.stride() == e
        }),
        each!("expert_tables_agree_with_scalars", |p, e| {
            p.tables.as_ref().is_none_or(|tables| {
                Tables::at(&tables.owners, e) == p.owner(e) && Tables::at(&tables.local_indices, e) == p.local_index(e)
            })
        }),
        each!("order_preserved", |p, e| {
            let next = e + p.stride();
            let expected = |next| if p.owner(next) == p.owner(e) { p.local_index(e) + 1 } else { 0 };
            next >= p.num_experts() || p.local_index(next) == expected(next)
        }),
    ]
}

fn for_rank_and_expert() -> Vec<ForPair> {
    vec![pair!("covers_exactly_once", |p, r, e| p.holds(r, e) == (p.owner(e) == r))]
}

fn for_two_ranks() -> Vec<ForPair> {
    vec![pair!("balanced_within_one", |p, r, s| p.count(r).abs_diff(p.count(s)) <= 1)]
}

/// The maps of one rank in the four representations, S shared experts with them.
struct Maps {
    num_shared: usize,
    index: Vec<i32>,
    with_shared: Vec<i32>,
    with_sentinel: Vec<i32>,
    mask: Vec<i32>,
}

impl Maps {
    fn of(partition: &Partition, rank: u32, num_shared: u32) -> Self {
        let routed = usize::try_from(partition.num_experts()).unwrap();
        let shared = usize::try_from(num_shared).unwrap();
        let mut maps = Self {
            num_shared: shared,
            index: vec![7; routed],
            with_shared: vec![7; routed + shared],
            with_sentinel: vec![7; routed + 1],
            mask: vec![7; routed + shared + 1],
        };
        partition.write_expert_map(rank, &mut maps.index).unwrap();
        partition.write_expert_map_with_shared(rank, num_shared, &mut maps.with_shared).unwrap();
        partition.write_expert_map_with_sentinel(rank, &mut maps.with_sentinel).unwrap();
        partition.write_expert_mask(rank, num_shared, &mut maps.mask).unwrap();
        maps
    }
}

type ForMaps = (&'static str, fn(&Partition, u32, &Maps) -> bool);

fn for_maps() -> Vec<ForMaps> {
    /// Whether something holds of every routed expert and its entry.
    fn each(maps: &Maps, mut holds: impl FnMut(u32, i32) -> bool) -> bool {
        (0..).zip(&maps.index).all(|(expert, entry)| holds(expert, *entry))
    }
    vec![
        ("map_has_one_owner", |p, r, maps| {
            each(maps, |expert, entry| (entry != crate::ABSENT) == (p.owner(expert) == Ok(r)))
        }),
        ("map_agrees_with_local_index", |p, r, maps| {
            each(maps, |expert, entry| {
                let (owner, local) = (p.owner(expert).unwrap(), p.local_index(expert).unwrap());
                i64::from(entry) == if owner == r { i64::from(local) } else { -1 }
            })
        }),
        ("representations_agree", |_, _, maps| {
            let routed = maps.index.len();
            let mask = maps.index.iter().map(|entry| i32::from(*entry >= 0));
            maps.with_shared[..routed] == maps.index
                && maps.with_sentinel[..routed] == maps.index
                && mask.eq(maps.mask[..routed].iter().copied())
        }),
        ("shared_experts_follow", |p, r, maps| {
            let (routed, count) = (maps.index.len(), p.count(r).unwrap());
            (0..maps.num_shared).zip(count..).all(|(shared, slot)| {
                i64::from(maps.with_shared[routed + shared]) == i64::from(slot) && maps.mask[routed + shared] == 1
            })
        }),
        ("sentinels_close", |_, _, maps| {
            let routed = maps.index.len();
            maps.mask[routed + maps.num_shared] == 0 && maps.with_sentinel[routed] == crate::ABSENT
        }),
    ]
}

/// Every law over maps that the maps of `rank` break.
fn broken_map_laws(partition: &Partition, rank: u32, maps: &Maps) -> Vec<&'static str> {
    for_maps().into_iter().filter(|(_, law)| !law(partition, rank, maps)).map(|(name, _)| name).collect()
}

/// As `broken_map_laws`, of every rank.
fn broken_maps(partition: &Partition) -> Vec<(&'static str, u32)> {
    let num_shared = (partition.num_experts() + partition.num_ranks()) % 3;
    let of_rank = |rank| {
        let maps = Maps::of(partition, rank, num_shared);
        broken_map_laws(partition, rank, &maps).into_iter().map(move |name| (name, rank))
    };
    (0..partition.num_ranks()).flat_map(of_rank).collect()
}

/// Every law that `rule` breaks, each with its first counterexample, among those over ranks and experts one at a time.
fn broken_laws<T: Rule>(rule: &T) -> Vec<(&'static str, u64)> {
    let answers = &Answers::of(rule);
    let first = |laws: Vec<ForEach>, domain: Range<u64>| {
        laws.into_iter().filter_map(move |(name, law)| Some((name, law(answers, domain.clone())?)))
    };
    let whole = for_partition().into_iter().filter(|(_, law)| !law(answers)).map(|(name, _)| (name, 0));
    whole
        .chain(first(for_each_rank(), 0..rule.num_ranks()))
        .chain(first(for_each_expert(), 0..rule.num_experts()))
        .collect()
}

/// Every law over pairs that `rule` breaks, each with its first counterexample.
fn broken_pair_laws<T: Rule>(rule: &T) -> Vec<(&'static str, (u64, u64))> {
    let answers = &Answers::of(rule);
    let (ranks, experts) = (rule.num_ranks(), rule.num_experts());
    let first = |laws: Vec<ForPair>, left: u64, right: u64| {
        laws.into_iter().filter_map(move |(name, law)| Some((name, law(answers, 0..left, 0..right)?)))
    };
    first(for_rank_and_expert(), ranks, experts).chain(first(for_two_ranks(), ranks, ranks)).collect()
}

fn hold<T: Rule, W: std::fmt::Debug + PartialEq>(
    experts: RangeInclusive<u32>,
    ranks: RangeInclusive<u32>,
    rule: impl Fn(u32, u32, Strategy) -> T + Sync,
    broken: impl Fn(&T) -> Vec<W> + Sync,
) {
    for &strategy in Strategy::ALL {
        experts.clone().into_par_iter().for_each(|num_experts| {
            for num_ranks in ranks.clone() {
                let found = broken(&rule(num_experts, num_ranks, strategy));
                assert_eq!(found, [], "E={num_experts} R={num_ranks} {strategy}");
            }
        });
    }
}

fn bytes(experts: u32, ranks: u32, strategy: Strategy) -> Bytes {
    Bytes { experts: experts.try_into().unwrap(), ranks: ranks.try_into().unwrap(), strategy }
}

fn words(experts: u32, ranks: u32, strategy: Strategy) -> Partition {
    Partition::new(experts, ranks, strategy).unwrap()
}

/// Domain: every value of `u8`: E in 0..=255, R in 1..=255, every rank and expert, three strategies.
/// Cost: 25 million ranks and 25 million experts, about a second. Pairs are left to the test below.
#[test]
fn laws_hold_over_all_of_u8() {
    hold(0..=255, 1..=255, bytes, broken_laws);
}

/// Domain: E in 0..=96, R in 1..=96 in `u8`, and its upper corner E, R in 248..=255; every pair of rank and expert,
/// and of ranks. Cost: 176 million pairs, a second.
#[test]
fn pair_laws_hold_over_u8() {
    hold(0..=96, 1..=96, bytes, broken_pair_laws);
    hold(248..=255, 248..=255, bytes, broken_pair_laws);
}

/// Domain: every pair of rank and expert, and of ranks, of all of `u8`: E in 0..=255, R in 1..=255; three strategies.
/// Cost: 7.5 billion pairs, some ten seconds on two cores.
#[test]
#[ignore = "long, run by `make exhaustive`"]
fn pair_laws_hold_over_all_of_u8() {
    hold(0..=255, 1..=255, bytes, broken_pair_laws);
}

/// Domain: E in 0..=256, R in 1..=256, every rank and expert, three strategies, through the public type.
/// Cost: 25 million ranks and 25 million experts, about a second.
#[test]
fn laws_hold_over_256_by_256() {
    hold(0..=256, 1..=256, words, broken_laws);
}

/// Domain: E in 0..=1024, R in 1..=1024, every rank and expert, three strategies, through the public type.
/// Cost: 1.6 billion ranks and as many experts; about a minute on two cores, so `make exhaustive` asks for it.
#[test]
#[ignore = "a minute long, run by `make exhaustive`"]
fn laws_hold_over_1024_by_1024() {
    hold(0..=1024, 1..=1024, words, broken_laws);
}

/// Domain: E in 0..=64, R in 1..=64, every rank, expert and pair of them, and the whole maps with 0, 1 or 2 shared
/// experts; three strategies. Cost: a second.
#[test]
fn map_and_pair_laws_hold_over_64_by_64() {
    hold(0..=64, 1..=64, words, broken_maps);
    hold(0..=64, 1..=64, words, broken_pair_laws);
}

/// Domain: as above, E in 0..=256 and R in 1..=256. Cost: 7.6 billion pairs, and 3.2 billion entries of each map; some
/// twenty seconds on two cores.
#[test]
#[ignore = "long, run by `make exhaustive`"]
fn map_and_pair_laws_hold_over_256_by_256() {
    hold(0..=256, 1..=256, words, broken_maps);
    hold(0..=256, 1..=256, words, broken_pair_laws);
}

/// Domain: the seed case. Every law over maps is rejected by name at least once.
#[test]
fn every_map_law_rejects_a_broken_map_by_name() {
    let partition = words(30, 8, Strategy::Linear);
    let breaking: [fn(&mut Maps); 6] = [
        |maps| maps.index[3] = 0,
        |maps| maps.index[4] = -1,
        |maps| maps.with_shared[0] = 0,
        |maps| maps.mask[5] = 0,
        |maps| maps.with_shared[31] = 4,
        |maps| maps.mask[32] = 1,
    ];
    let mut rejecting = std::collections::BTreeSet::new();
    for break_it in breaking {
        let mut maps = Maps::of(&partition, 1, 2);
        assert_eq!(broken_map_laws(&partition, 1, &maps), Vec::<&str>::new());
        break_it(&mut maps);
        let broken = broken_map_laws(&partition, 1, &maps);
        assert!(!broken.is_empty());
        rejecting.extend(broken);
    }
    assert_eq!(rejecting, for_maps().into_iter().map(|(name, _)| name).collect());
}

/// The rule that opened the matter: every rank E // R experts, and the last one the rest too.
struct RestOnLastRank(Bytes);

impl Rule for RestOnLastRank {
    fn num_experts(&self) -> u64 {
        self.0.num_experts()
    }
    fn num_ranks(&self) -> u64 {
        self.0.num_ranks()
    }
    fn strategy(&self) -> Strategy {
        Strategy::Linear
    }
    fn count(&self, rank: u64) -> u64 {
        let base = self.num_experts() / self.num_ranks();
        if rank + 1 == self.num_ranks() { self.num_experts() - rank * base } else { base }
    }
    fn start(&self, rank: u64) -> u64 {
        rank * (self.num_experts() / self.num_ranks())
    }
    fn owner(&self, expert: u64) -> u64 {
        (expert / (self.num_experts() / self.num_ranks())).min(self.num_ranks() - 1)
    }
    fn local_index(&self, expert: u64) -> u64 {
        expert - self.start(self.owner(expert))
    }
    fn grown(&self) -> Option<Self> {
        self.0.grown().map(Self)
    }
}

/// An implementation whose owner disagrees with its starts, as where a kernel computes `rank * local_count`.
struct OwnerByEqualSlabs(Bytes);

impl Rule for OwnerByEqualSlabs {
    fn num_experts(&self) -> u64 {
        self.0.num_experts()
    }
    fn num_ranks(&self) -> u64 {
        self.0.num_ranks()
    }
    fn strategy(&self) -> Strategy {
        Strategy::Linear
    }
    fn count(&self, rank: u64) -> u64 {
        self.0.count(rank)
    }
    fn start(&self, rank: u64) -> u64 {
        self.0.start(rank)
    }
    fn owner(&self, expert: u64) -> u64 {
        expert / self.num_experts().div_ceil(self.num_ranks())
    }
    fn local_index(&self, expert: u64) -> u64 {
        expert % self.num_experts().div_ceil(self.num_ranks())
    }
    fn grown(&self) -> Option<Self> {
        self.0.grown().map(Self)
    }
}

/// A rule with one wrong answer, for the laws that the two above happen to keep.
struct Wrong {
    rule: Bytes,
    count: fn(u64) -> u64,
    start: fn(u64) -> u64,
    local_index: fn(u64) -> u64,
}

impl Rule for Wrong {
    fn num_experts(&self) -> u64 {
        self.rule.num_experts()
    }
    fn num_ranks(&self) -> u64 {
        self.rule.num_ranks()
    }
    fn strategy(&self) -> Strategy {
        self.rule.strategy()
    }
    fn count(&self, rank: u64) -> u64 {
        (self.count)(self.rule.count(rank))
    }
    fn start(&self, rank: u64) -> u64 {
        (self.start)(self.rule.start(rank))
    }
    fn owner(&self, expert: u64) -> u64 {
        self.rule.owner(expert)
    }
    fn local_index(&self, expert: u64) -> u64 {
        (self.local_index)(self.rule.local_index(expert))
    }
    fn grown(&self) -> Option<Self> {
        self.rule.grown().map(|rule| Self { rule, ..*self })
    }
}

/// The right rule, whose tables were changed.
struct WrongTables(Bytes, Tables);

impl Rule for WrongTables {
    fn num_experts(&self) -> u64 {
        self.0.num_experts()
    }
    fn num_ranks(&self) -> u64 {
        self.0.num_ranks()
    }
    fn strategy(&self) -> Strategy {
        self.0.strategy()
    }
    fn count(&self, rank: u64) -> u64 {
        self.0.count(rank)
    }
    fn start(&self, rank: u64) -> u64 {
        self.0.start(rank)
    }
    fn owner(&self, expert: u64) -> u64 {
        self.0.owner(expert)
    }
    fn local_index(&self, expert: u64) -> u64 {
        self.0.local_index(expert)
    }
    fn tables(&self) -> Option<Tables> {
        Some(self.1.clone())
    }
    fn grown(&self) -> Option<Self> {
        None
    }
}

/// Domain: the seed case. A single wrong entry of any table is rejected by the law that speaks of it.
#[test]
fn every_table_law_rejects_a_wrong_entry_by_name() {
    type Broken = (&'static str, fn(&mut Tables));
    let breaking: [Broken; 7] = [
        ("rank_tables_agree_with_scalars", |tables| tables.counts[7] += 1),
        ("rank_tables_agree_with_scalars", |tables| tables.starts[0] = -1),
        ("offsets_are_prefix_sums", |tables| tables.offsets.as_mut().unwrap()[8] = 29),
        ("offsets_are_prefix_sums", |tables| tables.offsets.as_mut().unwrap().iter_mut().for_each(|entry| *entry += 1)),
        ("expert_tables_agree_with_scalars", |tables| tables.owners[29] = 6),
        ("expert_tables_agree_with_scalars", |tables| tables.local_indices[0] = 1),
        ("expert_tables_agree_with_scalars", |tables| tables.owners.truncate(29)),
    ];
    let whole = || WrongTables(bytes(30, 8, Strategy::Linear), Tables::of(&words(30, 8, Strategy::Linear)));
    assert_eq!(broken_laws(&whole()), []);
    for (law, break_it) in breaking {
        let mut mutant = whole();
        break_it(&mut mutant.1);
        assert_eq!(broken_names(&mutant).into_iter().collect::<Vec<_>>(), [law]);
    }
}

fn broken_names<T: Rule>(rule: &T) -> std::collections::BTreeSet<&'static str> {
    let pairs = broken_pair_laws(rule).into_iter().map(|(name, _)| name);
    broken_laws(rule).into_iter().map(|(name, _)| name).chain(pairs).collect()
}

/// Domain: three small cases. Every law is rejected by name at least once, so none is vacuous.
#[test]
fn every_law_rejects_a_broken_rule_by_name() {
    let seed = || bytes(30, 8, Strategy::Linear);
    assert_eq!((broken_laws(&seed()), broken_pair_laws(&seed())), (vec![], vec![]));
    let same = |x| x;
    let mutants = [
        Wrong { rule: seed(), count: |n| n + 1, start: same, local_index: same },
        Wrong { rule: seed(), count: |_| 0, start: same, local_index: same },
        Wrong { rule: seed(), count: same, start: |n| n + 1, local_index: same },
        Wrong { rule: seed(), count: same, start: same, local_index: |_| 0 },
        Wrong { rule: bytes(32, 8, Strategy::Linear), count: |n| n + 1, start: same, local_index: same },
        Wrong { rule: seed(), count: same, start: |n| n + 100, local_index: same },
    ];
    let mut rejecting = broken_names(&RestOnLastRank(seed()));
    rejecting.extend(broken_names(&RestOnLastRank(bytes(31, 8, Strategy::Linear))));
    rejecting.extend(broken_names(&OwnerByEqualSlabs(seed())));
    rejecting.extend(broken_names(&OutOfRangeOwner(seed())));
    let mut tables = Tables::of(&words(30, 8, Strategy::Linear));
    (tables.counts[0], tables.offsets, tables.owners[0]) = (3, Some(vec![0; 9]), 1);
    rejecting.extend(broken_names(&WrongTables(seed(), tables)));
    for mutant in &mutants {
        let broken = broken_names(mutant);
        assert!(!broken.is_empty());
        rejecting.extend(broken);
    }
    let one = [for_each_rank(), for_each_expert()].concat().into_iter().map(|(name, _)| name);
    let two = [for_rank_and_expert(), for_two_ranks()].concat();
    let all = for_partition().into_iter().map(|(name, _)| name).chain(one);
    assert_eq!(rejecting, all.chain(two.into_iter().map(|(name, _)| name)).collect());
}

/// Domain: the seed case alone.
#[test]
fn counterexamples_are_the_first_ones() {
    let broken = broken_laws(&RestOnLastRank(bytes(30, 8, Strategy::Linear)));
    assert!(broken.contains(&("larger_shares_first", 6)), "{broken:?}");
    let broken = broken_pair_laws(&RestOnLastRank(bytes(30, 8, Strategy::Linear)));
    assert_eq!(broken, [("balanced_within_one", (0, 7))]);
    let broken = broken_pair_laws(&OwnerByEqualSlabs(bytes(30, 8, Strategy::Linear)));
    assert_eq!(broken, [("covers_exactly_once", (6, 27))]);
}

/// An owner that is no rank.
struct OutOfRangeOwner(Bytes);

impl Rule for OutOfRangeOwner {
    fn num_experts(&self) -> u64 {
        self.0.num_experts()
    }
    fn num_ranks(&self) -> u64 {
        self.0.num_ranks()
    }
    fn strategy(&self) -> Strategy {
        self.0.strategy()
    }
    fn count(&self, rank: u64) -> u64 {
        self.0.count(rank.min(7))
    }
    fn start(&self, rank: u64) -> u64 {
        self.0.start(rank.min(7))
    }
    fn owner(&self, expert: u64) -> u64 {
        self.0.owner(expert) + 1
    }
    fn local_index(&self, expert: u64) -> u64 {
        self.0.local_index(expert)
    }
    fn grown(&self) -> Option<Self> {
        None
    }
}
