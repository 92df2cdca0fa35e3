//! Every input of the corpus, through the function that libFuzzer calls.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use expert_placement_fuzz::{Outcome, TARGETS};

/// The files of a target, by their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| (file.display().to_string(), fs::read(file).unwrap())).collect()
}

#[test]
fn every_input_of_the_corpus_is_answered_or_refused_as_it_should_be() {
    for (name, target) in TARGETS {
        let mut outcomes = BTreeSet::new();
        for (file, bytes) in corpus(name) {
            println!("{file}");
            outcomes.insert(target(&bytes) == Outcome::Answered);
        }
        // A corpus that is all refused, or all answered, would look at half of what its target checks.
        assert_eq!(outcomes.len(), 2, "the corpus of {name} has only one of answered and refused cases");
    }
}

#[test]
fn the_corpus_is_small_and_every_folder_is_that_of_a_target() {
    let mut size = 0;
    for (name, _) in TARGETS {
        let files = corpus(name);
        assert!((20..=64).contains(&files.len()), "{name} has {} files, expected 20 to 64", files.len());
        size += files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    assert!(size < 100_000, "{size} bytes");
    let names = |folder: &str| {
        let folder = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
        let name = |file: fs::DirEntry| file.path().file_stem().unwrap().to_string_lossy().into_owned();
        folder.map(|file| name(file.unwrap())).collect::<BTreeSet<String>>()
    };
    let targets = TARGETS.into_iter().map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!((names("corpus"), names("fuzz_targets")), (targets.clone(), targets));
}

/// Bytes that were made for no target, so that no run begins with a panic.
#[test]
fn any_short_input_is_a_case() {
    for (_, target) in TARGETS {
        target(&[]);
        for first in 0..=u8::MAX {
            target(&[first]);
            target(&[first; 40]);
        }
    }
}
