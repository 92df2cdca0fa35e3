//! What answers in constant time, and what fills a caller's slice, takes no memory from the heap.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

use expert_placement::{Error, Partition, Strategy};

/// Domain: a few sizes, the largest ranks and experts of each, three strategies. Cost: none to speak of.
#[test]
fn queries_and_tables_allocate_nothing() {
    for &strategy in Strategy::ALL {
        for (experts, ranks) in [(0, 1), (30, 8), (5, 9), (4096, 72)] {
            let [mut of_ranks, mut of_experts, mut longer] = [vec![0; ranks], vec![0; experts], vec![0; experts + 3]];
            let mut offsets = vec![0; ranks + 1];
            let (ids, rank_ids): (Vec<i64>, Vec<i32>) =
                ((0..i64::try_from(experts).unwrap()).collect(), (0..i32::try_from(ranks).unwrap()).collect());
            let (num_experts, num_ranks) = (u32::try_from(experts).unwrap(), u32::try_from(ranks).unwrap());
            let measured = allocation_counter::measure(|| {
                let mut ask = || -> Result<u64, Error> {
                    let partition = Partition::new(num_experts, num_ranks, strategy)?;
                    let mut sum = 0_u64;
                    for rank in 0..num_ranks {
                        sum += u64::from(partition.count(rank)? + partition.start(rank)?);
                        sum += partition.experts(rank)?.map(u64::from).sum::<u64>();
                    }
                    for expert in 0..num_experts {
                        sum += u64::from(partition.owner(expert)? + partition.local_index(expert)?);
                    }
                    partition.write_counts(&mut of_ranks)?;
                    partition.write_starts(&mut of_ranks)?;
                    partition.write_counts_of(&rank_ids, &mut of_ranks)?;
                    partition.write_starts_of(&rank_ids, &mut of_ranks)?;
                    partition.write_owners(&mut of_experts)?;
                    partition.write_local_indices(&mut of_experts)?;
                    partition.write_owners_of(&ids, &mut of_experts)?;
                    partition.write_local_indices_of(&ids, &mut of_experts)?;
                    partition.write_expert_map(num_ranks - 1, &mut of_experts)?;
                    if strategy.is_contiguous() {
                        partition.write_offsets(&mut offsets)?;
                    }
                    let (first, _) = longer.split_at_mut(experts + 2);
                    partition.write_expert_map_with_shared(0, 2, first)?;
                    partition.write_expert_map_with_sentinel(0, first.split_at_mut(experts + 1).0)?;
                    partition.write_expert_mask(0, 2, &mut longer)?;
                    // Refusals take none either.
                    assert!(partition.count(num_ranks).is_err() && partition.owner(num_experts).is_err());
                    assert!(partition.nearest_legal_ranks().0.is_none_or(|below| below < num_ranks));
                    Ok(sum)
                };
                std::hint::black_box(ask().unwrap());
            });
            assert_eq!(measured.count_total, 0, "{experts} over {ranks}, {strategy}");
        }
    }
}

/// Domain: tables of up to 2 slots that are said to hold up to 2^31 - 1 experts. What is only said takes no memory.
#[cfg(feature = "placement")]
#[test]
fn experts_without_slots_take_no_memory() {
    use expert_placement::limits::{NUM_EXPERTS, NUM_LAYERS};
    use expert_placement::{Placement, Topology};

    let last = i32::try_from(NUM_EXPERTS.max() - 1).unwrap();
    for (table, refused) in [
        (vec![], "expert 0 has no slot in layer 0"),
        (vec![0, 1], "expert 2 has no slot in layer 0"),
        (vec![0, last], "expert 1 has no slot in layer 0"),
        (vec![1, 0], "expert 2 has no slot in layer 0"),
        (vec![1, i32::MAX], "physical_to_logical[0, 1]=2147483647 is out of range, expected -1..=2147483646"),
    ] {
        let mut error = None;
        let measured = allocation_counter::measure(|| {
            error = Placement::new(NUM_EXPERTS.max(), 1, Topology::new(1, 1).unwrap(), table).err();
        });
        let text = error.unwrap().to_string();
        assert!(text.starts_with(refused), "{text}");
        assert!(measured.bytes_max <= 64, "{} bytes: {text}", measured.bytes_max);
    }
    // Nor do layers without slots take time: each by itself they would be a minute.
    let layers = usize::try_from(NUM_LAYERS.max()).unwrap();
    let empty = Placement::new(0, layers, Topology::new(1, 1).unwrap(), vec![]).unwrap();
    assert_eq!((empty.num_layers(), empty.num_slots()), (layers, 0));
}

/// Domain: one list. The counter sees what it must see.
#[test]
fn the_counter_counts() {
    let measured = allocation_counter::measure(|| drop(std::hint::black_box(vec![1_u8; 100])));
    assert!(measured.count_total >= 1);
}
