//! libFuzzer's entry to `expert_placement_fuzz::placement`.

#![no_main]

use expert_placement_fuzz::placement;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    placement::run(bytes);
});
