//! The formulas of the three strategies. SPEC.md, "Formulas".
//!
//! One text, instantiated for each width of integer: `u32` serves the crate, and `u8` lets the tests reach every
//! value of the type, its overflow edge included. `wide` is the type of twice the width, which the products of the
//! proportional strategy need. Every function asks that `ranks >= 1`, `rank < ranks` and `expert < experts`; within
//! that domain no intermediate leaves its type.

macro_rules! arithmetic {
    ($(#[$attribute:meta])* $name:ident, $int:ty, $wide:ty) => {
        $(#[$attribute])*
        pub(crate) mod $name {
            #![allow(
                clippy::as_conversions,
                clippy::cast_possible_truncation,
                reason = "`From` is not `const`, and each quotient narrowed is at most one of its operands of that type"
            )]

            /// The two numbers that the balanced strategies are made of: E // R and E % R.
            #[derive(Clone, Copy)]
            pub(crate) struct Shares {
                base: $int,
                remainder: $int,
            }

            impl Shares {
                pub(crate) const fn of(experts: $int, ranks: $int) -> Self {
                    Self { base: experts / ranks, remainder: experts % ranks }
                }

                /// `base` experts and, on the first `remainder` ranks, one more.
                pub(crate) const fn count(self, rank: $int) -> $int {
                    self.base + (rank < self.remainder) as $int
                }

                /// Where the block of a rank begins when the larger shares come first.
                pub(crate) const fn linear_start(self, rank: $int) -> $int {
                    rank * self.base + if rank < self.remainder { rank } else { self.remainder }
                }

                pub(crate) const fn linear_owner(self, expert: $int) -> $int {
                    let Self { base, remainder } = self;
                    // Here the smaller shares begin. With base = 0 every expert lies before that boundary, so
                    // neither division is by zero.
                    let boundary = remainder * base + remainder;
                    if expert < boundary { expert / (base + 1) } else { remainder + (expert - boundary) / base }
                }

                pub(crate) const fn linear_local_index(self, expert: $int) -> $int {
                    expert - self.linear_start(self.linear_owner(expert))
                }
            }

            pub(crate) const fn round_robin_owner(ranks: $int, expert: $int) -> $int {
                expert % ranks
            }

            pub(crate) const fn round_robin_local_index(ranks: $int, expert: $int) -> $int {
                expert / ranks
            }

            /// Holds for `rank == ranks` too, where it is E.
            pub(crate) const fn proportional_start(experts: $int, ranks: $int, rank: $int) -> $int {
                (rank as $wide * experts as $wide / ranks as $wide) as $int
            }

            pub(crate) const fn proportional_count(experts: $int, ranks: $int, rank: $int) -> $int {
                proportional_start(experts, ranks, rank + 1) - proportional_start(experts, ranks, rank)
            }

            pub(crate) const fn proportional_owner(experts: $int, ranks: $int, expert: $int) -> $int {
                (((expert as $wide + 1) * ranks as $wide - 1) / experts as $wide) as $int
            }

            pub(crate) const fn proportional_local_index(experts: $int, ranks: $int, expert: $int) -> $int {
                expert - proportional_start(experts, ranks, proportional_owner(experts, ranks, expert))
            }

            /// The member of an arithmetic progression that comes `steps` after `member`. Within the limits of E and R
            /// it stays in its type as far as one step past a rank's last expert, which is below E + R.
            pub(crate) const fn further(member: $int, stride: $int, steps: $int) -> $int {
                member + steps * stride
            }
        }
    };
}

