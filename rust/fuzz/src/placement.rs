//! The tables of placements with replicas against lists of slots. SPEC.md, "Placement", "Loads" and "Balance".

use expert_placement::{Error, Placement};
use sha2::{Digest as _, Sha256};

use crate::input::Input;
use crate::ranks::{Measured, Ranks};
use crate::tables::Tables;
use crate::{Outcome, is_close, law, report};

#[derive(Debug)]
struct Case {
    ranks: Ranks,
    experts: usize,
    rows: Vec<Vec<i32>>,
    loads: Measured,
    layer: usize,
    rank: usize,
    shared: usize,
    wider: usize,
}

impl Case {
    fn read(input: &mut Input<'_>) -> Option<Self> {
        let ranks = Ranks::read(input, 5, 4);
        let (experts, layers) = (input.below(7), 1 + input.below(3));
        let is_legal = input.below(8) > 0;
        let row = |_| if is_legal { ranks.legal_row(input, experts) } else { Some(ranks.row(input, experts)) };
        let rows = (0..layers).map(row).collect::<Option<Vec<_>>>()?;
        let windows = 1 + input.below(2);
        let loads = Measured::read(input, windows, layers, experts);
        let (layer, rank) = (input.below(layers), input.below(ranks.num_ranks()));
        Some(Self { ranks, experts, rows, loads, layer, rank, shared: input.below(4), wider: input.below(3) })
    }
}

/// Checks one case.
pub fn run(bytes: &[u8]) -> Outcome {
    let Some(case) = Case::read(&mut Input::new(bytes)) else { return Outcome::Refused };
    let is_legal = case.rows.iter().all(|row| case.ranks.is_legal(row, case.experts));
    let Some(placement) = case.ranks.placement(&case.rows, case.experts) else {
        assert!(!is_legal, "refused: {case:?}");
        return Outcome::Refused;
    };
    assert!(is_legal, "not refused: {case:?}");
    let mut answers = answers(&placement, &case).expect("answers to legal questions");
    plant(&case, &mut answers);
    report(&case, answers.compare(&expected(&case)).and_then(|()| measured(&placement, &case)));
    Outcome::Answered
}

#[cfg(not(feature = "planted"))]
fn plant(_: &Case, _: &mut Tables) {}

/// The last of several local slots, where a rank holds an expert twice.
#[cfg(feature = "planted")]
fn plant(case: &Case, answers: &mut Tables) {
    let own = &case.rows[case.layer][case.ranks.range(case.rank)];
    for (slot, expert) in own.iter().enumerate().filter(|(_, entry)| **entry >= 0) {
        answers.table("expert_map")[*expert as usize] = slot as i64;
    }
}

fn answers(placement: &Placement, case: &Case) -> Result<Tables, Error> {
    let (layer, rank, shared) = (case.layer, case.rank as u32, case.shared as u32);
    let width = placement.most_replicas() + case.wider as u32;
    let written = |length: usize, write: &dyn Fn(&mut [i32]) -> Result<(), Error>| {
        let mut out = vec![i32::MIN; length];
        write(&mut out).map(|()| out)
    };
    let (layers, experts) = (case.rows.len(), case.experts);
    let lists = layers * experts * width as usize;
    let mut tables = Tables::default();
    tables.put("sizes", [placement.num_slots() as i64, placement.num_ranks().into(), placement.most_replicas().into()]);
    tables.put("physical_to_logical", placement.physical_to_logical().iter().copied());
    tables.put("slot_offsets", placement.slot_offsets().iter().copied());
    let ranks = (0..placement.num_slots()).map(|slot| placement.rank_of_slot(slot)).collect::<Result<Vec<_>, _>>()?;
    tables.put("rank_of_slot", ranks);
    let nodes = (0..placement.num_ranks()).map(|rank| placement.topology().node_of(rank));
    tables.put("node_of", nodes.collect::<Result<Vec<_>, _>>()?);
    tables.put("replica_counts", written(layers * experts, &|out| placement.write_replica_counts(out))?);
    tables.put("logical_to_physical", written(lists, &|out| placement.write_logical_to_physical(width, out))?);
    tables.put("local_experts", placement.local_experts(layer, rank)?.iter().copied());
    tables.put("experts_to_load", placement.experts_to_load(layer, rank)?);
    tables.put("expert_map", written(experts, &|out| placement.write_expert_map(layer, rank, out))?);
    let map = |out: &mut [i32]| placement.write_expert_map_with_shared(layer, rank, shared, out);
    tables.put("expert_map_with_shared", written(experts + case.shared, &map)?);
    let map = |out: &mut [i32]| placement.write_expert_map_with_sentinel(layer, rank, out);
    tables.put("expert_map_with_sentinel", written(experts + 1, &map)?);
    let map = |out: &mut [i32]| placement.write_expert_mask(layer, rank, shared, out);
    tables.put("expert_mask", written(experts + case.shared + 1, &map)?);
    tables.put("digest", placement.digest().into_bytes());
    tables.put_bits("rank_loads", placement.rank_loads(&case.loads.loads())?);
    let reports = placement.report(&case.loads.loads())?;
    tables.put("busiest_rank", reports.iter().map(|report| report.busiest_rank));
    Ok(tables)
}

