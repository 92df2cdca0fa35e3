//! libFuzzer's entry to `expert_placement_fuzz::routing`.

#![no_main]

use expert_placement_fuzz::routing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    routing::run(bytes);
});
