//! A routing table of one layer of a placement. SPEC.md, "Routing tables".

use super::shape::RoutingShape;
use crate::batch::{expect_length, int32};
use crate::error::Error;
use crate::expert_map::with_room;
use crate::partition::to_usize;
use crate::placement::Placement;
use crate::refusal::{Place, Refusal};
use crate::routing::weights::Buckets;

/// How near a replica is to the rank that sends: on it, on its node, or elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    Rank,
    Node,
    Elsewhere,
}

impl Placement {
    /// Writes the routing table of a layer; `out` has the length of `shape`.
    ///
    /// Without a `sender` every replica may be chosen, and the choice is the same on all ranks. With one only the
    /// replicas nearest to that rank may: those on it, else those on its node, else all. Then ranks choose differently,
    /// which is right only where the sender alone decides.
    ///
    /// `weights` has one number for each slot of the layer; a replica is chosen in proportion to its own.
    ///
    /// # Errors
    /// `layer` or `sender` out of range, a placement that does not fit the shape, `out` or `weights` of another length,
    /// weights beside a shape without them or the other way round, weights for a sender, a weight that is negative or
    /// not finite, an expert whose weights are all 0 or add up to more than a float holds, or too little memory.
    pub fn write_routing_table(
        &self,
        layer: usize,
        shape: &RoutingShape,
        sender: Option<u32>,
        weights: Option<&[f64]>,
        out: &mut [i32],
    ) -> Result<(), Error> {
        let layer = self.check_layer(i128::from(u64::try_from(layer).unwrap_or(u64::MAX)))?;
        self.expect_fit(shape)?;
        expect_length(out, u64::try_from(shape.len()).unwrap_or(u64::MAX))?;
        let sender = sender.map(|rank| self.topology().check_rank(rank.into())).transpose()?;
        if weights.is_some() != shape.is_weighted() {
            let (parameter, needs) = match weights {
                Some(_) => ("weights", "a weighted shape"),
                None => ("a weighted shape", "weights"),
            };
            return Err(Error::refused(Refusal::Needs { parameter, needs }));
        }
        if weights.is_some() && sender.is_some() {
            return Err(Error::refused(Refusal::Excludes { parameter: "weights", other: "sender" }));
        }
        out.fill(-1);
        let listed = self.listed_slots(layer, sender)?;
        let experts = to_usize(self.num_experts());
        let mut counts: Vec<i32> = with_room(experts)?;
        counts.resize(experts, 0);
        for &(_, expert) in &listed {
            if let Some(count) = counts.get_mut(expert) {
                *count += 1;
            }
        }
        let mut begins: Vec<i32> = with_room(experts)?;
        let mut begin = 0;
        for count in &counts {
            begins.push(begin);
            begin += count;
        }
        // From here on a count is how many of the expert's slots are still to be listed.
        let numbers = counts.clone();
        for &(slot, expert) in &listed {
            let (Some(&begin), Some(&number)) = (begins.get(expert), numbers.get(expert)) else { continue };
            let Some(left) = counts.get_mut(expert) else { continue };
            let place = number - *left;
            *left -= 1;
            let (id, slot_id) = (int32(short(expert)), int32(short(slot)));
            if let Some(home) = part(out, shape.homes()).chunks_exact_mut(2).nth(slot) {
                home.copy_from_slice(&[id, place]);
            }
            if let Some(listed) =
                part(out, shape.slots()).get_mut(to_usize(begin.unsigned_abs() + place.unsigned_abs()))
            {
                *listed = slot_id;
            }
            if let Some(entry) = part(out, shape.entries()).get_mut(expert) {
                *entry = entry_of(if number == 1 { slot_id } else { begin }, number);
            }
        }
        for (start, &offset) in part(out, shape.rank_slots()).iter_mut().zip(self.slot_offsets()) {
            *start = int32(offset);
        }
        match weights {
            Some(weights) => self.write_weights(layer, shape, weights, &begins, &numbers, out),
            None => Ok(()),
        }
    }

