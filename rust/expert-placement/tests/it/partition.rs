//! The public contract: values beyond what can be exhausted, the batch forms, the representations, the errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "a test stops at the first thing that is not as it should be"
)]

use expert_placement::limits::{Limit, NUM_EXPERTS, NUM_LISTED_RANKS, NUM_RANKS, NUM_SHARED_EXPERTS};
use expert_placement::{ABSENT, Error, ExpertMap, Partition, Printable, Strategy, legal_ranks, with_redundant_experts};
use proptest::prelude::*;

type Writer = fn(&Partition, &mut [i32]) -> Result<(), Error>;
type QueryWriter = fn(&Partition, &[i32], &mut [i32]) -> Result<(), Error>;

fn table(partition: &Partition, length: u32, write: Writer) -> Vec<i32> {
    let mut out = vec![i32::MIN; length as usize];
    write(partition, &mut out).unwrap();
    out
}

fn table_of(ids: &[i32], write: impl Fn(&[i32], &mut [i32]) -> Result<(), Error>) -> Vec<i32> {
    let mut out = vec![i32::MIN; ids.len()];
    write(ids, &mut out).unwrap();
    out
}

fn any_of(limit: Limit) -> impl proptest::strategy::Strategy<Value = u32> {
    prop_oneof![limit.min()..=limit.max(), limit.min()..=300, limit.max() - 300..=limit.max()]
}

fn any_strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    proptest::sample::select(Strategy::ALL)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Domain: E and R up to their limits, one rank and one expert each, three strategies; 20,000 samples, under 1 s.
    #[test]
    fn owner_start_and_local_index_agree_up_to_the_limits(
        experts in any_of(NUM_EXPERTS), ranks in any_of(NUM_RANKS), strategy in any_strategy(),
        expert in any::<prop::sample::Index>(), rank in any::<prop::sample::Index>(),
    ) {
        let p = Partition::new(experts, ranks, strategy).unwrap();
        let r = rank.index(ranks as usize) as u32;
        let (count, start) = (p.count(r).unwrap(), p.start(r).unwrap());
        prop_assert!(count == experts / ranks || count == experts.div_ceil(ranks));
        prop_assert!(p.experts(r).unwrap().len() == count as usize);
        if strategy.is_contiguous() {
            let end = if r + 1 < ranks { p.start(r + 1).unwrap() } else { experts };
            prop_assert_eq!(start + count, end);
        }
        if let Some(last) = p.experts(r).unwrap().next_back() {
            prop_assert_eq!((p.owner(last).unwrap(), p.local_index(last).unwrap()), (r, count - 1));
            prop_assert_eq!(p.experts(r).unwrap().nth(count as usize - 1), Some(last));
        }
        prop_assert_eq!(p.experts(r).unwrap().nth(count as usize), None);
        if experts > 0 {
            let e = expert.index(experts as usize) as u32;
            let owner = p.owner(e).unwrap();
            prop_assert_eq!(p.experts(owner).unwrap().nth(p.local_index(e).unwrap() as usize), Some(e));
        }
    }

    /// Domain: any id of 128 bits beside a partition up to the limits; 20,000 samples, under 1 s.
    #[test]
    fn ids_out_of_range_are_refused_and_never_panic(
        experts in any_of(NUM_EXPERTS), ranks in any_of(NUM_RANKS), strategy in any_strategy(),
        id in any::<i128>(), small in any::<u32>(),
    ) {
        let p = Partition::new(experts, ranks, strategy).unwrap();
        prop_assert_eq!(p.check_rank(id).is_ok(), (0..i128::from(ranks)).contains(&id));
        prop_assert_eq!(p.check_expert(id).is_ok(), (0..i128::from(experts)).contains(&id));
        prop_assert_eq!(p.count(small).is_ok(), small < ranks);
        prop_assert_eq!(p.start(small).is_ok(), small < ranks);
        prop_assert_eq!(p.experts(small).is_ok(), small < ranks);
        prop_assert_eq!(p.owner(small).is_ok(), small < experts);
        prop_assert_eq!(p.local_index(small).is_ok(), small < experts);
    }
}

