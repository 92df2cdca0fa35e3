"""`expert-placement migrate`: what is sent, how many bytes and how long, from one placement file to another."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch", reason="placements need torch")

from expert_placement import Placement, Topology, formats, plan_migration, rebalance
from expert_placement.cli.transfers import sent

from tests.cli.running import program, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.running import Shell

RANDOM = np.random.default_rng(3)


def placement(*rows: list[int], num_experts: int, topology: Topology) -> Placement:
    return Placement.from_physical_to_logical(list(rows), num_experts=num_experts, topology=topology)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A pair of placements on two nodes of two ranks: one copy inside a rank, three transfers, one between nodes."""
    topology = Topology(4, 2)
    old = placement([0, 1, 2, 3, 4, 5, 0, 1], num_experts=6, topology=topology)
    new = placement([0, 0, 2, 1, 4, 5, 5, 3], num_experts=6, topology=topology)
    paths = (tmp_path / "old.json", tmp_path / "new.json")
    for path, made in zip(paths, (old, new), strict=True):
        made.save(path)
    return paths


def test_the_tables_say_what_is_sent(shell: Shell, files: tuple[Path, Path]) -> None:
    old, new = files
    assert shell.lines("migrate", old, new, "--bytes-per-expert", "40MB", "--bandwidth", 50) == [
        f"migration from `{old}` to `{new}`",
        "Safe to interrupt: after every batch each expert is whole in at least one slot.",
        "",
        "                                       count   size or time",
        "moves, slots that get another expert       4",
        "copies inside a rank                       1",
        "transfers between ranks                    3         120 MB",
        "  of these between nodes                   1",
        "staged on a rank at most                   1",
        "batches                                    2",
        "time at 50 GB/s, copies not counted                  1.6 ms",
        "",
        "what each rank sends and receives, in experts and bytes",
        "rank   sends   receives   sends   receives",
        "   0       1          0   40 MB        0 B",
        "   1       1          1   40 MB      40 MB",
        "   2       1          0   40 MB        0 B",
        "   3       0          2     0 B      80 MB",
        "most       1          2   40 MB      80 MB",
    ]


def test_json_is_what_the_library_says(shell: Shell, files: tuple[Path, Path]) -> None:
    shown = shell.fields("migrate", *files, "--bytes-per-expert", 1000, "--bandwidth", 0.5)
    plan = plan_migration(*map(Placement.load, files))
    assert shown == {
        "num_moves": plan.num_moves,
        "num_transfers": plan.num_transfers,
        "num_transfers_between_nodes": 1,
        "num_copies": plan.num_moves - plan.num_transfers,
        "num_batches": plan.num_batches,
        "num_staged": plan.num_staged,
        "is_interruption_safe": True,
        "sent_experts": [1, 1, 1, 0],
        "received_experts": [0, 1, 0, 2],
        "bytes_per_expert": [1000],
        "num_bytes": 3000,
        "sent_bytes": [1000, 1000, 1000, 0],
        "received_bytes": [0, 1000, 0, 2000],
        "bandwidth_gb_per_s": 0.5,
        "seconds": 2 * 1000 / 0.5e9,
        "moves": plan.moves.tolist(),
        "batches": plan.batches.tolist(),
        "write_batches": plan.write_batches.tolist(),
    }
    without = shell.fields("migrate", *files)
    assert not [key for key in without if "byte" in key or key == "seconds"]


def test_what_is_sent_adds_up_over_ranks_and_batches() -> None:
    for _ in range(20):
        num_ranks = int(RANDOM.integers(1, 6))
        loads = RANDOM.integers(1, 100, (2, 3, 10))
        old, new = (rebalance(load, 6 * num_ranks + 10, Topology(num_ranks)) for load in loads)
        migration = plan_migration(old, new)
        # A second replica on a rank is a move that nothing is sent for.
        assert migration.num_transfers <= sum(new.moves_from(old))
        sizes = [7, 11, 13]
        found = sent(migration, sizes)
        senders, receivers = migration.senders.tolist(), migration.receivers.tolist()
        moved = [
            (sizes[layer], batch, sender, receiver)
            for batch, (first, last) in enumerate(pairwise(migration.batches.tolist()))
            for (layer, *_), sender, receiver in zip(
                migration.moves[first:last].tolist(), senders[first:last], receivers[first:last], strict=True
            )
            if sender != receiver
        ]
        assert found.total == sum(size for size, *_ in moved)
        assert found.sent.tolist() == [sum(m[0] for m in moved if m[2] == rank) for rank in range(num_ranks)]
        assert found.received.tolist() == [sum(m[0] for m in moved if m[3] == rank) for rank in range(num_ranks)]
        # In a batch no rank sends twice or receives twice.
        largest = [max((m[0] for m in moved if m[1] == batch), default=0) for batch in range(migration.num_batches)]
        assert found.by_batch.tolist() == largest
        assert found.seconds(14) == sum(largest) / 14
        assert sent(migration).total == migration.num_transfers


