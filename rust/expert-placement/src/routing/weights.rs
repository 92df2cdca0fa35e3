//! Weighted choice in constant time: of every expert's hashes each replica gets its part. SPEC.md, "Weighted choice".

/// The hashes of one replica's bucket: those below the cutoff are its own, the others those of another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// How much of the bucket the replica keeps, in units of 2^-32.
    pub(super) cutoff: u32,
    /// The replica that gets the rest.
    pub(super) alias: usize,
}

/// One bucket for each replica, all of the same size.
pub(super) struct Buckets(Vec<Bucket>);

/// The hashes of a bucket.
const FULL: u64 = 1 << 32;

impl Buckets {
    /// The buckets for these weights, or `None` where their sum is 0 or no finite number.
    ///
    /// Weights become whole numbers of hashes that add up to n * 2^32, by rounding their cumulative sums down. Then
    /// buckets with too little are filled, in the order of the replicas, from the first replica that has too much.
    pub(super) fn of(weights: &[f64]) -> Option<Self> {
        let total: f64 = weights.iter().sum();
        if !(total.is_finite() && total > 0.0) {
            return None;
        }
        let all = FULL * u64::try_from(weights.len()).ok()?;
        let mut own = Vec::with_capacity(weights.len());
        let (mut sum, mut before) = (0.0, 0);
        let last = weights.iter().rposition(|weight| *weight > 0.0)?;
        for (place, weight) in weights.iter().enumerate() {
            sum += weight;
            let until = if place >= last { all } else { floor(sum / total, all) };
            own.push(until - before);
            before = until;
        }
        let mut buckets: Vec<Bucket> = (0..weights.len()).map(|alias| Bucket { cutoff: u32::MAX, alias }).collect();
        // Whoever gives falls short itself at some time, and is filled in its turn: so this is a stack.
        let mut short: Vec<usize> = (0..own.len()).rev().filter(|place| is(&own, *place, |own| own < FULL)).collect();
        let mut giver = 0;
        while let Some(place) = short.pop() {
            while is(&own, giver, |own| own <= FULL) && giver < own.len() {
                giver += 1;
            }
            let Some(kept) = own.get(place).copied() else { continue };
            let Some(rest) = own.get_mut(giver) else { continue };
            *rest -= FULL - kept;
            if let Some(bucket) = buckets.get_mut(place) {
                *bucket = Bucket { cutoff: super::rule::low(kept), alias: giver };
            }
            if let Some(kept) = own.get_mut(place) {
                *kept = FULL;
            }
            if is(&own, giver, |own| own < FULL) {
                short.push(giver);
            }
        }
        Some(Self(buckets))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.0.iter().copied()
    }
}

fn is(own: &[u64], place: usize, holds: impl Fn(u64) -> bool) -> bool {
    own.get(place).is_some_and(|own| holds(*own))
}

/// A fraction of a whole, rounded down; at most the whole.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole is at most 2^52, which a float holds, and a conversion from one rounds down and saturates"
)]
fn floor(fraction: f64, whole: u64) -> u64 {
    ((fraction * whole as f64) as u64).min(whole)
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "what is compared is rounded more than that")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many hashes go to each replica.
    fn shares(buckets: &Buckets) -> Vec<u64> {
        let mut shares = vec![0; buckets.0.len()];
        for (place, bucket) in buckets.iter().enumerate() {
            if bucket.alias == place {
                shares[place] += FULL;
            } else {
                shares[place] += u64::from(bucket.cutoff);
                shares[bucket.alias] += FULL - u64::from(bucket.cutoff);
            }
        }
        shares
    }

    proptest! {
        #[test]
        fn every_replica_gets_its_part(weights in prop::collection::vec(prop_oneof![Just(0.0), 0.0..1e6], 1..40)) {
            let total: f64 = weights.iter().sum();
            prop_assume!(total > 0.0);
            let shares = shares(&Buckets::of(&weights).unwrap());
            let all = FULL as f64 * weights.len() as f64;
            prop_assert_eq!(shares.iter().sum::<u64>(), FULL * weights.len() as u64);
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!((*share as f64 - weight / total * all).abs() <= 2.0 + all * 1e-15 * weights.len() as f64);
                prop_assert!(*weight > 0.0 || *share == 0);
            }
        }
    }

    #[test]
    fn weights_that_say_nothing_are_none() {
        assert!(Buckets::of(&[]).is_none());
        assert!(Buckets::of(&[0.0, 0.0]).is_none());
        assert!(Buckets::of(&[f64::MAX, f64::MAX]).is_none());
    }
}