/// What a map is read as has to be written again unchanged, and to say what the map says.
fn look_at(read: Result<ExpertMap, Error>, map: &[i32], experts: u32, write: impl Fn(&ExpertMap, &mut [i32])) -> bool {
    let Ok(read) = read else { return false };
    let mut out = vec![i32::MIN; map.len()];
    write(&read, &mut out);
    assert_eq!(out, map, "{read:?}");
    assert_eq!(read.num_experts(), experts);
    let mut local = vec![i32::MIN; read.local_experts().len()];
    read.write_local_experts(&mut local).unwrap();
    assert_eq!(ExpertMap::from_local_experts(&local, experts).unwrap(), read);
    true
}

/// Domain: every list of up to 6 entries from -1 to 3, read as every representation for every E up to 6 and S up to 2.
#[test]
fn whatever_is_read_as_a_representation_is_written_back_unchanged() {
    let mut read = [0; 4];
    for length in 0..=6 {
        for number in 0..5_i32.pow(length) {
            let map: Vec<i32> = (0..length).map(|place| number / 5_i32.pow(place) % 5 - 1).collect();
            for experts in 0..=6 {
                let as_map = ExpertMap::from_index_map(&map, experts);
                let is_map = as_map.is_ok();
                read[0] += usize::from(look_at(as_map, &map, experts, |read, out| read.write_index_map(out).unwrap()));
                let as_one = ExpertMap::from_index_map_with_sentinel(&map, experts);
                let is_read = look_at(as_one, &map, experts, |read, out| {
                    read.write_index_map_with_sentinel(out).unwrap();
                });
                read[1] += usize::from(is_read);
                for shared in 0..=2 {
                    let as_one = ExpertMap::from_index_map_with_shared(&map, experts, shared);
                    let is_read = look_at(as_one, &map, experts, |read, out| {
                        assert_eq!(read.length_with_shared(shared).unwrap(), map.len() as u64);
                        read.write_index_map_with_shared(shared, out).unwrap();
                    });
                    read[2] += usize::from(is_read);
                    let as_one = ExpertMap::from_mask(&map, experts, shared);
                    let is_read = look_at(as_one, &map, experts, |read, out| read.write_mask(shared, out).unwrap());
                    assert!(!is_read || !is_map);
                    read[3] += usize::from(is_read);
                }
            }
        }
    }
    // Every set of experts whose local indices, with those of shared experts, are at most 3; of masks, every set.
    assert_eq!(read, [119, 62, 119 + 56 + 25, 63 + 31 + 15]);
}

