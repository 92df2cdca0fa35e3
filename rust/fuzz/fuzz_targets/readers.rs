//! libFuzzer's entry to `expert_placement_fuzz::readers`.

#![no_main]

use expert_placement_fuzz::readers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    readers::run(bytes);
});