def test_layers_may_have_sizes_of_their_own(shell: Shell, tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    placement([0, 1], [0, 1], num_experts=2, topology=Topology(2)).save(old)
    placement([1, 0], [1, 0], num_experts=2, topology=Topology(2)).save(new)
    shown = shell.fields("migrate", old, new, "--bytes-per-expert", "1kB,3kB", "--bandwidth", 1)
    assert (shown["num_bytes"], shown["num_batches"], shown["seconds"]) == (8000, 2, pytest.approx(4e-6))
    assert "2" in shell.refused("migrate", old, new, "--bytes-per-expert", "1,2,3")


def test_batches_are_kept_within_limits(shell: Shell, tmp_path: Path) -> None:
    topology = Topology(4, 2)
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    placement(*[[0, 1, 2, 3]] * 3, num_experts=4, topology=topology).save(old)
    placement(*[[2, 3, 0, 1]] * 3, num_experts=4, topology=topology).save(new)
    for limits in ({}, {"max_node_transfers": 1}, {"max_staged": 1}):
        plan = plan_migration(Placement.load(old), Placement.load(new), **limits)
        options = [word for name, limit in limits.items() for word in (f"--{name.replace('_', '-')}", limit)]
        shown = shell.fields("migrate", old, new, *options)
        assert (shown["num_batches"], shown["num_staged"]) == (plan.num_batches, plan.num_staged)
        assert shown["moves"] == plan.moves.tolist()
    assert "max_staged=0" in shell.refused("migrate", old, new, "--max-staged", 0)
    assert "max_node_transfers=0" in shell.refused("migrate", old, new, "--max-node-transfers", 0)


def test_moves_are_experts_that_are_new_to_a_rank() -> None:
    topology = Topology(2)
    old = placement([0, 1, 2, 0], [0, 0, 1, 2], num_experts=3, topology=topology)
    assert old.moves_from(old) == [0, 0]
    # Another order on a rank is no move, and a second replica there is one.
    assert placement([1, 0, 0, 2], [0, 0, 1, 2], num_experts=3, topology=topology).moves_from(old) == [0, 0]
    assert placement([0, 1, 2, 2], [0, 1, 0, 2], num_experts=3, topology=topology).moves_from(old) == [1, 2]


def test_nothing_to_do_is_said(shell: Shell, files: tuple[Path, Path]) -> None:
    assert shell.lines("migrate", files[0], files[0])[1:] == ["Nothing moves: every slot holds what it shall hold."]
    shown = shell.fields("migrate", files[0], files[0], "--bytes-per-expert", 5, "--bandwidth", 1)
    assert (shown["num_batches"], shown["moves"], shown["seconds"]) == (0, [], 0)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("44040192", 44040192),
        ("44MB", 44 * 10**6),
        ("42MiB", 42 * 2**20),
        ("1.5 GB", 15 * 10**8),
        ("2k", 2000),
    ],
)
def test_sizes_have_units(shell: Shell, files: tuple[Path, Path], text: str, size: int) -> None:
    assert shell.fields("migrate", *files, "--bytes-per-expert", text)["bytes_per_expert"] == [size]