/// Domain: E in 0..=64, R in 1..=64, three strategies; every table and every rank's maps. Under 1 s.
#[test]
fn tables_agree_with_the_scalar_answers() {
    for &strategy in Strategy::ALL {
        for (experts, ranks) in (0..=64).flat_map(|experts| (1..=64).map(move |ranks| (experts, ranks))) {
            let p = Partition::new(experts, ranks, strategy).unwrap();
            let per_rank = |f: &dyn Fn(u32) -> u32| (0..ranks).map(|r| f(r) as i32).collect::<Vec<_>>();
            let per_expert = |f: &dyn Fn(u32) -> u32| (0..experts).map(|e| f(e) as i32).collect::<Vec<_>>();
            let counts = table(&p, ranks, Partition::write_counts);
            assert_eq!(counts, per_rank(&|r| p.count(r).unwrap()));
            assert_eq!(table(&p, ranks, Partition::write_starts), per_rank(&|r| p.start(r).unwrap()));
            assert_eq!(table(&p, experts, Partition::write_owners), per_expert(&|e| p.owner(e).unwrap()));
            assert_eq!(table(&p, experts, Partition::write_local_indices), per_expert(&|e| p.local_index(e).unwrap()));
            if strategy.is_contiguous() {
                let offsets = table(&p, ranks + 1, Partition::write_offsets);
                let mut total = 0;
                assert!(offsets.iter().zip(counts.iter().chain(&[0])).all(|(offset, count)| {
                    let expected = total;
                    total += count;
                    *offset == expected
                }));
            } else {
                assert!(p.write_offsets(&mut vec![0; ranks as usize + 1]).is_err());
            }
            let ids = (0..experts.max(ranks)).map(|id| id as i32).collect::<Vec<_>>();
            let of_ranks = |write: QueryWriter| table_of(&ids[..ranks as usize], |ids, out| write(&p, ids, out));
            let of_experts = |write: QueryWriter| table_of(&ids[..experts as usize], |ids, out| write(&p, ids, out));
            assert_eq!(of_ranks(Partition::write_counts_of), counts);
            assert_eq!(of_ranks(Partition::write_starts_of), table(&p, ranks, Partition::write_starts));
            assert_eq!(of_experts(Partition::write_owners_of), table(&p, experts, Partition::write_owners));
            assert_eq!(
                of_experts(Partition::write_local_indices_of),
                table(&p, experts, Partition::write_local_indices)
            );
            for rank in 0..ranks {
                agree_on_one_rank(&p, rank);
            }
        }
    }
}

fn agree_on_one_rank(p: &Partition, rank: u32) {
    let experts = p.num_experts();
    let index_map = (0..experts)
        .map(|e| if p.owner(e) == Ok(rank) { p.local_index(e).unwrap() as i32 } else { ABSENT })
        .collect::<Vec<_>>();
    let mut out = vec![i32::MIN; experts as usize];
    p.write_expert_map(rank, &mut out).unwrap();
    assert_eq!(out, index_map);
    let local = p.experts(rank).unwrap().collect::<Vec<_>>();
    let mut ids = vec![i32::MIN; local.len()];
    p.write_local_experts(rank, &mut ids).unwrap();
    assert!(ids.iter().zip(&local).all(|(id, expert)| *id == *expert as i32));

    let from_partition = ExpertMap::from_partition(p, rank).unwrap();
    assert_eq!(from_partition.local_experts(), local);
    assert_eq!(ExpertMap::from_index_map(&index_map, experts).unwrap(), from_partition);
    assert_eq!(ExpertMap::from_local_experts(&ids, experts).unwrap(), from_partition);

    let mut with_sentinel = vec![i32::MIN; experts as usize + 1];
    p.write_expert_map_with_sentinel(rank, &mut with_sentinel).unwrap();
    assert_eq!(with_sentinel.split_last().unwrap(), (&ABSENT, index_map.as_slice()));
    assert_eq!(ExpertMap::from_index_map_with_sentinel(&with_sentinel, experts).unwrap(), from_partition);

    for shared in 0..3 {
        let mut with_shared = vec![i32::MIN; (experts + shared) as usize];
        p.write_expert_map_with_shared(rank, shared, &mut with_shared).unwrap();
        let tail = (0..shared).map(|s| (local.len() as u32 + s) as i32);
        assert_eq!(with_shared, index_map.iter().copied().chain(tail).collect::<Vec<_>>());
        assert_eq!(ExpertMap::from_index_map_with_shared(&with_shared, experts, shared).unwrap(), from_partition);

        let mut mask = vec![i32::MIN; (experts + shared) as usize + 1];
        p.write_expert_mask(rank, shared, &mut mask).unwrap();
        let bits = index_map.iter().map(|local| i32::from(*local != ABSENT));
        let tail = std::iter::repeat_n(1, shared as usize).chain([0]);
        assert_eq!(mask, bits.chain(tail).collect::<Vec<_>>());
        assert_eq!(ExpertMap::from_mask(&mask, experts, shared).unwrap(), from_partition);
    }
}

