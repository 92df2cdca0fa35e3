"""Input that is refused by name, each kind on purpose: tests/hostile feeds the same, but samples it in pytest."""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expert_placement import ExpertMap, Partition, Topology, formats, rebalance
from expert_placement._text import text_of
from expert_placement.formats.files import read_bytes
from expert_placement.formats.tables import integer_argument
from expert_placement.model_config import read_model_config

pytest.importorskip("torch", reason="tensors need torch")

import torch
from expert_placement.distributed import _weights


@pytest.mark.parametrize(
    ("loads", "kind", "said"),
    [
        (np.ma.array([[1.0, 2.0]], mask=[[True, False]]), TypeError, "loads must not be a masked array"),
        ([[None, 1.0]], TypeError, "loads must be numbers"),
        ([[10**400, 1]], ValueError, "loads hold an integer that no float64 holds, expected finite numbers"),
    ],
)
def test_loads_that_are_no_numbers_are_refused(loads: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=f"^{said}$"):
        rebalance(loads, 2, Topology(1))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("native", [], "the JSON is an array, expected an object"),
        ("native", {"topology": 3}, "`topology` is `3`, expected an object"),
        (
            "deepseek",
            {"phy2log": [[0, 1], [1, 0]], "log2phy": [[[0], [1]], [[1], [0], [1]]]},
            "`log2phy[1]` has 3 experts, expected 2",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(name: str, content: Any, said: str, tmp_path: Path) -> None:
    if isinstance(content, dict) and name == "native":
        placement = rebalance([[1.0, 2.0]], 2, Topology(1))
        formats.write(placement, tmp_path / "right.json", "native")
        content = json.loads((tmp_path / "right.json").read_text()) | content
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f": {re.escape(said)}$"):
        formats.read(path, name, topology=None if name == "native" else Topology(1))


@pytest.mark.skipif(sys.platform != "linux", reason="needs the files of Linux's kernel")
def test_files_of_the_kernel_are_read_to_their_end_or_refused_by_name(tmp_path: Path) -> None:
    for number, target in enumerate(("/proc/self/mem", "/proc/self/status")):
        (tmp_path / f"{number}.json").symlink_to(target)
    with pytest.raises(OSError, match=r"0\.json"):
        formats.read(tmp_path / "0.json", "native")
    with pytest.raises(ValueError, match=r"1\.json.*JSON"):
        formats.read(tmp_path / "1.json", "native")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "the path of the configuration is empty, expected a file or a directory"),
        ("\ud800", "surrogates not allowed"),
        ("x" * 2**16, "the path is longer than any that there is, expected a file or a directory"),
    ],
)
def test_paths_that_no_file_has_are_refused(source: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}$"):
        read_model_config(source)


@pytest.mark.parametrize(
    "config",
    [
        {"num_local_experts": 8, "block_configs": [3, None]},
        {"num_local_experts": 8, "num_hidden_layers": 9, "moe_layer_interval": 1, "moe_layer_start_index": [1, 2]}
        | {"moe_layer_end_index": [3, 4, 5]},
        {"num_local_experts": 8, "moe_layer_interval": 1},
    ],
)
def test_layers_that_are_not_told_are_unknown(config: dict[str, Any]) -> None:
    found = read_model_config(config)
    assert found.num_experts == 8
    assert found.num_moe_layers is None


def test_layers_are_counted_by_their_types_where_nothing_says_how_many_there_are() -> None:
    assert read_model_config({"num_local_experts": 8, "mlp_layer_types": ["sparse", "dense"]}).num_moe_layers == 1


def test_a_letter_that_no_terminal_shows_is_escaped_whole() -> None:
    with pytest.raises(ValueError, match=r"^strategy=`\\U000e0001` is unknown"):
        Partition(1, 1, "\U000e0001")  # type: ignore[arg-type]


def test_ids_out_of_range_or_out_of_order_are_refused() -> None:
    with pytest.raises(IndexError, match=r"^rank=2 is out of range, expected 0\.\.2$"):
        Topology(2).node_of(2)
    with pytest.raises(
        ValueError, match=r"^local_experts\[1\]=1 is out of range, expected ascending ids and here 4\.\.5$"
    ):
        ExpertMap.from_local_experts([3, 1], 5)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the files of Linux's kernel")
def test_a_file_that_says_nothing_of_its_size_is_read_no_further_than_allowed() -> None:
    with pytest.raises(ValueError, match=r"^status: the file is larger than 10 bytes, expected a list$"):
        read_bytes(Path("/proc/self/status"), "status", "a list", 10)


class Wordless:
    """A value that has no words, and no number."""

    def __str__(self) -> str:
        raise OverflowError

    def __index__(self) -> int:
        raise RuntimeError("no number")


def test_what_has_no_words_is_called_by_its_type() -> None:
    assert text_of(3) == "3"
    assert text_of("three") == "three"
    assert text_of(Wordless()) == "a value of the type Wordless"


def test_quantized_weights_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = torch.quantize_per_tensor(torch.ones(1, 2, 3), 1.0, 0, torch.qint8)
        with pytest.raises(TypeError, match=r"^w must not be quantized, expected the integers and the scales"):
            _weights._expect_bytes("w", weights)


def test_an_error_of_a_value_s_own_is_its_own_matter() -> None:
    with pytest.raises(RuntimeError, match=r"^no number$"):
        integer_argument("layer", Wordless())