    /// The slots that serve, with their experts: the nearest of each expert where there is a sender.
    fn listed_slots(&self, layer: usize, sender: Option<u32>) -> Result<Vec<(usize, usize)>, Error> {
        let mut listed = with_room(self.num_slots())?;
        let held = self.row(layer).iter().enumerate();
        listed.extend(held.filter_map(|(slot, &entry)| Some((slot, usize::try_from(entry).ok()?))));
        let Some(sender) = sender else { return Ok(listed) };
        let node = self.topology().node_of(sender)?;
        let distance = |slot: usize| {
            let rank = self.owner_of_slot(slot);
            match self.topology().node_of(rank) {
                _ if rank == sender => Distance::Rank,
                Ok(other) if other == node => Distance::Node,
                _ => Distance::Elsewhere,
            }
        };
        let mut nearest = with_room(to_usize(self.num_experts()))?;
        nearest.resize(to_usize(self.num_experts()), Distance::Elsewhere);
        for &(slot, expert) in &listed {
            if let Some(least) = nearest.get_mut(expert) {
                *least = distance(slot).min(*least);
            }
        }
        listed.retain(|&(slot, expert)| nearest.get(expert).is_some_and(|least| *least == distance(slot)));
        Ok(listed)
    }

    fn write_weights(
        &self,
        layer: usize,
        shape: &RoutingShape,
        weights: &[f64],
        begins: &[i32],
        numbers: &[i32],
        out: &mut [i32],
    ) -> Result<(), Error> {
        let expected = u64::try_from(self.num_slots()).unwrap_or(u64::MAX);
        if weights.len() != self.num_slots() {
            return Err(Error::wrong_length("weights", weights.len(), expected));
        }
        for (slot, weight) in weights.iter().enumerate() {
            if !(weight.is_finite() && *weight >= 0.0) {
                let (place, expected) = (Place::at_two("weights", layer, slot), "a finite number of at least 0");
                return Err(Error::refused(Refusal::BadNumber { place, bits: weight.to_bits(), expected }));
            }
        }
        let mut own = Vec::new();
        for (expert, (begin, count)) in begins.iter().zip(numbers).enumerate() {
            let (begin, count) = (to_usize(begin.unsigned_abs()), to_usize(count.unsigned_abs()));
            let range = begin..begin + count;
            let slots: Vec<i32> = part(out, shape.slots()).get(range.clone()).unwrap_or_default().to_vec();
            own.clear();
            own.extend(
                slots
                    .iter()
                    .map(|slot| usize::try_from(*slot).ok().and_then(|slot| weights.get(slot)).copied().unwrap_or(0.0)),
            );
            let Some(buckets) = Buckets::of(&own) else {
                let expert = short(expert);
                return Err(Error::refused(Refusal::NoWeight { layer, expert }));
            };
            for (at, bucket) in range.zip(buckets.iter()) {
                if let Some(cutoff) = part(out, shape.cutoffs()).get_mut(at) {
                    *cutoff = i32::from_ne_bytes(bucket.cutoff.to_ne_bytes());
                }
                if let Some(alias) = part(out, shape.aliases()).get_mut(at) {
                    *alias = slots.get(bucket.alias).copied().unwrap_or(-1);
                }
            }
        }
        Ok(())
    }

    fn expect_fit(&self, shape: &RoutingShape) -> Result<(), Error> {
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        for (what, actual, expected) in [
            ("num_experts", self.num_experts(), shape.num_experts()),
            ("num_ranks", self.num_ranks(), shape.num_ranks()),
        ] {
            if actual != expected {
                return Err(Error::refused(Refusal::Mismatch {
                    left: "the placement",
                    right: "the routing table",
                    what,
                    left_value: actual.into(),
                    right_value: expected.into(),
                }));
            }
        }
        if self.num_slots() > to_usize(shape.max_slots()) {
            let (num_slots, max_slots) = (number(self.num_slots()), shape.max_slots());
            return Err(Error::refused(Refusal::Capacity { num_slots, max_slots }));
        }
        Ok(())
    }
}

/// A part of a table.
fn part(table: &mut [i32], range: core::ops::Range<usize>) -> &mut [i32] {
    table.get_mut(range).unwrap_or_default()
}

/// An id within the limits of routing tables.
fn short(id: usize) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}

/// The entry of an expert: the upper number, and how many replicas there are.
fn entry_of(upper: i32, count: i32) -> i32 {
    let bits = (upper.unsigned_abs() << 16) | count.unsigned_abs();
    i32::from_ne_bytes(bits.to_ne_bytes())
}