/// The slots of a layer that hold an expert.
fn slots_of(row: &[i32], expert: usize) -> Vec<i64> {
    (0..row.len()).filter(|slot| row[*slot] == expert as i32).map(|slot| slot as i64).collect()
}

fn expected(case: &Case) -> Tables {
    let Case { ranks, experts, rows, layer, rank, shared, .. } = case;
    let lists: Vec<Vec<i64>> = rows.iter().flat_map(|row| (0..*experts).map(|expert| slots_of(row, expert))).collect();
    let most = lists.iter().map(Vec::len).max().unwrap_or(0);
    let padded = |list: &Vec<i64>| {
        let mut list = list.clone();
        list.resize(most + case.wider, -1);
        list
    };
    let own = &rows[*layer][ranks.range(*rank)];
    let first = |expert: usize| own.iter().position(|entry| *entry == expert as i32).map_or(-1, |slot| slot as i64);
    let map: Vec<i64> = (0..*experts).map(first).collect();
    let offsets: Vec<i64> =
        (0..ranks.num_ranks()).map(|rank| ranks.range(rank).start as i64).chain([ranks.num_slots() as i64]).collect();
    let mut tables = Tables::default();
    tables.put("sizes", [ranks.num_slots() as i64, ranks.num_ranks() as i64, most as i64]);
    tables.put("physical_to_logical", rows.concat());
    tables.put("slot_offsets", offsets.iter().copied());
    tables.put("rank_of_slot", ranks.of_slots().into_iter().map(|rank| rank as i64));
    tables.put("node_of", ranks.nodes().into_iter().map(|node| node as i64));
    tables.put("replica_counts", lists.iter().map(|list| list.len() as i64));
    tables.put("logical_to_physical", lists.iter().flat_map(padded));
    tables.put("local_experts", own.iter().copied());
    tables.put("experts_to_load", (0..*experts as i32).filter(|expert| own.contains(expert)));
    tables.put("expert_map", map.iter().copied());
    tables.put(
        "expert_map_with_shared",
        map.iter().copied().chain((own.len()..own.len() + shared).map(|slot| slot as i64)),
    );
    tables.put("expert_map_with_sentinel", map.iter().copied().chain([-1]));
    let mask = map.iter().map(|entry| i64::from(*entry >= 0));
    tables.put("expert_mask", mask.chain(vec![1; *shared]).chain([0]));
    tables.put("digest", digest(case, &offsets).into_bytes());
    let windows = case.loads.0.iter();
    let of_layers = windows.flat_map(|window| rows.iter().zip(window).flat_map(|(row, loads)| ranks.loads(row, loads)));
    tables.put_bits("rank_loads", of_layers);
    tables.put("busiest_rank", (0..rows.len()).map(|layer| busiest(case, layer)));
    tables
}

/// `01` and the SHA-256 of a byte 1 and, in 32 bits each, E, L, P, R, the offsets and the table.
fn digest(case: &Case, offsets: &[i64]) -> String {
    let mut bytes = vec![1];
    let sizes = [case.experts, case.rows.len(), case.ranks.num_slots(), case.ranks.num_ranks()];
    let numbers = sizes.into_iter().map(|size| size as i64).chain(offsets.iter().copied());
    for number in numbers.chain(case.rows.concat().into_iter().map(i64::from)) {
        bytes.extend((number as u32).to_le_bytes());
    }
    let hash = Sha256::digest(bytes);
    ["01".to_owned()].into_iter().chain(hash.iter().map(|byte| format!("{byte:02x}"))).collect()
}

/// The rank that takes longest in any window, the lowest of equals.
fn busiest(case: &Case, layer: usize) -> i64 {
    let mut longest = (0, -1.0);
    for loads in case.loads.of_layer(layer) {
        for (rank, time) in case.ranks.times(&case.rows[layer], loads).into_iter().enumerate() {
            if time > longest.1 || time == longest.1 && (rank as i64) < longest.0 {
                longest = (rank as i64, time);
            }
        }
    }
    longest.0
}

