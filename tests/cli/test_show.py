"""`expert-placement show`: what it says, in both forms; how it ends; and that every wrong input is one line."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from expert_placement import MAX_NUM_EXPERTS, STRATEGIES, Partition, Placement, __version__
from expert_placement.cli import main
from expert_placement.cli.app import app
from expert_placement.cli.loads import rank_loads, read_loads
from expert_placement.cli.rules import OLD_RULE, OldRule, Row, Rule, every_strategy, rows
from typer.testing import CliRunner

DATA = Path(__file__).parents[2] / "examples" / "data"
GPT_OSS = DATA / "gpt-oss-20b" / "gpqa_diamond.json"
MIXTRAL = DATA / "mixtral-8x7b" / "mmlu_machine_learning.json"
OLMOE = DATA / "olmoe-1b-7b" / "c4.json"

# The program as a user starts it, whether or not the script is on the path.
PROGRAM = [sys.executable, "-m", "expert_placement.cli"]


def text(*arguments: object) -> str:
    """What `show` prints in this process."""
    result = CliRunner().invoke(app, ["show", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def fields(*arguments: object) -> dict[str, Any]:
    """What `show --json` prints in this process."""
    parsed: dict[str, Any] = json.loads(text(*arguments, "--json"))
    return parsed


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the program with its output in a pipe."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, env=os.environ | environment, check=False, timeout=60
    )


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on standard error for wrong input."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, ""), captured
    assert captured.err.startswith("error: ")
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err[len("error: ") : -1]


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- ownership --------------------------------------------------------------------------------------------------------


def test_the_table_says_what_each_rank_owns() -> None:
    assert text("--experts", 30, "--ranks", 8).splitlines() == [
        "30 experts on 8 ranks, linear",
        "Not uniform: 6 ranks with 4, 2 ranks with 3. It would be uniform with 2 redundant experts (32 in all), "
        "or on 6 or 10 ranks.",
        "",
        "rank   count   start   experts",
        "   0       4       0   0-3",
        "   1       4       4   4-7",
        "   2       4       8   8-11",
        "   3       4      12   12-15",
        "   4       4      16   16-19",
        "   5       4      20   20-23",
        "   6       3      24   24-26",
        "   7       3      27   27-29",
    ]


@pytest.mark.parametrize(
    ("num_experts", "num_ranks", "line"),
    [
        (64, 8, "Uniform: every rank owns 8 experts."),
        (8, 8, "Uniform: every rank owns 1 expert."),
        (0, 3, "Uniform: every rank owns 0 experts."),
        (
            3,
            5,
            "Not uniform: 3 ranks with 1, 2 ranks with 0. It would be uniform with 2 redundant experts (5 in all), "
            "or on 3 ranks.",
        ),
        (
            1,
            2,
            "Not uniform: 1 rank with 1, 1 rank with 0. It would be uniform with 1 redundant expert (2 in all), "
            "or on 1 rank.",
        ),
        # More redundant experts than a partition can hold are no advice.
        (
            MAX_NUM_EXPERTS,
            MAX_NUM_EXPERTS - 1,
            "Not uniform: 1 rank with 2, 2,147,483,645 ranks with 1. It would be uniform on 1 or 2,147,483,647 ranks.",
        ),
    ],
)
def test_the_second_line_says_whether_ranks_are_equal_and_what_would_make_them_so(
    num_experts: int, num_ranks: int, line: str
) -> None:
    assert text("--experts", num_experts, "--ranks", num_ranks).splitlines()[1] == line


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("num_experts", "num_ranks"), [(30, 8), (0, 3), (3, 5), (64, 1), (7, 7), (256, 72)])
def test_json_tells_the_whole_partition(num_experts: int, num_ranks: int, strategy: str) -> None:
    shown = fields("--experts", num_experts, "--ranks", num_ranks, "--strategy", strategy)
    p = Partition(num_experts, num_ranks, strategy)  # type: ignore[arg-type]
    counts, starts = [p.count(r) for r in range(num_ranks)], [p.start(r) for r in range(num_ranks)]
    assert shown == {
        "num_experts": num_experts,
        "num_ranks": num_ranks,
        "strategy": strategy,
        "is_uniform": num_experts % num_ranks == 0,
        "min_redundant_experts": -num_experts % num_ranks,
        "nearest_legal_ranks": list(p.nearest_legal_ranks),
        "legal_ranks": [r for r in range(1, num_experts + 1) if num_experts % r == 0] if num_experts else None,
        "counts": counts,
        "starts": starts,
        "ranks": [
            {"rank": r, "count": counts[r], "start": starts[r], "experts": list(p.experts(r))} for r in range(num_ranks)
        ],
    }


def index_map(p: Partition, rank: int) -> list[int]:
    """The index map by the scalar queries, which need no torch."""
    return [p.local_index(e) if p.owner(e) == rank else -1 for e in range(p.num_experts)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_json_of_a_rank_holds_its_index_map(strategy: str) -> None:
    for rank in range(8):
        shown = fields("--experts", 30, "--ranks", 8, "--strategy", strategy, "--rank", rank)
        p = Partition(30, 8, strategy)  # type: ignore[arg-type]
        assert (shown["rank"], shown["count"], shown["start"]) == (rank, p.count(rank), p.start(rank))
        assert shown["experts"] == list(p.experts(rank))
        assert shown["expert_map"] == index_map(p, rank)
        assert len(shown["counts"]) == 8


def test_a_rank_is_shown_with_its_index_map() -> None:
    assert text("--experts", 6, "--ranks", 4, "--strategy", "round_robin", "--rank", 1).splitlines()[3:] == [
        "rank 1 of 4",
        "  count    2",
        "  start    1",
        "  experts  1, 5",
        "",
        "expert_map: the local index of each expert that the rank owns, and -1 elsewhere",
        "[-1, 0, -1, -1, -1, 1]",
    ]


def test_json_of_many_ranks_is_whole() -> None:
    # More ranks than are written at once.
    shown = fields("--experts", 20_001, "--ranks", 10_000, "--strategy", "proportional")
    assert shown["counts"] == [20_001 * (r + 1) // 10_000 - 20_001 * r // 10_000 for r in range(10_000)]
    assert [expert for row in shown["ranks"] for expert in row["experts"]] == list(range(20_001))


def test_many_equal_ranks_share_a_row() -> None:
    assert text("--experts", 7001, "--ranks", 5000).splitlines()[3:] == [
        "    ranks   experts each   experts",
        "   0-2000              2   0-4001",
        "2001-4999              1   4002-7000",
    ]
    assert text("--experts", 7001, "--ranks", 5000, "--strategy", "round_robin").splitlines()[4:] == [
        "   0-2000              2   0-2000, then steps of 5,000",
        "2001-4999              1   2001-4999",
    ]


def test_the_largest_sizes_take_no_time() -> None:
    began = time.monotonic()
    shown = text("--experts", MAX_NUM_EXPERTS, "--ranks", MAX_NUM_EXPERTS - 1, "--compare", "--rank", 0)
    assert "2,147,483,647 entries: --json writes them" in shown
    shown = text("--experts", MAX_NUM_EXPERTS - 1, "--ranks", MAX_NUM_EXPERTS, "--strategy", "proportional")
    assert "0-2147483646" not in shown
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("limit", [2, 3, 7, 48])
def test_rows_join_equal_ranks_only_and_say_what_they_leave_out(limit: int) -> None:
    for num_ranks in [*range(1, 24), 97]:
        for num_experts in range(2 * num_ranks + 3):
            strategies = list(every_strategy(num_experts, num_ranks).values())
            rules: list[list[Rule]] = [[rule] for rule in strategies]
            for compared in [*rules, [*strategies, OldRule(num_experts, num_ranks)]]:
                _check_rows(compared, limit)


def _check_rows(rules: list[Rule], limit: int) -> None:
    num_ranks = rules[0].num_ranks
    counts = [tuple(rule.count(rank) for rule in rules) for rank in range(num_ranks)]
    table = rows(rules, limit)
    assert len(table) <= limit + 1
    if num_ranks <= limit:
        assert table == [Row(rank, rank) for rank in range(num_ranks)]
        return
    runs = [len(list(run)) for _, run in groupby(counts)]
    assert [rank for row in table for rank in range(row.first, row.last + 1)] == list(range(num_ranks))
    assert all(len(set(counts[row.first : row.last + 1])) == 1 for row in table if not row.omitted)
    if len(runs) <= limit:
        assert [row.num_ranks for row in table] == runs
    else:
        assert sum(row.omitted for row in table) == 1
        assert len(table) == limit + 1


@pytest.mark.parametrize(("num_experts", "num_ranks"), [(30, 8), (3, 5), (0, 2), (64, 8), (5, 1)])
def test_the_old_rule_leaves_the_rest_to_the_last_rank(num_experts: int, num_ranks: int) -> None:
    old = OldRule(num_experts, num_ranks)
    share = num_experts // num_ranks
    counts = [share] * (num_ranks - 1) + [num_experts - share * (num_ranks - 1)]
    assert [old.count(rank) for rank in range(num_ranks)] == counts
    assert [expert for rank in range(num_ranks) for expert in old.experts(rank)] == list(range(num_experts))
    owners = [rank for rank, count in enumerate(counts) for _ in range(count)]
    assert [old.owner(expert) for expert in range(num_experts)] == owners
    shown = fields("--experts", num_experts, "--ranks", num_ranks, "--compare")
    assert shown["old_rule"]["counts"] == counts
    assert shown["old_rule"]["starts"] == [share * rank for rank in range(num_ranks)]
    assert {name: rule["counts"] for name, rule in shown["compare"].items()} == {
        name: [rule.count(rank) for rank in range(num_ranks)]
        for name, rule in every_strategy(num_experts, num_ranks).items()
    }


def test_the_comparison_sets_the_old_rule_beside_every_strategy() -> None:
    lines = text("--experts", 30, "--ranks", 8, "--compare").splitlines()
    header = lines.index("experts each rank owns") + 1
    assert lines[header].split() == ["rank", *STRATEGIES, *OLD_RULE.split()]
    assert [line.split() for line in lines[header + 1 :]] == [
        ["0", "4", "4", "3", "3"],
        ["1", "4", "4", "4", "3"],
        ["2", "4", "4", "4", "3"],
        ["3", "4", "4", "4", "3"],
        ["4", "4", "4", "3", "3"],
        ["5", "4", "4", "4", "3"],
        ["6", "3", "3", "4", "3"],
        ["7", "3", "3", "4", "9"],
        ["most", "4", "4", "4", "9"],
    ]


# --- where E comes from -----------------------------------------------------------------------------------------------


def test_a_config_tells_the_number_of_experts() -> None:
    file = fields("--config", DATA / "gpt-oss-20b" / "config.json", "--ranks", 7)
    folder = fields("--config", DATA / "gpt-oss-20b", "--ranks", 7)
    assert file == folder
    assert file["counts"] == [5, 5, 5, 5, 4, 4, 4]


def test_loads_alone_tell_the_number_of_experts() -> None:
    assert fields("--loads", OLMOE, "--ranks", 6)["num_experts"] == 64


# --- loads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [GPT_OSS, MIXTRAL, OLMOE], ids=lambda path: path.parent.name)
@pytest.mark.parametrize("num_ranks", [1, 3, 7, 100])
def test_rank_loads_are_sums_over_the_experts_of_a_rank(trace: Path, num_ranks: int) -> None:
    raw = json.loads(trace.read_text())
    table = raw["expert_popularity"] if "expert_popularity" in raw else raw["counts"]
    num_experts = len(table[0])
    shown = fields("--loads", trace, "--ranks", num_ranks, "--compare")
    assert shown["layers"] == list(range(len(table)))
    assert list(shown["rank_loads"]) == list(shown["balancedness"]) == list(STRATEGIES)
    old = shown["old_rule"]
    assert old["rank_loads"] != shown["rank_loads"]["linear"] or num_experts % num_ranks == 0

    for name, carried, balancedness in [
        *((name, shown["rank_loads"][name], shown["balancedness"][name]) for name in STRATEGIES),
        ("old", old["rank_loads"], old["balancedness"]),
    ]:
        rule = OldRule(num_experts, num_ranks) if name == "old" else every_strategy(num_experts, num_ranks)[name]
        expected = [[float(sum(row[e] for e in rule.experts(r))) for r in range(num_ranks)] for row in table]
        assert carried == [pytest.approx(row) for row in expected]
        means = sum(sum(row) / num_ranks for row in expected)
        assert balancedness == pytest.approx(means / sum(map(max, expected)))


def test_the_balancedness_of_a_partition_is_that_of_its_placement(tmp_path: Path) -> None:
    """Also where a mean of equal loads is rounded up, which makes nothing better than perfect."""
    file = tmp_path / "loads.json"
    for loads, ranks in (([[0.1, 0.1, 0.1]], 3), ([[0.1, 0.1, 0.1], [0.7, 0.1, 0.3]], 2), ([[0.0, 0.0, 0.0]], 2)):
        file.write_text(json.dumps(loads))
        shown = fields("--experts", 3, "--ranks", ranks, "--loads", file, "--compare")["balancedness"]
        for name, balancedness in shown.items():
            placement = Placement.from_partition(Partition(3, ranks, name), len(loads))
            assert balancedness == pytest.approx(placement.balancedness(loads), rel=1e-12)
            assert balancedness <= 1


def test_a_layer_can_be_picked() -> None:
    table = json.loads(OLMOE.read_text())["counts"]
    shown = fields("--loads", OLMOE, "--ranks", 1, "--layer", 2)
    assert shown["layers"] == [2]
    assert shown["rank_loads"]["linear"] == [[sum(table[2])]]
    # A row is not always the layer of the model with the same number.
    assert f"load of each rank: row 2, layer 15 of the model, from `{OLMOE}`" in text(
        "--loads", OLMOE, "--ranks", 1, "--layer", 2
    )
    assert f"load of each rank: layer 3, from `{MIXTRAL}`" in text("--loads", MIXTRAL, "--ranks", 2, "--layer", 3)
    assert "the sum over all 32 layers" in text("--loads", MIXTRAL, "--ranks", 2)


def test_bars_are_proportional_to_loads_on_one_scale(tmp_path: Path) -> None:
    loads = write(tmp_path / "loads.json", [[4, 0, 1, 1], [4, 0, 1, 1]])
    lines = program("show", "--loads", loads, "--ranks", 2, PYTHONIOENCODING="utf-8").stdout.decode().splitlines()
    at = lines.index("linear: balancedness 0.7500")
    # 8 and 4 under the linear strategy; 10 and 2 under round robin, which sets the scale.
    assert lines[at + 1 : at + 5] == [
        "mean rank load 6; largest 8 on rank 0, 1.333 x mean",
        "rank   load   x mean",
        f"   0      8    1.333   {'█' * 32}",
        f"   1      4    0.667   {'█' * 16}",
    ]
    at = lines.index("round_robin: balancedness 0.6000")
    assert lines[at + 3 : at + 5] == [f"   0     10    1.667   {'█' * 40}", f"   1      2    0.333   {'█' * 8}"]


def test_ranks_without_experts_share_a_row() -> None:
    lines = text("--loads", MIXTRAL, "--ranks", 3000).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("linear: "))
    assert [line.split()[0] for line in lines[start + 3 : start + 12]] == [*"01234567", "8-2999"]


def test_a_long_list_of_rank_loads_says_what_it_leaves_out(tmp_path: Path) -> None:
    loads = write(tmp_path / "loads.json", [list(range(100))])
    lines = text("--loads", loads, "--ranks", 100).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("linear: "))
    shown = lines[start + 3 : start + 3 + 49]
    assert [line.split()[0] for line in shown] == [*map(str, range(24)), "...", *map(str, range(76, 100))]
    assert shown[24].endswith("52 more ranks, all of them with --json")
    assert lines[start + 1] == "mean rank load 49.5; largest 99 on rank 99, 2.000 x mean"


@pytest.mark.parametrize("table", [[[0, 0, 0]], [[0.0, -0.0, 0]] * 2, [[]], [[], []]])
def test_ranks_without_any_load_are_balanced(tmp_path: Path, table: list[list[float]]) -> None:
    loads = write(tmp_path / "loads.json", table)
    shown = fields("--loads", loads, "--ranks", 2)
    assert shown["balancedness"] == dict.fromkeys(STRATEGIES, 1.0)
    assert shown["rank_loads"]["linear"] == [[0.0, 0.0]] * len(table)
    assert "no load at all" in text("--loads", loads, "--ranks", 2)


@pytest.mark.parametrize("key", ["counts", "counts_total", "expert_popularity", "logical_count"])
def test_each_key_of_a_table_is_read(tmp_path: Path, key: str) -> None:
    loads = write(tmp_path / "loads.json", {"other": "x", key: [[1, 2, 3.5]]})
    assert fields("--loads", loads, "--ranks", 3)["rank_loads"]["linear"] == [[1.0, 2.0, 3.5]]


def test_the_stored_form_of_rank_loads_agrees_with_the_dense_one() -> None:
    table = read_loads(str(GPT_OSS))
    for num_ranks in (5, 50):
        for rule in every_strategy(32, num_ranks).values():
            loads = rank_loads(rule, table.loads)
            assert loads.dense().tolist() == [list(row) for row in loads.rows()]
            assert loads.totals().sum() == pytest.approx(table.loads.sum())


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--experts -1 --ranks 3", "num_experts=-1 is out of range, expected 0..=2147483647"),
        ("--experts 2147483648 --ranks 3", "num_experts=2147483648 is out of range, expected 0..=2147483647"),
        (f"--experts {10**30} --ranks 3", f"num_experts={10**30} is out of range, expected 0..=2147483647"),
        ("--experts 3 --ranks 0", "num_ranks=0 is out of range, expected 1..=2147483647"),
        ("--experts 3 --ranks -2", "num_ranks=-2 is out of range, expected 1..=2147483647"),
        ("--experts 3 --ranks 3 --rank 3", "rank=3 is out of range, expected 0..3"),
        ("--experts 3 --ranks 3 --rank -1", "rank=-1 is out of range, expected 0..3"),
        (
            "--experts 3 --ranks 3 --strategy zigzag",
            "strategy=`zigzag` is unknown, expected one of `linear`, `round_robin`, `proportional`",
        ),
        ("--ranks 3", "the number of experts is not known, expected --experts, --config or --loads"),
        ("--experts 3 --config x --ranks 3", "both --experts and --config are given, expected one of them"),
        ("--experts 3 --ranks 3 --layer 0", "--layer picks a row of --loads, which is not given"),
        (
            f"--loads {OLMOE} --ranks 3 --layer 3",
            f"layer=3 is out of range, expected 0..3, the rows of `{OLMOE}`",
        ),
        (
            f"--loads {OLMOE} --ranks 3 --layer -1",
            f"layer=-1 is out of range, expected 0..3, the rows of `{OLMOE}`",
        ),
        (
            f"--loads {OLMOE} --experts 32 --ranks 3",
            f"`{OLMOE}`: layer 0 has 64 experts, expected 32, as --experts says",
        ),
        (
            f"--loads {OLMOE} --config {DATA / 'mixtral-8x7b'} --ranks 3",
            f"`{OLMOE}`: layer 0 has 64 experts, expected 8, as `num_local_experts` of `{DATA / 'mixtral-8x7b'}` says",
        ),
        ("--loads /nowhere/x.json --ranks 3", "`/nowhere/x.json`: no such file or directory"),
        (f"--loads {DATA} --ranks 3", f"`{DATA}`: this is a directory, expected a file of loads"),
    ],
)
def test_wrong_arguments_are_one_line(capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    assert refused(capsys, "show", *arguments.split()) == message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("show --experts 3", "--ranks"),
        ("show --experts 3 --ranks", "--ranks"),
        ("show --exports 3 --ranks 3", "--exports"),
        ("show --experts 3 --ranks 3 stray", "stray"),
        ("shw", "shw"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: str, part: str) -> None:
    assert part in refused(capsys, *arguments.split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"counts": [[1, NaN]]}', "line 1, column 17: `NaN` is no JSON number"),
        ("[[1, 2], [Infinity, 1]]", "layer 1, expert 0 is `Infinity`, expected a finite number that is 0 or more"),
        ("[[1, 1e999]]", "layer 0, expert 1 is `Infinity`, expected a finite number that is 0 or more"),
        ("[[1, -2]]", "layer 0, expert 1 is `-2`, expected a finite number that is 0 or more"),
        ("[[1, -0.5]]", "layer 0, expert 1 is `-0.5`, expected a finite number that is 0 or more"),
        ('[[1, "2"]]', 'layer 0, expert 1 is the string `"2"`, expected a number'),
        ("[[1, null]]", "layer 0, expert 1 is `null`, expected a number"),
        ("[[1, true]]", "layer 0, expert 1 is `true`, expected a number"),
        ("[[1, {}]]", "layer 0, expert 1 is an object, expected a number"),
        (
            "[[1, [2]]]",
            "layer 0, expert 1 is an array, expected a number: the table has more than the two levels "
            "[layers][experts]",
        ),
        ("[[[1, 2]]]", "the table is [windows][layers][experts], expected [layers][experts]"),
        (f"[[1{'0' * 400}]]", "layer 0, expert 0 is an integer of 401 digits, expected at most 1e+300"),
        ("[[1e300, 1e300]]", "the loads sum to more than 1e+300"),
        ("[[1e308], [1e308]]", "the loads sum to more than 1e+300"),
        ("[[1, 2], [1]]", "layer 1 has 1 experts, expected 2, as layer 0 has"),
        ("[[1, 2], 3]", "layer 1 is `3`, expected an array with a load for each expert"),
        ("[1, 2]", "layer 0 is `1`, expected an array with a load for each expert"),
        ("[]", "there are no layers, expected a table [layers][experts]"),
        ('{"counts": 5}', "`counts` is `5`, expected a table [layers][experts]"),
        (
            "{}",
            "the object has none of `counts`, `counts_total`, `expert_popularity`, `logical_count`, "
            "expected exactly one",
        ),
        (
            '{"counts": [[1]], "logical_count": [[1]]}',
            "the object has `counts` and `logical_count` of `counts`, `counts_total`, `expert_popularity`, "
            "`logical_count`, expected exactly one",
        ),
        ('{"counts": [[1]], "counts": [[2]]}', "line 1, column 19: duplicate key `counts`"),
        (
            "3",
            "the JSON is `3`, expected a table [layers][experts], or an object with one of `counts`, "
            "`counts_total`, `expert_popularity`, `logical_count`",
        ),
        ("[[1,\n 2,,]]", "line 2, column 4: broken JSON: expecting value"),
        ("", "line 1, column 1: broken JSON: expecting value"),
        ("[" * 100_000, "the JSON is nested too deeply, expected a file of loads"),
        (f"[[{'9' * 5000}]]", "an integer has too many digits, expected a file of loads"),
    ],
)
def test_a_bad_file_of_loads_is_one_line_that_names_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    file = write(tmp_path / "loads.json", content)
    assert refused(capsys, "show", "--loads", file, "--ranks", 2) == f"`{file}`: {message}"


def test_a_binary_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "loads.json"
    file.write_bytes(b"[[1,\n\xff\x00]]")
    assert refused(capsys, "show", "--loads", file, "--ranks", 2) == (
        f"`{file}`: line 2, column 1: byte `0xff` is no valid UTF-8"
    )
    assert "UTF-8" in refused(capsys, "show", "--config", file, "--ranks", 2)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    pipe = tmp_path / "loads.json"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for path in (pipe, link, Path(os.devnull)):
        for option, expected in (("--loads", "a file of loads"), ("--config", "a model's config.json")):
            result = program("show", option, path, "--ranks", 2)
            assert (result.returncode, result.stdout) == (2, b"")
            assert result.stderr.decode() == f"error: `{path}`: this is no regular file, expected {expected}\n"


def test_standard_input_is_read_where_it_is_a_file(tmp_path: Path) -> None:
    command = [*PROGRAM, "show", "--loads", "/dev/stdin", "--ranks", "1", "--json"]
    with write(tmp_path / "loads.json", [[1, 2]]).open("rb") as file:
        result = subprocess.run(command, stdin=file, capture_output=True, check=False, timeout=60)
    assert json.loads(result.stdout)["rank_loads"]["linear"] == [[3.0]], result.stderr
    result = subprocess.run(command, input=b"[[1, 2]]", capture_output=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr == b"error: `/dev/stdin`: this is no regular file, expected a file of loads\n"


def test_a_link_to_a_file_of_loads_is_read(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(OLMOE)
    assert fields("--loads", link, "--ranks", 6) == fields("--loads", OLMOE, "--ranks", 6)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_an_unreadable_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "loads.json", [[1]])
    file.chmod(0)
    for option in ("--loads", "--config"):
        assert refused(capsys, "show", option, file, "--ranks", 2) == f"`{file}`: permission denied"


def test_a_dense_or_missing_config_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = write(tmp_path / "config.json", {"model_type": "llama", "num_hidden_layers": 2})
    for source, part in [(dense, "llama"), (tmp_path / "none", "no such file"), (DATA, "config.json")]:
        message = refused(capsys, "show", "--config", source, "--ranks", 2)
        assert part in message
        assert str(source) in message


def test_a_name_that_no_terminal_can_show_stays_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "show", "--loads", tmp_path / "a\nb\x1b[31m", "--ranks", 2) == (
        f"`{tmp_path}/a\\nb\\x1b[31m`: no such file or directory"
    )
    name = "x" * 5000
    longest = f"`{'x' * 40}...` has 5000 characters, expected at most 4096"
    assert refused(capsys, "show", "--loads", name, "--ranks", 2) == f"path={longest}"


# --- output -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, {"COLUMNS": "40"}, {"FORCE_COLOR": "1"}, {"TERM": "xterm-256color"}])
def test_a_pipe_gets_plain_lines_of_any_length(environment: dict[str, str]) -> None:
    result = program("show", "--experts", 300, "--ranks", 7, "--rank", 6, "--compare", **environment)
    assert result.returncode == 0, result.stderr
    output = result.stdout.decode()
    assert "\x1b" not in output
    p = Partition(300, 7)
    assert str(index_map(p, 6)) in output.splitlines()
    assert not [line for line in output.splitlines() if line != line.rstrip()]


def test_bars_are_ascii_where_the_encoding_is() -> None:
    output = program("show", "--loads", MIXTRAL, "--ranks", 3, PYTHONIOENCODING="ascii").stdout.decode("ascii")
    bars = [line.rpartition(" ")[2] for line in output.splitlines() if line.endswith("#")]
    assert len(bars) == 9
    assert set("".join(bars)) == {"#"}
    assert max(map(len, bars)) == 40


def test_a_path_that_the_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    loads = write(tmp_path / "lädt[red].json", [[1]])
    result = program("show", "--loads", loads, "--ranks", 1, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert rb"l\xe4dt[red].json" in result.stdout


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """Runs the program on a terminal of 80 columns."""
    controller, terminal = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    variables |= {"TERM": "xterm", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"} | environment
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=variables
    ) as process:
        os.close(terminal)
        output = b""
        while True:
            try:
                piece = os.read(controller, 65536)
            except OSError:  # Linux reports the end of a terminal as an error.
                break
            if not piece:
                break
            output += piece
        assert process.wait(60) == 0, output
    os.close(controller)
    return output.decode()


def test_a_terminal_gets_emphasis_and_no_line_that_is_too_long() -> None:
    output = on_a_terminal("show", "--loads", GPT_OSS, "--ranks", 7)
    assert "\x1b[1m" in output
    plain = output.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 80


def test_no_color_is_respected() -> None:
    for arguments in (("show", "--loads", GPT_OSS, "--ranks", 7), ("show", "--help")):
        output = on_a_terminal(*arguments, NO_COLOR="1")
        # What may stay is emphasis without a colour: bold, dim, and their end.
        for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[1;2m"):
            output = output.replace(code, "")
        assert "\x1b" not in output


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    for arguments in (
        ("show", "--experts", MAX_NUM_EXPERTS, "--ranks", MAX_NUM_EXPERTS, "--json"),
        ("show", "--experts", 40, "--ranks", 40),
        ("--help",),
    ):
        with subprocess.Popen(
            [*PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == 141


def test_an_interrupt_ends_the_program_quietly() -> None:
    with subprocess.Popen(
        [*PROGRAM, "show", "--experts", str(MAX_NUM_EXPERTS), "--ranks", str(MAX_NUM_EXPERTS), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1000).startswith(b"{")
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == b""
        assert process.wait(60) == 130


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line() -> None:
    for arguments in (("show", "--experts", "9", "--ranks", "2"), ("--help",)):
        with Path("/dev/full").open("wb") as full:
            result = subprocess.run(
                [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
            )
        assert (result.returncode, result.stderr) == (2, b"error: no space left on device\n")


# --- the program ------------------------------------------------------------------------------------------------------


def test_the_version_is_printed() -> None:
    result = program("--version")
    assert (result.returncode, result.stdout.decode()) == (0, f"expert-placement {__version__}\n")


def test_help_has_examples_that_run() -> None:
    help_text = " ".join(program("show", "--help").stdout.decode().split())
    assert "\x1b" not in help_text
    assert "expert-placement show --experts 30 --ranks 8 expert-placement" in help_text
    text("--experts", 30, "--ranks", 8)
    assert "`counts`, `counts_total`, `expert_popularity` or `logical_count`" in help_text
    assert "[layers][experts]" in help_text
    for option in ("--config", "--strategy", "--layer", "--rank", "--compare", "--json"):
        assert option in help_text


def test_no_command_prints_the_help_and_is_bad_usage() -> None:
    result = program()
    assert result.returncode == 2
    assert b"show" in result.stdout


def test_strategies_are_completed() -> None:
    result = program(
        _EXPERT_PLACEMENT_COMPLETE="complete_bash", COMP_WORDS="expert-placement show --strategy r", COMP_CWORD="3"
    )
    assert result.stdout.split() == [b"round_robin"]


def test_importing_the_command_line_imports_no_extra_and_show_no_torch() -> None:
    code = (
        "import sys\n"
        "from expert_placement.cli import main\n"
        "print([name for name in ('typer', 'rich', 'numpy', 'torch') if name in sys.modules])\n"
        "main(['show', '--loads', sys.argv[1], '--ranks', '3', '--json', '--rank', '1'])\n"
        "print([name for name in ('matplotlib', 'torch') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code, MIXTRAL], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("[]", "[]")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_a_missing_extra_is_one_line_that_names_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from expert_placement.cli import main; sys.exit(main([]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: the command line needs `{missing}")
    assert result.stderr.endswith("pip install 'expert-placement[cli]'\n")
    assert result.stderr.count("\n") == 1


def test_a_fault_of_the_program_is_not_taken_for_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("expert_placement.cli.show._write", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["show", "--experts", "3", "--ranks", "2"])
