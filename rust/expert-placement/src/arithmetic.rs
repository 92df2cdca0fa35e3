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
            #![expect(
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
