"""`expert-placement plan`: what it says in both forms, what it writes, and that every wrong input is one line."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch", reason="placements need torch")

from expert_placement import Partition, Placement, Topology, formats, least_slots, rebalance
from expert_placement.cli.planning import Request, Score, read_setting
from expert_placement.formats.loads import read_loads

from tests.cli.running import GPT_OSS, MIXTRAL, OLMOE, PROGRAM, program, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.running import Shell

LOADS = [[600, 560, 120, 120, 20, 10, 10, 10]]
WINDOWS = [LOADS, [[300, 560, 420, 120, 20, 10, 10, 10]], [[10, 20, 30, 40, 50, 60, 70, 80]]]


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    return write(tmp_path / "loads.json", LOADS)


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    return write(tmp_path / "windows.json", WINDOWS)


# --- what it says -----------------------------------------------------------------------------------------------------


def test_the_tables_say_what_was_there_and_what_is_planned(shell: Shell, loads: Path) -> None:
    lines = shell.lines("plan", "--loads", loads, "--ranks", 8, "--redundant", 8)
    assert lines[:-8] == [
        "1 layer of 8 experts in 16 slots on 8 ranks",
        f"loads from `{loads}`",
        "",
        "                  balancedness   busiest ranks   lower bound       gap   moves",
        "before: linear          0.3021             600        181.25   231.0 %",
        "after: balanced         0.9216          196.67        181.25     8.5 %      15",
        "",
        "balancedness of the layers",
        "layer   before    after   busiest rank   lower bound     gap   moves",
        "    0   0.3021   0.9216         196.67        181.25   8.5 %      15",
        "",
        "load of each rank over the mean, in all layers together and in its worst layer (bars)",
        "rank   before   worst layer                                              after   worst layer",
    ]
    assert lines[-8] == f"   0    3.310         3.310   {'█' * 40}   1.085         1.085   {'█' * 13}▏"
    assert [line.split()[0] for line in lines[-8:]] == list("01234567")


def test_json_is_what_the_library_says(shell: Shell, loads: Path) -> None:
    shown = shell.fields("plan", "--loads", loads, "--ranks", 8, "--slots", 16)
    plan = rebalance(LOADS, 16, Topology(8))
    (report,) = plan.report(LOADS)
    assert shown["physical_to_logical"] == plan.physical_to_logical().tolist()
    assert shown["after"] == {
        "name": "balanced",
        "digest": plan.digest(),
        "balancedness": plan.balancedness(LOADS),
        "mean": report.mean,
        "largest": report.largest,
        "lower_bound": report.lower_bound,
        "gap": report.gap,
        "layers": [report._asdict()],
        "rank_loads": plan.rank_loads(LOADS).tolist(),
        "off_node": None,
    }
    assert shown["before"]["rank_loads"] == [[float(load) for load in LOADS[0]]]
    sizes = {"num_windows": None, "num_layers": 1, "num_experts": 8, "num_slots": 16, "num_ranks": 8, "num_nodes": 1}
    assert {key: shown[key] for key in sizes} == sizes
    assert (shown["policy"], shown["inactive"], shown["output"]) == ("balanced", [], None)


@pytest.mark.parametrize("policy", ["balanced", "deepseek"])
def test_windows_are_planned_for_together(shell: Shell, windows: Path, policy: str) -> None:
    shown = shell.fields("plan", "--loads", windows, "--ranks", 4, "--slots", 12, "--policy", policy)
    plan = rebalance(WINDOWS, 12, Topology(4), policy)  # type: ignore[arg-type]
    assert shown["num_windows"] == 3
    assert shown["after"]["digest"] == plan.digest()
    assert shown["after"]["balancedness"] == plan.balancedness(WINDOWS)
    assert shown["after"]["rank_loads"] == plan.rank_loads(WINDOWS).tolist()
    assert "3 windows of loads from" in shell.text("plan", "--loads", windows, "--ranks", 4, "--slots", 12)


@pytest.mark.parametrize("trace", [GPT_OSS, MIXTRAL, OLMOE], ids=lambda path: path.parent.name)
def test_recorded_loads_are_balanced_by_a_plan(shell: Shell, trace: Path) -> None:
    shown = shell.fields("plan", "--loads", trace, "--ranks", 4, "--redundant", 8)
    assert shown["after"]["balancedness"] > shown["before"]["balancedness"]
    assert shown["after"]["gap"] < 0.02
    lines = shell.lines("plan", "--loads", trace, "--ranks", 4, "--redundant", 8, "--layers")
    assert sum(line.split()[:1] == [str(layer)] for layer, line in enumerate(lines[9:])) > 0
    first = next(index for index, line in enumerate(lines) if line.startswith("layer ")) + 1
    shown_layers = [line.split()[0] for line in lines[first : first + shown["num_layers"]]]
    assert shown_layers == [str(layer) for layer in range(shown["num_layers"])]


def test_only_the_worst_layers_are_shown_without_other_word(shell: Shell) -> None:
    arguments = ("plan", "--loads", GPT_OSS, "--ranks", 4, "--redundant", 8)
    layers = shell.fields(*arguments)["after"]["layers"]
    worst = sorted(layers, key=lambda layer: -layer["gap"])[:5]
    lines = shell.lines(*arguments)
    at = next(index for index, line in enumerate(lines) if line.startswith("layer ")) + 1
    assert [line.split()[0] for line in lines[at : at + 6] if line] == [str(layer["layer"]) for layer in worst]


def test_rows_that_are_other_layers_of_the_model_say_so(shell: Shell) -> None:
    lines = shell.lines("plan", "--loads", OLMOE, "--ranks", 4, "--redundant", 8)
    at = next(index for index, line in enumerate(lines) if line.startswith("layer   of the model"))
    assert [line.split()[:2] for line in lines[at + 1 : at + 4]] == [["0", "0"], ["1", "7"], ["2", "15"]]


# --- what is there ----------------------------------------------------------------------------------------------------


def test_without_a_previous_placement_it_starts_from_the_linear_partition(tmp_path: Path) -> None:
    for num_experts in range(1, 12):
        file = write(tmp_path / f"{num_experts}.json", [[1] * num_experts] * 2)
        for num_ranks in range(1, 9):
            for num_redundant in (0, 1, num_ranks, num_ranks + 3):
                setting = read_setting(Request(str(file), num_ranks=num_ranks, num_redundant=num_redundant))
                p = Partition(num_experts, num_ranks)
                assert (setting.num_slots, setting.start.num_layers) == (num_experts + num_redundant, 2)
                for rank in range(num_ranks):
                    held = setting.start.local_experts(1, rank).tolist()
                    assert [expert for expert in held if expert >= 0] == list(p.experts(rank))


def test_where_a_rank_has_too_few_slots_the_others_hold_more(tmp_path: Path) -> None:
    file = write(tmp_path / "loads.json", [[1] * 9])
    setting = read_setting(Request(str(file), num_ranks=4, slots_per_rank="1,9,0,4", inactive=("3",)))
    assert setting.start.physical_to_logical().tolist() == [[0, *range(1, 9), -1, -1, -1, -1, -1]]
    with pytest.raises(Exception, match="gives the active ranks 8 slots, expected at least 9"):
        read_setting(Request(str(file), num_ranks=4, slots_per_rank="1,7,0,4", inactive=("3",)))


def test_slots_are_told_in_any_of_three_ways(shell: Shell, loads: Path) -> None:
    ways = (("--slots", 12), ("--redundant", 4), ("--slots-per-rank", 3), ("--slots-per-rank", "3,3,3,3"))
    digests = {shell.fields("plan", "--loads", loads, "--ranks", 4, *way)["after"]["digest"] for way in ways}
    assert digests == {rebalance(LOADS, 12, Topology(4)).digest()}


def test_a_wanted_balance_tells_the_slots(shell: Shell) -> None:
    table = read_loads(GPT_OSS)
    found = least_slots(table, 0.999, Topology(7))
    shown = shell.fields("plan", "--loads", GPT_OSS, "--ranks", 7, "--balancedness", 0.999)
    assert shown["num_slots"] == found.num_slots
    assert shown["after"]["balancedness"] == found.balancedness >= 0.999
    arguments = ("plan", "--loads", GPT_OSS, "--ranks", 7)
    assert "out of reach" in shell.refused(*arguments, "--balancedness", 1.0)
    assert "balancedness=1.5 is out of range" in shell.refused(*arguments, "--balancedness", 1.5)
    for option in ("--slots", "--redundant", "--slots-per-rank"):
        assert shell.refused(*arguments, "--balancedness", 0.9, option, 40) == (
            f"both --balancedness and {option} are given, expected one of them"
        )


def test_unequal_ranks_get_what_they_can_carry(shell: Shell, loads: Path) -> None:
    arguments = ("plan", "--loads", loads, "--ranks", 3, "--slots-per-rank", "6,3,3", "--speeds", "2,1,0.5")
    shown = shell.fields(*arguments, "--threads", 2)
    topology = Topology(3, slots_per_rank=[6, 3, 3], speeds=[2, 1, 0.5])
    assert shown["after"]["digest"] == rebalance(LOADS, 12, topology).digest()
    assert "time of each rank over the mean" in shell.text(*arguments)


def test_nodes_and_groups_reach_the_policy(shell: Shell, loads: Path) -> None:
    arguments = ("--ranks", 4, "--slots", 12, "--nodes", 2, "--groups", 4, "--policy", "deepseek")
    shown = shell.fields("plan", "--loads", loads, *arguments)
    plan = rebalance(LOADS, 12, Topology(4, 2), "deepseek", 4)
    assert (shown["after"]["digest"], shown["num_nodes"], shown["num_groups"]) == (plan.digest(), 2, 4)


def test_what_is_served_off_node_is_limited_and_said(shell: Shell, loads: Path) -> None:
    arguments = ("plan", "--loads", loads, "--ranks", 4, "--slots", 16, "--nodes", 2, "--groups", 4)
    plan = rebalance(LOADS, 16, Topology(4, 2), num_groups=4, max_off_node=0.05)
    shown = shell.fields(*arguments, "--max-off-node", 0.05)
    assert shown["after"]["digest"] == plan.digest()
    assert shown["after"]["off_node"] == plan.off_node(LOADS, 4)
    assert shown["after"]["off_node"][0] <= 0.05
    assert (shown["max_off_node"], shown["before"]["off_node"]) == (0.05, [0.0])
    lines = shell.lines(*arguments, "--max-off-node", 0)
    assert lines[3].split()[-3:] == ["off", "node", "moves"]
    assert lines[5].split()[-3:-1] == ["0", "%"]


# --- from one placement to the next -----------------------------------------------------------------------------------


def test_the_file_that_is_written_is_the_next_plans_start(shell: Shell, windows: Path, tmp_path: Path) -> None:
    first, later = tmp_path / "first.json", write(tmp_path / "later.json", WINDOWS[1])
    lines = shell.lines("plan", "--loads", windows, "--ranks", 4, "--slots", 12, "--output", first)
    made = Placement.load(first)
    assert made == rebalance(WINDOWS, 12, Topology(4))
    assert lines[-1] == f"The placement is in `{first}`, digest {made.digest()[:14]}.."

    # The file tells ranks and slots.
    shown = shell.fields("plan", "--loads", later, "--previous", first, "--max-moves", 1)
    assert shown["before"]["digest"] == made.digest()
    assert shown["after"]["digest"] == rebalance(WINDOWS[1], 12, Topology(4), previous=made, max_moves=1).digest()
    assert shown["num_moves"] == sum(shown["moves_of_layers"]) <= 1

    unmoved = shell.fields("plan", "--loads", later, "--previous", first, "--max-moves", 0)
    assert (unmoved["num_moves"], unmoved["after"]["digest"]) == (0, made.digest())
    # A gain that no move brings.
    unmoved = shell.fields("plan", "--loads", later, "--previous", first, "--min-gain", 0.9)
    assert unmoved["after"]["digest"] == made.digest()
    assert "before: first.json " in shell.text("plan", "--loads", later, "--previous", first)


@pytest.mark.parametrize("name", ["sglang", "deepseek", "vllm_ascend"])
def test_a_plan_starts_from_the_file_of_an_engine(shell: Shell, loads: Path, tmp_path: Path, name: str) -> None:
    start = rebalance(LOADS, 12, Topology(4))
    file = tmp_path / "start.json"
    formats.write(start, file, name)
    later = write(tmp_path / "later.json", WINDOWS[1])
    arguments = ("plan", "--loads", later, "--previous", file, "--max-moves", 1)
    shown = shell.fields(*arguments, "--ranks", 4)
    assert shown["before"]["digest"] == start.digest()
    assert shown["after"]["digest"] == rebalance(WINDOWS[1], 12, Topology(4), previous=start, max_moves=1).digest()
    if name not in formats.RANKED:
        message = f"`{file}`: a file of `{name}` does not say how many ranks there are, expected --ranks"
        assert shell.refused(*arguments) == message


def test_the_plan_may_replace_the_file_it_starts_from(shell: Shell, loads: Path, tmp_path: Path) -> None:
    file = tmp_path / "placement.json"
    shell.text("plan", "--loads", loads, "--ranks", 4, "--slots", 12, "--output", file)
    shown = shell.fields("plan", "--loads", loads, "--previous", file, "--inactive", 3, "--output", file)
    assert Placement.load(file).digest() == shown["after"]["digest"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loads.json", "placement.json"]


def test_the_loads_and_pipes_are_not_replaced(shell: Shell, loads: Path, tmp_path: Path) -> None:
    link, pipe = tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(loads)
    os.mkfifo(pipe)
    before = loads.read_bytes()
    arguments = ("plan", "--loads", loads, "--ranks", 4, "--slots", 12, "--output")
    for output in (loads, link):
        message = f"--output and --loads are the same file, `{output}`, expected another one to write"
        assert shell.refused(*arguments, output) == message
    assert shell.refused(*arguments, pipe) == f"`{pipe}`: this is no regular file, expected one, or a new path"
    assert shell.refused(*arguments, "") == "``: the path is empty, expected that of a file"
    assert shell.refused(*arguments, tmp_path) == f"`{tmp_path}`: is a directory"
    assert loads.read_bytes() == before
    assert (link.is_symlink(), stat.S_ISFIFO(pipe.lstat().st_mode)) == (True, True)
    assert len(list(tmp_path.iterdir())) == 3


def test_ranks_leave_and_come_back(shell: Shell, loads: Path, tmp_path: Path) -> None:
    file = tmp_path / "placement.json"
    shown = shell.fields("plan", "--loads", loads, "--ranks", 4, "--slots", 16, "--inactive", "1,3", "--output", file)
    assert shown["inactive"] == [1, 3]
    assert [expert for slot, expert in enumerate(shown["physical_to_logical"][0]) if slot // 4 in (1, 3)] == [-1] * 8
    assert shown["before"]["rank_loads"][0][1::2] == [0.0, 0.0]
    assert (
        shell.text("plan", "--loads", loads, "--ranks", 4, "--slots", 16, "--inactive", 1).count("out of service") == 1
    )
    # What a previous placement says of ranks holds until something else is said.
    arguments = ("plan", "--loads", loads, "--previous", file)
    assert shell.fields(*arguments)["inactive"] == [1, 3]
    assert shell.fields(*arguments, "--inactive", "3", "--inactive", "0")["inactive"] == [0, 3]
    back = shell.fields(*arguments, "--inactive", "none")
    assert back["inactive"] == []
    assert min(back["after"]["rank_loads"][0]) > 0


def test_scores_add_up() -> None:
    total = Score(1, 2, 1.5) + Score(3, 3, 3)
    assert (total.balancedness, total.best) == (4 / 5, 4 / 4.5)
    assert total.gap == pytest.approx(5 / 4.5 - 1)
    assert (Score().balancedness, Score().best, Score().gap) == (1.0, 1.0, 0.0)


def test_ranks_without_any_load_are_balanced(shell: Shell, tmp_path: Path) -> None:
    file = write(tmp_path / "zero.json", [[0, 0, 0]])
    lines = shell.lines("plan", "--loads", file, "--ranks", 2, "--slots", 4)
    assert lines[4].split()[2:] == ["1.0000", "0", "0", "0", "%"]
    assert lines[-1] == "no load at all"


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the number of ranks is not known, expected --ranks or --previous"),
        (
            "--ranks 8",
            "the number of slots is not known, expected one of --slots, --redundant, --slots-per-rank, --previous",
        ),
        ("--ranks 8 --slots 16 --redundant 8", "both --slots and --redundant are given, expected one of them"),
        ("--ranks 8 --redundant -1", "redundant=-1 is out of range, expected 0 or more"),
        (
            "--ranks 8 --slots 4",
            "num_slots=4 gives the active ranks 4 slots, expected at least 8, one for each expert",
        ),
        ("--ranks 8 --slots -1", "num_slots=-1 is out of range, expected 0..=67108864 for 1 layer"),
        ("--ranks 8 --slots 9999999999", "num_slots=9999999999 is out of range, expected 0..=67108864 for 1 layer"),
        ("--ranks 0 --slots 16", "num_ranks=0 is out of range, expected 1..=2147483647"),
        ("--ranks 65537 --slots 16", "num_ranks=65537 is out of range, expected 1..=65536 for a plan"),
        ("--ranks 8 --slots 16 --nodes 9", "num_nodes=9 is out of range, expected 1..=8: a node has at least one rank"),
        (
            "--ranks 8 --slots 16 --groups 0",
            "num_groups=0 is out of range, expected 1..=8: a group has at least one expert",
        ),
        ("--ranks 8 --slots 16 --policy x", "policy=`x` is unknown, expected one of `balanced`, `deepseek`"),
        ("--ranks 8 --slots 16 --speeds 1,2", "speeds has length 2, expected 8"),
        (
            "--ranks 2 --slots 16 --speeds 1,x",
            "speeds: `x` is no number, expected R of them, with a comma between two",
        ),
        (
            "--ranks 2 --slots-per-rank 1.5",
            "slots_per_rank: `1.5` is no integer, expected one or R of them, with a comma between two",
        ),
        (
            "--ranks 8 --slots 16 --slots-per-rank 3",
            "num_slots=16 is out of range, expected 24..=24: the ranks of the topology have that many",
        ),
        ("--ranks 8 --slots 16 --inactive 8", "inactive=`8` is out of range, expected a rank in 0..8"),
        ("--ranks 8 --slots 16 --inactive 1,,2", "inactive=`` is out of range, expected a rank in 0..8"),
        ("--ranks 8 --slots 16 --inactive -1", "inactive=`-1` is out of range, expected a rank in 0..8"),
        ("--ranks 2 --slots 16 --inactive 0,1", "active has no active rank, expected at least one"),
        ("--ranks 8 --slots 16 --max-moves 3", "max_moves needs the placement to start from, previous"),
        ("--ranks 8 --slots 16 --min-gain 0.1", "min_gain needs the placement to start from, previous"),
        ("--ranks 8 --slots 16 --threads 0", "num_threads=0 is out of range, expected 1..=4096"),
        ("--ranks 8 --slots 16 --output /nowhere/x", "`/nowhere/x`: no such file or directory"),
        ("--previous /nowhere/x", "`/nowhere/x`: no such file or directory"),
    ],
)
def test_wrong_arguments_are_one_line(shell: Shell, loads: Path, arguments: str, message: str) -> None:
    assert shell.refused("plan", "--loads", loads, *arguments.split()) == message


def test_what_a_policy_can_not_divide_is_one_line(shell: Shell, loads: Path) -> None:
    message = shell.refused("plan", "--loads", loads, "--ranks", 8, "--slots", 17, "--policy", "deepseek")
    assert message.startswith("num_slots=17 does not divide by num_ranks=8")
    assert "next multiple: 24" in message


def test_a_previous_placement_of_other_sizes_is_one_line(shell: Shell, loads: Path, tmp_path: Path) -> None:
    file = tmp_path / "placement.json"
    shell.text("plan", "--loads", loads, "--ranks", 4, "--slots", 12, "--output", file)
    arguments = ("plan", "--loads", loads, "--previous", file)
    assert shell.refused(*arguments, "--ranks", 3) == (
        "num_ranks=3 is not that of the previous placement, expected 4: ranks leave with --inactive, and are not "
        "renumbered"
    )
    assert shell.refused(*arguments, "--slots", 16) == "previous has num_slots=12, expected 16 as the plan has"
    assert "knows nothing of moves" in shell.refused(*arguments, "--max-moves", 3, "--policy", "deepseek")
    other = write(tmp_path / "other.json", [[1, 2, 3]])
    assert shell.refused("plan", "--loads", other, "--previous", file) == (
        "loads has num_experts=3, expected 8 as the placement has"
    )
    damaged = write(tmp_path / "damaged.json", file.read_text().replace('"num_experts": 8', '"num_experts": 9'))
    assert str(damaged) in shell.refused("plan", "--loads", loads, "--previous", damaged)


def test_bad_loads_are_one_line_that_names_the_place(shell: Shell, tmp_path: Path) -> None:
    file = write(tmp_path / "loads.json", [[[1, 2]], [[3, -4]]])
    assert shell.refused("plan", "--loads", file, "--ranks", 2, "--slots", 2) == (
        f"`{file}`: window 1, layer 0, expert 1 is `-4`, expected a finite number that is 0 or more"
    )
    assert "--loads" in shell.refused("plan", "--ranks", 2, "--slots", 2)


def test_a_missing_extra_is_one_line_that_names_it() -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name: None if name == 'torch' else find(name); "
        "from expert_placement.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    for arguments in (
        ("plan", "--loads", GPT_OSS, "--ranks", "4", "--slots", "32"),
        ("simulate", "--loads", GPT_OSS, "--ranks", "4", "--slots", "32"),
        ("migrate", "a", "b"),
        ("plot", "ranks", "--loads", GPT_OSS, "--ranks", "4", "--slots", "32", "--output", "never.png"),
    ):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        message = f"error: `{arguments[0]}` needs torch: pip install 'expert-placement[torch,cli]'\n"
        assert (result.returncode, result.stderr) == (2, message)


# --- output and ends --------------------------------------------------------------------------------------------------


def test_a_pipe_gets_plain_lines_of_any_length() -> None:
    arguments = ("plan", "--loads", GPT_OSS, "--ranks", 4, "--redundant", 8)
    results = [program(*arguments, **environment) for environment in ({}, {"COLUMNS": "40", "FORCE_COLOR": "1"})]
    assert {(result.returncode, result.stderr) for result in results} == {(0, "")}
    assert results[0].stdout == results[1].stdout
    assert "\x1b" not in results[0].stdout


def on_a_terminal(*arguments: str, interrupt: bool = False) -> tuple[int, bytes, str]:
    """Runs the program with a terminal for its errors: its exit code, its output, and what the terminal got."""
    controller, terminal = pty.openpty()
    variables = os.environ | {"TERM": "xterm", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal, env=variables
    ) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error.
            while piece := os.read(controller, 65536):
                if interrupt and b"planning" in piece:
                    process.send_signal(signal.SIGINT)
                    interrupt = False
                shown += piece
        os.close(controller)
        assert process.stdout is not None
        return process.wait(60), process.stdout.read(), shown.decode()


def test_a_terminal_sees_that_work_goes_on_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    loads = write(tmp_path / "windows.json", WINDOWS)
    sizes = ("--loads", str(loads), "--ranks", "4", "--slots", "12")
    for command, what in (("plan", "planning"), ("simulate", "simulating")):
        code, output, shown = on_a_terminal(command, *sizes)
        assert (code, b"\x1b" in output) == (0, False)
        assert what in shown
        # The cursor is back, and the line of the bar is erased.
        assert shown.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


def test_an_interrupt_gives_the_terminal_back(tmp_path: Path) -> None:
    file = tmp_path / "loads.npy"
    np.save(file, np.random.default_rng(0).lognormal(size=(300, 24, 512)))
    code, output, shown = on_a_terminal(
        "plan", "--loads", str(file), "--ranks", "64", "--redundant", "64", interrupt=True
    )
    assert (code, output) == (130, b"")
    assert shown.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


def test_policies_are_completed() -> None:
    for command, words, expected in (
        ("plan", "--policy d", ["deepseek"]),
        ("simulate", "--policy n", ["none"]),
        ("plot", "--policy b", ["balanced"]),
        ("plot", "l", ["layers"]),
    ):
        line = f"expert-placement {command} {words}"
        result = program(
            _EXPERT_PLACEMENT_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(line.split()) - 1)
        )
        assert result.stdout.split() == expected, line


def test_help_names_every_option() -> None:
    text = " ".join(program("plan", "--help").stdout.split())
    assert "\x1b" not in text
    words = "loads ranks slots redundant nodes groups slots-per-rank speeds inactive policy previous max-moves min-gain"
    for option in [*words.split(), "threads", "output", "layers", "json"]:
        assert f"--{option}" in text
    assert "[windows][layers][experts]" in text


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    arguments = [*PROGRAM, "plan", "--loads", str(GPT_OSS), "--ranks", "4", "--slots", "40"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_the_json_of_a_plan_is_a_file_that_json_reads(tmp_path: Path, shell: Shell) -> None:
    file = write(tmp_path / "loads.json", [[1e300, 1e-300, 0.1]])
    shown = json.loads(shell.text("plan", "--loads", file, "--ranks", 2, "--slots", 4, "--json"))
    assert shown["after"]["largest"] > 0