@pytest.mark.parametrize(
    "text", ["0", "-1", "x", "1XB", "1e3", "0.1", "1.5", "9" * 30, "9007199254740993", "", "nan", "1 1"]
)
def test_other_sizes_are_refused(shell: Shell, files: tuple[Path, Path], text: str) -> None:
    message = shell.refused("migrate", *files, f"--bytes-per-expert={text}")
    assert message.startswith(
        f"bytes_per_expert=`{text}` is out of range, expected a whole number of 1 to 9007199254740992 bytes"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--bandwidth 3", "--bandwidth gives a time for --bytes-per-expert, which is not given"),
        (
            "--bytes-per-expert 1 --bandwidth 0",
            "bandwidth=0 is out of range, expected a finite number of GB/s above 0",
        ),
        (
            "--bytes-per-expert 1 --bandwidth inf",
            "bandwidth=inf is out of range, expected a finite number of GB/s above 0",
        ),
    ],
)
def test_wrong_arguments_are_one_line(shell: Shell, files: tuple[Path, Path], more: str, message: str) -> None:
    assert shell.refused("migrate", *files, *more.split()) == message


def test_files_of_engines_are_read_where_the_ranks_are_told(
    shell: Shell, files: tuple[Path, Path], tmp_path: Path
) -> None:
    engines = tmp_path / "old.sglang.json", tmp_path / "new.deepseek.json"
    formats.write(Placement.load(files[0]), engines[0], "sglang")
    formats.write(Placement.load(files[1]), engines[1], "deepseek")
    told = ("--ranks", 4, "--nodes", 2, "--experts", 6)
    assert shell.fields("migrate", *engines, *told) == shell.fields("migrate", *files)
    # One node is what a file of an engine has without other word.
    assert shell.fields("migrate", *engines, "--ranks", 4)["num_transfers_between_nodes"] == 0
    assert shell.refused("migrate", *engines) == (
        f"`{engines[0]}`: a file of `sglang` does not say how many ranks there are, expected --ranks"
    )
    assert shell.refused("migrate", *files, "--nodes", 2) == (
        "--nodes says where the ranks of --ranks are, which is not given"
    )
    assert shell.refused("migrate", *files, "--ranks", 2) == (
        f"`{files[0]}`: num_ranks is 4, expected 2 as the option says"
    )
    assert shell.refused("migrate", *files, "--experts", 7) == (
        f"`{files[0]}`: num_experts is 6, expected 7 as the option says"
    )


def test_wrong_files_are_one_line(shell: Shell, files: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = files
    assert shell.refused("migrate", old, tmp_path / "none").startswith(f"`{tmp_path}/none`: no such file")
    assert "NEW" in shell.refused("migrate", old)
    broken = write(tmp_path / "broken.json", "[1")
    assert shell.refused("migrate", broken, new).startswith(f"`{broken}`: line 1, column 3")
    other = tmp_path / "other.json"
    placement([0, 1, 2, 3, 4, 5, 0, 1], num_experts=6, topology=Topology(2)).save(other)
    assert "rank" in shell.refused("migrate", old, other)


def test_an_expert_that_no_rank_in_service_holds_is_one_line(
    shell: Shell, files: tuple[Path, Path], tmp_path: Path
) -> None:
    lost = tmp_path / "lost.json"
    topology = Topology(4, 2, active=[True, True, False, True])
    placement([0, 1, 2, 3, -1, -1, 4, 5], num_experts=6, topology=topology).save(lost)
    assert shell.refused("migrate", files[0], lost) == (
        "slot 6 of layer 0 is to hold expert 4, which no rank in service in the new placement holds in the old one"
    )


def test_many_ranks_say_what_they_leave_out(shell: Shell, tmp_path: Path) -> None:
    topology = Topology(100)
    for name, row in (("old", list(range(100))), ("new", list(range(99, -1, -1)))):
        placement(row, num_experts=100, topology=topology).save(tmp_path / f"{name}.json")
    lines = shell.lines("migrate", tmp_path / "old.json", tmp_path / "new.json")
    assert len(lines) == lines.index("what each rank sends and receives, in experts") + 2 + 49 + 1
    assert "52 more ranks, all of them with --json" in lines[-26]


def test_a_pipe_gets_plain_lines(files: tuple[Path, Path]) -> None:
    result = program("migrate", *files, COLUMNS="30", FORCE_COLOR="1")
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert "Safe to interrupt: after every batch each expert is whole in at least one slot." in result.stdout