arithmetic!(word, u32, u64);
arithmetic!(
    #[cfg(test)]
    byte,
    u8,
    u16
);
arithmetic!(
    #[cfg(test)]
    #[expect(dead_code, reason = "the tests ask for what overflows, and for nothing else")]
    cramped,
    u8,
    u8
);

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use rayon::prelude::*;

    use super::{byte, cramped};

    /// The table of SPEC.md, "Formulas", in integers so wide that nothing here could leave them.
    #[derive(Clone, Copy)]
    struct Stated {
        experts: i128,
        ranks: i128,
    }

    impl Stated {
        fn count(self, rank: i128) -> i128 {
            self.experts / self.ranks + i128::from(rank < self.experts % self.ranks)
        }
        fn linear_start(self, rank: i128) -> i128 {
            rank * (self.experts / self.ranks) + rank.min(self.experts % self.ranks)
        }
        fn linear_owner(self, expert: i128) -> i128 {
            let (base, remainder) = (self.experts / self.ranks, self.experts % self.ranks);
            let in_larger_shares = expert < remainder * (base + 1);
            if in_larger_shares { expert / (base + 1) } else { remainder + (expert - remainder * (base + 1)) / base }
        }
        fn proportional_start(self, rank: i128) -> i128 {
            rank * self.experts / self.ranks
        }
        fn proportional_owner(self, expert: i128) -> i128 {
            ((expert + 1) * self.ranks - 1) / self.experts
        }
    }

    /// Every expert count and rank count of two ranges.
    fn each_pair(experts: RangeInclusive<u8>, ranks: &RangeInclusive<u8>, check: impl Fn(u8, u8) + Sync) {
        experts.into_par_iter().for_each(|experts| ranks.clone().for_each(|ranks| check(experts, ranks)));
    }

    /// Domain: every value of `u8`: E in 0..=255, R in 1..=255, every rank and expert; three strategies.
    /// Cost: 25 million ranks and 25 million experts, about a second.
    #[test]
    fn formulas_in_u8_give_what_they_give_in_wide_integers() {
        each_pair(0..=255, &(1..=255), |experts, ranks| {
            let stated = Stated { experts: experts.into(), ranks: ranks.into() };
            let shares = byte::Shares::of(experts, ranks);
            for rank in 0..ranks {
                let [r, next] = [i128::from(rank), i128::from(rank) + 1];
                let expected = [
                    (i128::from(shares.count(rank)), stated.count(r)),
                    (shares.linear_start(rank).into(), stated.linear_start(r)),
                    (byte::proportional_start(experts, ranks, rank).into(), stated.proportional_start(r)),
                    (
                        byte::proportional_count(experts, ranks, rank).into(),
                        stated.proportional_start(next) - stated.proportional_start(r),
                    ),
                ];
                assert!(
                    expected.iter().all(|(ours, wide)| ours == wide),
                    "E={experts} R={ranks} r={rank}: {expected:?}"
                );
            }
            for expert in 0..experts {
                let e = i128::from(expert);
                let [linear, proportional] = [stated.linear_owner(e), stated.proportional_owner(e)];
                let expected = [
                    (i128::from(shares.linear_owner(expert)), linear),
                    (shares.linear_local_index(expert).into(), e - stated.linear_start(linear)),
                    (byte::round_robin_owner(ranks, expert).into(), e % stated.ranks),
                    (byte::round_robin_local_index(ranks, expert).into(), e / stated.ranks),
                    (byte::proportional_owner(experts, ranks, expert).into(), proportional),
                    (
                        byte::proportional_local_index(experts, ranks, expert).into(),
                        e - stated.proportional_start(proportional),
                    ),
                ];
                assert!(
                    expected.iter().all(|(ours, wide)| ours == wide),
                    "E={experts} R={ranks} e={expert}: {expected:?}"
                );
            }
        });
    }

    /// Domain: the limits of E and R are half of their type, as those of `u32` are: E in 0..=127, R in 1..=127, every
    /// rank, and every step along its experts as far as one past the last; both strides. Cost: 3 million steps.
    #[test]
    fn steps_along_a_rank_in_u8_give_what_they_give_in_wide_integers() {
        each_pair(0..=127, &(1..=127), |experts, ranks| {
            let shares = byte::Shares::of(experts, ranks);
            for rank in 0..ranks {
                for (start, stride) in [(shares.linear_start(rank), 1), (rank, ranks)] {
                    for steps in 0..=shares.count(rank) {
                        let wide = i128::from(start) + i128::from(steps) * i128::from(stride);
                        let ours = byte::further(start, stride, steps);
                        assert_eq!(i128::from(ours), wide, "E={experts} R={ranks} r={rank} after {steps} steps");
                    }
                }
            }
        });
    }

    /// Domain: the named cases, each beside one that just fits. The build traps where an intermediate leaves its type,
    /// so that the tests above, which run the same text, would have seen one that did.
    #[test]
    fn an_intermediate_that_leaves_its_type_is_seen() {
        let traps = |ask: fn() -> u8| std::panic::catch_unwind(ask).is_err();
        // 15 * 17 is the largest u8; the products of the proportional strategy need twice the width beyond it.
        assert!(
            !traps(|| cramped::proportional_start(17, 255, 15)) && traps(|| cramped::proportional_start(17, 255, 16))
        );
        assert!(
            !traps(|| cramped::proportional_owner(15, 17, 14)) && traps(|| cramped::proportional_owner(16, 17, 15))
        );
        assert!(
            !traps(|| byte::proportional_start(255, 255, 254)) && !traps(|| byte::proportional_owner(255, 255, 254))
        );
        // Beyond the limits of E and R the step past the last expert would not do.
        assert!(!traps(|| byte::further(126, 127, 1)) && traps(|| byte::further(129, 127, 1)));
    }
}
