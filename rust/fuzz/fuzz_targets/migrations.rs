//! libFuzzer's entry to `expert_placement_fuzz::migrations`.

#![no_main]

use expert_placement_fuzz::migrations;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    migrations::run(bytes);
});
