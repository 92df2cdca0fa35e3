//! Which replica of an expert serves a token: a pure function of expert, token and seed. SPEC.md, "Choice of a replica".

/// Odd multipliers that spread the three numbers over 32 bits before they are mixed.
const TOKEN: u32 = 0x9E37_79B1;
const EXPERT: u32 = 0x85EB_CA77;
const SEED: u32 = 0xC2B2_AE3D;
/// The multipliers of the mixer; for one expert and one seed it maps different tokens to different hashes.
const FIRST: u32 = 0x7FEB_352D;
const SECOND: u32 = 0x846C_A68B;

/// The part of the hash that all ids of a token share.
pub(super) const fn of_token(token: u32, seed: u32) -> u32 {
    token.wrapping_mul(TOKEN).wrapping_add(seed.wrapping_mul(SEED))
}

/// The hash of an expert for a token, given what `of_token` says of the token.
pub(super) const fn hash(expert: u32, of_token: u32) -> u32 {
    let mut mixed = of_token.wrapping_add(expert.wrapping_mul(EXPERT));
    mixed ^= mixed >> 16;
    mixed = mixed.wrapping_mul(FIRST);
    mixed ^= mixed >> 15;
    mixed = mixed.wrapping_mul(SECOND);
    mixed ^ (mixed >> 16)
}

/// The hash scaled to `0 .. count`: its whole part, and its fraction in units of 2^-32.
pub(super) fn scaled(hash: u32, count: u32) -> (u32, u32) {
    let product = u64::from(hash) * u64::from(count);
    (high(product), low(product))
}

fn high(product: u64) -> u32 {
    u32::try_from(product >> 32).unwrap_or(u32::MAX)
}

/// The low 32 bits of a number.
pub(super) fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_different_tokens_differs() {
        let mut hashes: Vec<u32> = (0..1 << 16).map(|token| hash(7, of_token(token, 3))).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 1 << 16);
    }

    #[test]
    fn scaled_hashes_stay_below_the_count() {
        for count in [1, 2, 3, 288, u32::MAX] {
            assert_eq!(scaled(0, count), (0, 0));
            assert_eq!(scaled(u32::MAX, count), (count - 1, 0_u32.wrapping_sub(count)));
        }
    }
}