/// Domain: the named cases.
#[test]
fn errors_name_the_parameter_the_value_and_the_range() {
    let p = Partition::new(30, 8, Strategy::Linear).unwrap();
    let text = |error: Error| error.to_string();
    assert_eq!(
        text(Partition::new(1 << 31, 1, Strategy::Linear).unwrap_err()),
        "num_experts=2147483648 is out of range, expected 0..=2147483647"
    );
    assert_eq!(
        text(Partition::new(1, 0, Strategy::Linear).unwrap_err()),
        "num_ranks=0 is out of range, expected 1..=2147483647"
    );
    assert_eq!(
        text(NUM_RANKS.named("ep_size").check(0).unwrap_err()),
        "ep_size=0 is out of range, expected 1..=2147483647"
    );
    assert_eq!(text(p.count(8).unwrap_err()), "rank=8 is out of range, expected 0..8");
    assert_eq!(text(p.check_rank(-1).unwrap_err()), "rank=-1 is out of range, expected 0..8");
    assert_eq!(text(p.owner(30).unwrap_err()), "expert=30 is out of range, expected 0..30");
    assert_eq!(text(p.write_counts(&mut [0; 7]).unwrap_err()), "out has length 7, expected 8");
    assert_eq!(
        text("ring\n".parse::<Strategy>().unwrap_err()),
        "strategy=`ring\\n` is unknown, expected one of `linear`, `round_robin`, `proportional`"
    );
    assert_eq!(
        text("x".repeat(99).parse::<Strategy>().unwrap_err()),
        format!("strategy=`{}...` is unknown, expected one of `linear`, `round_robin`, `proportional`", "x".repeat(40))
    );
    assert_eq!(
        text(Partition::new(256, 3, Strategy::Linear).unwrap().uniform_count().unwrap_err()),
        "num_experts=256 does not divide by num_ranks=3, so slabs are not equal: add 2 redundant experts \
         (258 over 3 ranks), or use 2 or 4 ranks"
    );
    assert_eq!(
        text(Partition::new(5, 8, Strategy::Linear).unwrap().uniform_count().unwrap_err()),
        "num_experts=5 does not divide by num_ranks=8, so slabs are not equal: add 3 redundant experts \
         (8 over 8 ranks), or use 5 ranks"
    );
    assert_eq!(
        text(Partition::new(30, 8, Strategy::RoundRobin).unwrap().write_offsets(&mut [0; 9]).unwrap_err()),
        "strategy=`round_robin` has no offsets, expected a contiguous strategy: `linear` or `proportional`"
    );
    assert_eq!(
        text(p.write_expert_mask(0, NUM_SHARED_EXPERTS.max(), &mut []).unwrap_err()),
        "num_shared_experts=2147483647 is out of range, expected 0..=2147483617 beside num_experts=30: ids are int32"
    );
    assert_eq!(
        text(p.write_owners_of(&[3_i64, 29, 30], &mut [0; 3]).unwrap_err()),
        "expert=30 is out of range, expected 0..30 (at position 2)"
    );
    assert_eq!(
        text(p.write_counts_of(&[0, -1], &mut [0; 2]).unwrap_err()),
        "rank=-1 is out of range, expected 0..8 (at position 1)"
    );
    assert_eq!(
        text(ExpertMap::from_local_experts(&[1, 1], 8).unwrap_err()),
        "local_experts[1]=1 is out of range, expected ascending ids and here 2..8"
    );
    assert_eq!(
        text(with_redundant_experts(30, NUM_EXPERTS.max()).unwrap_err()),
        "num_redundant_experts=2147483647 is out of range, expected 0..=2147483617 beside num_experts=30: ids are int32"
    );
    assert!(p.count(8).unwrap_err().is_no_such_id() && !p.write_counts(&mut []).unwrap_err().is_no_such_id());
}

