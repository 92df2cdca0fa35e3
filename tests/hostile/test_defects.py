"""What hostile input once found, each by itself."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="tensors are among what was found")

from expert_placement import Partition, Placement, Topology, capacity_curve, formats  # noqa: E402 - torch may be missing
from expert_placement.torch import partition_counts  # noqa: E402

from tests.hostile import values  # noqa: E402
from tests.hostile.subjects import LOADS, TABLE, migration, placement, weights  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("sizes", [b"\x01\x02", bytearray(b"\x01\x02"), {1, 2}, {1: 2, 3: 4}])
def test_bytes_and_sets_are_no_sizes(sizes: Any) -> None:
    with pytest.raises(TypeError, match=r"^bytes_per_expert must be an int or a sequence of them, got `"):
        migration().traffic(sizes)


def test_a_generator_that_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^speeds has more than 2 entries, expected 2$"):
        Topology(2, speeds=itertools.repeat(1.0))
    with pytest.raises(ValueError, match=r"^active has more than 2 entries, expected 2$"):
        Topology(2, active=itertools.repeat(True))
    with pytest.raises(ValueError, match=r"^num_slots has more than 1048576 numbers of slots, expected fewer$"):
        capacity_curve(LOADS, itertools.repeat(8), Topology(2))


def test_bytes_are_no_numbers_of_slots_and_a_number_is_no_function() -> None:
    with pytest.raises(TypeError, match=r"^num_slots must be an iterable of ints, got `bytes`$"):
        capacity_curve(LOADS, b"\x08", Topology(2))
    with pytest.raises(TypeError, match=r"^looked must be a function, got `int`$"):
        capacity_curve(LOADS, [8], Topology(2), looked=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", [3, 0, True, None, ["p"], b"p", object()])
def test_what_is_no_path_is_refused_by_name(path: Any) -> None:
    kind = type(path).__name__
    calls: tuple[Any, ...] = (Placement.load, placement().save, formats.read, formats.read_loads, formats.format_of)
    for call in calls:
        with pytest.raises(TypeError, match=rf"^path must be a str or a path, got `{kind}`$"):
            call(path)


def test_a_path_that_no_file_can_have_is_shown_in_short() -> None:
    with pytest.raises(ValueError, match=r"^path=`x{40}\.\.\.` has 5000 characters, expected at most 4096$"):
        Placement.load("x" * 5000)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux has it")
def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    placement().save(file)
    code = (
        "import resource, sys, expert_placement.formats.native\n"
        "from pathlib import Path\n"
        "from expert_placement.formats.files import read_existing\n"
        "held = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (held + 2**26,) * 2)\n"
        "print(len(read_existing(sys.argv[1], 'p', 'a placement', 2**30)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"{file.stat().st_size}\n"), ran.stderr


def test_a_fake_tensor_has_no_values() -> None:
    with pytest.raises(TypeError, match=r"^weights must be a dense tensor whose values are known: its storage is on"):
        migration().apply(values.fake(weights()))
    with pytest.raises(TypeError, match=r"^loads must be a dense tensor whose values are known: its storage is on"):
        placement().rank_loads(values.fake(torch.tensor(LOADS)))


def test_what_detaches_and_is_no_tensor_is_refused_by_name() -> None:
    odd: tuple[Any, ...] = (values.Tensorlike(detach="text"), values.Tensorlike(dlpack=3))
    for given in odd:
        with pytest.raises(TypeError, match=r"^experts must be a dense tensor of int32 or int64: "):
            Partition(30, 8).owner_of(given)
        with pytest.raises(TypeError, match=r"^loads must be a dense tensor whose values are known: "):
            placement().rank_loads(given)


def test_what_has_a_shape_and_is_no_table_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"^physical_to_logical must be an array or a sequence, got `module`$"):
        Placement.from_physical_to_logical(np, 6, Topology(2))  # type: ignore[arg-type]
    assert Placement.from_physical_to_logical(TABLE, 6, Topology(2)) == placement()


def test_an_int_that_lies_when_it_is_compared_is_not_believed() -> None:
    with pytest.raises(ValueError, match=r"^num_experts=-1 is out of range"):
        partition_counts(values.Liar(-1), 8)
    assert torch.equal(partition_counts(values.Liar(30), 8), partition_counts(30, 8))
