"""Every line is reached or explained, and every explanation is of lines that are unreached: what is planted is told."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.coverage import record
from tests.coverage.explanations import FILE, Excluded, Place, parsed, problems, proposed, unmatched, without
from tests.coverage.lines import Lines, from_lcov, narrowed, ranges
from tests.coverage.workplace import ROOT

SOURCE = """\
fn first(x: u32) -> u32 {
    if x > 3 {
        return 7;
    }
    x
}

fn second(x: u32) -> u32 {
    if x > 4 {
        return 7;
    }
    x
}
""".splitlines()
ALL = frozenset({1, 2, 3, 5, 6, 8, 9, 10, 12, 13})
MEASURED = {"a.rs": Lines(ALL, ALL - {3})}
FIRST = """
      if x > 3 {
!         return 7;
"""
RIGHT = Place("a.rs", FIRST, "no test has a larger x")


def told(*places: Place, measured: dict[str, Lines] = MEASURED, own: dict[str, Lines] | None = None) -> list[str]:
    return problems(measured, {"a.rs": SOURCE}, places, own or {})


def test_an_explained_line_is_right() -> None:
    assert told(RIGHT) == []


def test_an_unexplained_line_is_told_with_what_would_explain_it() -> None:
    (problem,) = told()
    assert problem == "a.rs:3-3 is unreached and not explained:\n      if x > 3 {\n!         return 7;"
    text = problem.partition("\n")[2]
    assert told(Place("a.rs", text, "as proposed")) == []
    assert told(Place("a.rs", f"{FIRST}  }}\n  x\n", "with what is below")) == []


def test_every_proposal_explains_what_it_is_made_for() -> None:
    """Domain: each set of one line, and of two lines that follow each other, of a file that repeats itself."""
    numbers = sorted(ALL)
    for some in [{number} for number in numbers] + [set(pair) for pair in pairwise(numbers)]:
        lines = Lines(ALL, ALL - some)
        places = [
            Place("a.rs", proposed(lines, SOURCE, first, last), "made") for first, last in ranges(some, lines.all)
        ]
        assert told(*places, measured={"a.rs": lines}) == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (Place("a.rs", "!         return 8;", ""), "a.rs: `return 8;` is explained, and does not stand there any more"),
        (
            Place("a.rs", "!         return 7;", ""),
            "a.rs: `return 7;` stands there 2 times: quote more lines around it",
        ),
        (Place("b.rs", "!         return 7;", ""), "b.rs: `return 7;` is explained, and no such file is measured"),
        (
            Place("a.rs", "      if x > 4 {\n!         return 7;", ""),
            "a.rs:10 `return 7;` is explained, and was reached",
        ),
        (
            Place("a.rs", "!     }\n      x\n  }\n\n  fn second(x: u32) -> u32 {", ""),
            "a.rs:4 `}` is explained, and is no line that is counted",
        ),
    ],
)
def test_an_explanation_without_an_unreached_line_is_told(place: Place, said: str) -> None:
    assert told(RIGHT, place) == [said]


def test_more_marks_than_unreached_lines_are_told() -> None:
    assert told(Place("a.rs", "!     if x > 3 {\n!         return 7;", "")) == [
        "a.rs:2 `if x > 3 {` is explained, and was reached"
    ]


def test_fewer_marks_than_unreached_lines_are_told() -> None:
    lines = {"a.rs": Lines(ALL, ALL - {2, 3})}
    (problem,) = told(RIGHT, measured=lines)
    assert problem == "a.rs:2-2 is unreached and not explained:\n!     if x > 3 {"


def test_what_the_crates_own_tests_are_said_to_reach_is_looked_at() -> None:
    place = Place("a.rs", FIRST, "no such call in Python", by="cargo test")
    said = "a.rs:3 `return 7;` is said to be reached by `cargo test`, and was not"
    assert told(place, own={"a.rs": Lines(ALL, frozenset({3}))}) == []
    assert told(place, own={"a.rs": Lines(ALL, ALL - {3})}) == [said]
    assert told(place) == [said]


def test_what_depends_on_the_run_may_be_reached_or_not() -> None:
    place = Place("a.rs", FIRST, "depends on which thread is first", is_sometimes_reached=True)
    assert told(place) == []
    assert told(place, measured={"a.rs": Lines(ALL, ALL)}) == []


def test_an_excluded_pattern_that_matches_nothing_is_told() -> None:
    patterns = [
        Excluded(".rs", r"return \d;", "matches"),
        Excluded(".rs", "return x;", "does not"),
        Excluded(".py", r"return \d;", "does in other files"),
    ]
    assert unmatched(patterns, {"a.rs": SOURCE}) == [
        "the excluded pattern `return x;` matches no line",
        "the excluded pattern `return \\d;` matches no line",
    ]


def test_a_pattern_may_span_lines() -> None:
    over_two = [Excluded(".rs", r"^    if x > 4 \{\n\s+return 7;$", "together")]
    assert without(over_two, MEASURED, {"a.rs": SOURCE}) == {"a.rs": Lines(ALL - {9, 10}, ALL - {3, 9, 10})}
    assert unmatched(over_two, {"a.rs": SOURCE}) == []


def test_excluded_lines_are_not_counted() -> None:
    patterns = [Excluded(".rs", r"return \d;", "as it is"), Excluded(".py", "x", "no such file")]
    assert without(patterns, MEASURED, {"a.rs": SOURCE}) == {"a.rs": Lines(ALL - {3, 10}, ALL - {3, 10})}


TABLE = """
[[unreached]]
reason = "known"
[[unreached.at]]
file = "a.rs"
text = '''
      if x > 3 {
!         return 7;
'''
"""


def test_a_file_of_explanations_is_read() -> None:
    (place,) = parsed(TABLE).places
    assert (place.file, place.quoted, place.marked) == ("a.rs", ["if x > 3 {", "return 7;"], [1])
    assert told(place) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[[unreached]]", "[[unreachable]]"),
        ('reason = "known"', ""),
        ('reason = "known"', 'reason = " "'),
        ('reason = "known"', 'reason = "known"\nwhy = "so"'),
        ('reason = "known"', 'reason = "known"\nby = "hope"'),
        ('reason = "known"', 'reason = "known"\nsometimes = "yes"'),
        ('file = "a.rs"', ""),
        ("!  ", "   "),
        ("!  ", "?  "),
        ("[[unreached.at]]", "[[excluded]]"),
    ],
)
def test_a_file_that_says_something_else_is_refused(old: str, new: str) -> None:
    with pytest.raises(ValueError, match=r"^unreached\.toml: "):
        parsed(TABLE.replace(old, new))


def test_explanations_quote_what_stands_in_the_sources_once() -> None:
    places = parsed(FILE.read_text(encoding="utf-8")).places
    files = {place.file for place in places}
    sources = {name: (ROOT / name).read_text(encoding="utf-8").splitlines() for name in files}
    everything = {name: frozenset(range(1, 1 + len(source))) for name, source in sources.items()}
    # As if nothing were reached but what is not marked, only the quotations are looked at.
    measured = {name: Lines(everything[name], frozenset()) for name in files}
    own = {name: Lines(everything[name], everything[name]) for name in files}
    said = problems(measured, sources, places, own)
    assert [one for one in said if "is unreached and not explained" not in one] == []


def test_tests_that_are_left_out_exist() -> None:
    for test in record.LEFT_OUT:
        file, _, name = test.partition("::")
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_lines_that_llvm_writes_are_read() -> None:
    text = "SF:/root/a.rs\nFN:1,f\nDA:1,4\nDA:2,0\nDA:3,18446744073709551615\nend_of_record\nSF:/other/b.rs\nDA:1,1\n"
    found = from_lcov(f"{text}end_of_record\n", "/root")
    assert found == {"a.rs": Lines(frozenset({1, 2, 3}), frozenset({1, 3}))}
    assert found["a.rs"].unreached == {2}


def test_only_lines_that_both_builds_have_are_compared() -> None:
    own = {"a.rs": Lines(frozenset({1, 2, 90}), frozenset({2, 90})), "c.rs": Lines(ALL, ALL)}
    others = {"a.rs": Lines(frozenset({1, 2, 3}), frozenset()), "b.rs": Lines(frozenset({4}), frozenset({4}))}
    assert narrowed(own, others) == {
        "a.rs": Lines(frozenset({1, 2, 3}), frozenset({2})),
        "b.rs": Lines(frozenset({4}), frozenset()),
    }


def test_lines_of_no_code_do_not_part_a_range() -> None:
    assert ranges({2, 5, 6, 9, 12}, ALL) == [(2, 2), (5, 6), (9, 9), (12, 12)]
    assert ranges({3, 5, 10, 12, 13}, ALL) == [(3, 5), (10, 13)]
    assert ranges((), ALL) == []


def test_a_summary_says_each_files_lines_and_why_some_are_unreached() -> None:
    measured = {"a.rs": Lines(ALL, ALL - {3, 10})}
    own = {"a.rs": Lines(ALL, ALL - {1, 2})}
    assert record.summary(measured, {}, own, {"a.rs": SOURCE}, [RIGHT]) == {
        "a.rs": {
            "lines": 10,
            "reached": 8,
            "reached_by_cargo_test": 8,
            "unreached": [
                {"at": "3", "reason": "no test has a larger x"},
                {"at": "10", "reason": "unexplained"},
            ],
        }
    }