/// Domain: every list of up to 3 ids from -1 to 4, for every E up to 4.
#[test]
fn lists_of_experts_ascend_below_their_number() {
    for length in 0..=3 {
        for number in 0..6_i32.pow(length) {
            let local: Vec<i32> = (0..length).map(|place| number / 6_i32.pow(place) % 6 - 1).collect();
            for experts in 0..=4 {
                let is_within = local.iter().all(|expert| (0..experts as i32).contains(expert));
                let ascends = local.windows(2).all(|pair| pair[0] < pair[1]);
                assert_eq!(ExpertMap::from_local_experts(&local, experts).is_ok(), is_within && ascends, "{local:?}");
            }
        }
    }
}

/// Domain: the named cases.
#[test]
fn bits_that_are_no_mask_are_called_what_they_look_like() {
    let message = |read: Result<ExpertMap, Error>| read.unwrap_err().to_string();
    let cut = "expert_mask has length 3, expected 4; it looks like a 0/1 expert mask without the trailing 0";
    assert_eq!(message(ExpertMap::from_mask(&[1, 0, 1], 3, 0)), cut);
    // As long, but not of bits; and of bits, but much shorter, or not too short at all.
    assert_eq!(message(ExpertMap::from_mask(&[1, 0, 2], 3, 0)), "expert_mask has length 3, expected 4");
    assert_eq!(message(ExpertMap::from_mask(&[1, 0], 3, 0)), "expert_mask has length 2, expected 4");
    assert_eq!(
        message(ExpertMap::from_mask(&[1, 0, 1, 1], 3, 0)),
        "expert_mask is not a 0/1 mask with a trailing 0: entry 3 is 1, expected 0"
    );
    let other = "expert_map has length 4, expected 3; it looks like a 0/1 expert mask of other numbers of experts";
    assert_eq!(message(ExpertMap::from_index_map(&[1, 1, 0, 1], 3)), other);
    assert_eq!(
        message(ExpertMap::from_index_map(&[1, 1, 0], 3)),
        "expert_map is not an index map but looks like a 0/1 expert mask of other numbers of experts, or without the \
         trailing 0 that `from_mask` expects (entry 0 is 1, expected -1 or the next local index 0)"
    );
    assert_eq!(message(ExpertMap::from_index_map(&[], 3)), "expert_map has length 0, expected 3");
}

/// Domain: the named cases.
#[test]
fn a_mask_in_the_place_of_an_index_map_is_called_one() {
    let p = Partition::new(8, 3, Strategy::Linear).unwrap();
    for rank in 0..3 {
        let mut mask = [0; 9];
        p.write_expert_mask(rank, 0, &mut mask).unwrap();
        for refused in [
            ExpertMap::from_index_map(&mask, 8),
            ExpertMap::from_index_map_with_shared(&mask, 8, 1),
            ExpertMap::from_index_map_with_sentinel(&mask, 8),
        ] {
            let error = refused.unwrap_err();
            assert!(error.is_wrong_representation());
            assert!(error.to_string().contains("0/1 mask of 8 experts with num_shared_experts=0"), "{error}");
        }
        let mut map = [0; 8];
        p.write_expert_map(rank, &mut map).unwrap();
        let error = ExpertMap::from_mask(&map, 8, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expert_mask has length 8, expected 9; it is the index map of 8 experts, which `from_index_map` reads"
        );
    }
    assert_eq!(
        ExpertMap::from_index_map(&[-1, 0, 2], 3).unwrap_err().to_string(),
        "expert_map is not an index map: entry 2 is 2, expected -1 or the next local index 1"
    );
    assert_eq!(ExpertMap::from_mask(&[], 8, 2).unwrap_err().to_string(), "expert_mask has length 0, expected 11");
}

/// A way to write a map, by which a reader of it is told from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    IndexMap,
    WithShared(u32),
    WithSentinel,
    Mask(u32),
}

impl Form {
    fn all() -> impl Iterator<Item = Self> {
        [Self::IndexMap, Self::WithSentinel]
            .into_iter()
            .chain((0..4).flat_map(|shared| [Self::WithShared(shared), Self::Mask(shared)]))
    }