/// What is measured of a placement, but for rounding.
fn measured(placement: &Placement, case: &Case) -> Result<(), String> {
    let (ranks, loads) = (&case.ranks, case.loads.loads());
    let reports = placement.report(&loads).expect("a report");
    let (mut means, mut most) = (0.0, 0.0);
    for (layer, report) in reports.iter().enumerate() {
        let windows = case.loads.of_layer(layer);
        let speeds: f64 =
            (0..ranks.num_ranks()).filter(|rank| ranks.active[*rank]).map(|rank| ranks.speeds[rank]).sum();
        let mean: f64 = windows.iter().map(|loads| loads.iter().sum::<f64>() / speeds).sum();
        let largest = |loads: &&[f64]| ranks.times(&case.rows[layer], loads).into_iter().fold(0.0, f64::max);
        let largest: f64 = windows.iter().map(largest).sum();
        law("reports_are_measured", is_close(report.mean, mean) && is_close(report.largest, largest))?;
        law("bound_is_respected", report.lower_bound <= report.largest)?;
        means += mean;
        most += largest;
    }
    let balancedness = if most > 0.0 { means / most } else { 1.0 };
    let answer = placement.balancedness(&loads).expect("a balancedness");
    law("balancedness_is_mean_over_largest", is_close(answer, balancedness) && (0.0..=1.0).contains(&answer))?;
    split(placement, case)
}

/// The best parts: of each expert they add up to 1, and the busiest rank is done when the slowest set of ranks is.
fn split(placement: &Placement, case: &Case) -> Result<(), String> {
    let (ranks, slots) = (&case.ranks, case.ranks.num_slots());
    let split = placement.split(&case.loads.loads()).expect("a split");
    let of_slots = ranks.of_slots();
    for (layer, row) in case.rows.iter().enumerate() {
        let (parts, loads) = (&split.weights[layer * slots..(layer + 1) * slots], case.loads.summed(layer));
        let of_expert = |expert: usize| slots_of(row, expert).into_iter().map(|slot| parts[slot as usize]);
        let is_one = |expert: usize| (of_expert(expert).sum::<f64>() - 1.0).abs() <= 1e-9;
        law("parts_of_an_expert_are_one", (0..case.experts).all(is_one))?;
        law(
            "parts_are_of_slots_that_serve",
            parts
                .iter()
                .zip(row)
                .all(|(part, entry)| (0.0..=1.0 + 1e-9).contains(part) && (*entry >= 0 || *part == 0.0)),
        )?;
        let mut times = vec![0.0; ranks.num_ranks()];
        for (slot, entry) in row.iter().enumerate().filter(|(_, entry)| **entry >= 0) {
            times[of_slots[slot]] += loads[*entry as usize] * parts[slot] / ranks.speeds[of_slots[slot]];
        }
        let mut slowest: f64 = 0.0;
        for set in 1..1_usize << ranks.num_ranks() {
            let is_in = |rank: usize| set >> rank & 1 == 1;
            let held = |expert: &usize| slots_of(row, *expert).iter().all(|slot| is_in(of_slots[*slot as usize]));
            let load: f64 = (0..case.experts).filter(held).map(|expert| loads[expert]).sum();
            let speed: f64 = (0..ranks.num_ranks()).filter(|rank| is_in(*rank)).map(|rank| ranks.speeds[rank]).sum();
            slowest = slowest.max(load / speed);
        }
        let busiest = times.into_iter().fold(0.0, f64::max);
        law("best_parts_make_the_busiest_rank_fastest", is_close(busiest, slowest))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers of three experts on ranks of two and three slots; the second rank holds one twice.
    fn case() -> Case {
        Case {
            ranks: Ranks::with(&[2, 3]),
            experts: 3,
            rows: vec![vec![0, 1, 2, 0, 2], vec![2, 1, 0, -1, 1]],
            loads: Measured(vec![vec![vec![8.0, 1.0, 1.0], vec![1.0, 2.0, 3.0]]]),
            layer: 0,
            rank: 1,
            shared: 2,
            wider: 1,
        }
    }

    #[test]
    fn every_entry_of_every_table_matters() {
        let case = case();
        let placement = case.ranks.placement(&case.rows, case.experts).unwrap();
        let answers = answers(&placement, &case).unwrap();
        assert_eq!(answers.compare(&expected(&case)), Ok(()));
        crate::tables::expect_every_entry_matters(&answers);
    }

    #[test]
    fn what_another_placement_measures_is_refused() {
        let mut case = case();
        let placement = case.ranks.placement(&case.rows, case.experts).unwrap();
        assert_eq!(measured(&placement, &case), Ok(()));
        let other = case.rows[0].iter().map(|entry| (entry + 1) % 3).collect();
        case.rows[0] = other;
        assert!(measured(&placement, &case).is_err());
    }
}
