//! libFuzzer's entry to `expert_placement_fuzz::plans`.

#![no_main]

use expert_placement_fuzz::plans;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    plans::run(bytes);
});