    fn write(self, p: &Partition, rank: u32) -> Vec<i32> {
        let experts = p.num_experts();
        let length = match self {
            Self::IndexMap => experts,
            Self::WithShared(shared) => experts + shared,
            Self::WithSentinel => experts + 1,
            Self::Mask(shared) => experts + shared + 1,
        };
        let mut out = vec![i32::MIN; length as usize];
        match self {
            Self::IndexMap => p.write_expert_map(rank, &mut out),
            Self::WithShared(shared) => p.write_expert_map_with_shared(rank, shared, &mut out),
            Self::WithSentinel => p.write_expert_map_with_sentinel(rank, &mut out),
            Self::Mask(shared) => p.write_expert_mask(rank, shared, &mut out),
        }
        .unwrap();
        out
    }

    fn read(self, map: &[i32], experts: u32) -> Result<ExpertMap, Error> {
        match self {
            Self::IndexMap => ExpertMap::from_index_map(map, experts),
            Self::WithShared(shared) => ExpertMap::from_index_map_with_shared(map, experts, shared),
            Self::WithSentinel => ExpertMap::from_index_map_with_sentinel(map, experts),
            Self::Mask(shared) => ExpertMap::from_mask(map, experts, shared),
        }
    }

    fn named(self, experts: u32) -> String {
        match self {
            Self::IndexMap | Self::WithShared(0) => format!("index map of {experts} experts, which `from_index_map`"),
            Self::WithShared(shared) => format!(
                "index map of {experts} experts with num_shared_experts={shared}, which `from_index_map_with_shared`"
            ),
            Self::WithSentinel => {
                format!("index map of {experts} experts with a sentinel, which `from_index_map_with_sentinel`")
            }
            Self::Mask(shared) => {
                format!("0/1 mask of {experts} experts with num_shared_experts={shared}, which `from_mask`")
            }
        }
    }
}

/// Domain: E in 0..=12, R in 1..=6, every rank, three strategies; each of ten ways to write against each to read. Under
/// 1 s.
#[test]
fn a_map_is_read_as_what_it_was_written_as_and_refused_as_anything_else() {
    for &strategy in Strategy::ALL {
        for (experts, ranks) in (0..=12).flat_map(|experts| (1..=6).map(move |ranks| (experts, ranks))) {
            let p = Partition::new(experts, ranks, strategy).unwrap();
            for (rank, written) in (0..ranks).flat_map(|rank| Form::all().map(move |form| (rank, form))) {
                let map = written.write(&p, rank);
                for read in Form::all() {
                    let case = format!("{written:?} of rank {rank} of {p:?} read as {read:?}");
                    if map == read.write(&p, rank) {
                        assert_eq!(read.read(&map, experts), ExpertMap::from_partition(&p, rank), "{case}");
                        continue;
                    }
                    let error = read.read(&map, experts).unwrap_err();
                    assert!(error.is_wrong_representation(), "{case}: {error}");
                    if experts > 0 {
                        assert!(error.to_string().contains(&written.named(experts)), "{case}: {error}");
                    }
                }
            }
        }
    }
}

