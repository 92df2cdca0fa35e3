//! libFuzzer's entry to `expert_placement_fuzz::partition`.

#![no_main]

use expert_placement_fuzz::partition;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    partition::run(bytes);
});