/// Domain: the named cases.
#[test]
fn a_map_of_another_length_is_refused_with_what_it_is() {
    let p = Partition::new(30, 8, Strategy::Linear).unwrap();
    let text = |read: Form, written: Form| read.read(&written.write(&p, 7), 30).unwrap_err().to_string();
    assert_eq!(
        text(Form::IndexMap, Form::WithShared(1)),
        "expert_map has length 31, expected 30; it is the index map of 30 experts with num_shared_experts=1, which \
         `from_index_map_with_shared` reads"
    );
    assert_eq!(
        text(Form::IndexMap, Form::WithSentinel),
        "expert_map has length 31, expected 30; it is the index map of 30 experts with a sentinel, which \
         `from_index_map_with_sentinel` reads"
    );
    assert_eq!(
        text(Form::Mask(0), Form::Mask(2)),
        "expert_mask has length 33, expected 31; it is the 0/1 mask of 30 experts with num_shared_experts=2, which \
         `from_mask` reads"
    );
    assert_eq!(
        text(Form::WithSentinel, Form::WithShared(1)),
        "expert_map is not an index map: entry 30 is 3, expected -1; it is the index map of 30 experts with \
         num_shared_experts=1, which `from_index_map_with_shared` reads"
    );
    let other = |experts| ExpertMap::from_index_map(&[-1, 0, 1], experts).unwrap_err().to_string();
    assert_eq!(other(4), "expert_map has length 3, expected 4");
    assert_eq!(other(1 << 31), "num_experts=2147483648 is out of range, expected 0..=2147483647");
    assert_eq!(
        ExpertMap::from_mask(&[0, 1], 30, NUM_SHARED_EXPERTS.max()).unwrap_err().to_string(),
        "num_shared_experts=2147483647 is out of range, expected 0..=2147483617 beside num_experts=30: ids are int32"
    );
}

/// Domain: the named cases.
#[test]
fn a_text_of_others_is_shown_on_one_line_and_shortened() {
    let shown = |text, most| Printable { text, most }.to_string();
    assert_eq!(shown("a\n\t\r\u{1b}\u{85}", 40), "a\\n\\t\\r\\x1b\\x85");
    assert_eq!(shown("\u{200b}\u{e0001}", 40), "\\u200b\\U000e0001");
    assert_eq!(shown("\\ ' \" \u{3b1}", 40), "\\ ' \" \u{3b1}");
    // A mark that combines with the letter before it.
    assert_eq!(shown("e\u{301}", 40), "e\u{301}");
    assert_eq!(shown("\u{3b1}\u{3b1}", 3), "\u{3b1}...");
}

/// Domain: every E in 1..=2000 against trial division, and the largest E. Under 1 s.
#[test]
fn legal_ranks_are_the_divisors() {
    for experts in 1..=2000 {
        let divisors = (1..=experts).filter(|ranks| experts % ranks == 0).collect::<Vec<_>>();
        assert_eq!(legal_ranks(experts, NUM_RANKS.max()).unwrap(), divisors);
        for ranks in 1..=40 {
            let p = Partition::new(experts, ranks, Strategy::Linear).unwrap();
            assert_eq!(p.is_uniform(), divisors.contains(&ranks));
            let least = (0..ranks).find(|n| (experts + n) % ranks == 0).unwrap();
            assert_eq!(p.min_redundant_experts(), least);
            let below = divisors.iter().copied().filter(|count| *count < ranks).max();
            assert_eq!(p.nearest_legal_ranks(), (below, divisors.iter().copied().find(|count| *count > ranks)));
        }
    }
    assert_eq!(legal_ranks(0, 3).unwrap(), [1, 2, 3]);
    let listed = NUM_LISTED_RANKS.max();
    assert_eq!(legal_ranks(0, listed).unwrap().len(), usize::try_from(listed).unwrap());
    let message = format!("max_ranks={} is out of range, expected 1..={listed}", listed + 1);
    assert_eq!(legal_ranks(0, listed + 1).unwrap_err().to_string(), message);
    let nearest = |experts, ranks| Partition::new(experts, ranks, Strategy::Linear).unwrap().nearest_legal_ranks();
    assert_eq!((nearest(0, 1), nearest(0, 5)), ((None, Some(2)), (Some(4), Some(6))));
    assert_eq!(nearest(0, NUM_RANKS.max()), (Some(NUM_RANKS.max() - 1), None));
    assert_eq!(nearest(30, NUM_RANKS.max()), (Some(30), None));
    assert_eq!(legal_ranks(256, 72).unwrap(), [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(legal_ranks(NUM_EXPERTS.max(), NUM_RANKS.max()).unwrap(), [1, NUM_EXPERTS.max()]);
}
