"""Placements in the engines' files: round trips, files as the engines write them, and a refusal of everything else."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expert_placement import Placement, Topology, formats
from expert_placement.formats import deepseek, native, sglang, tensorrt_llm, vllm_ascend
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="tables are tensors")
pytest.importorskip("yaml", reason="TensorRT-LLM's files are YAML")

FOREIGN = ("sglang", "deepseek", "vllm_ascend", "tensorrt_llm")
NAMES = {
    "native": ("p.json",),
    "sglang": ("p.json", "p.pt"),
    "deepseek": ("p.json", "p.pt", "p.npy"),
    "vllm_ascend": ("p.json",),
    "tensorrt_llm": ("p.yaml", "p.yml"),
}


@st.composite
def placements(draw: st.DrawFn, distinct: bool = False) -> Placement:
    """Up to 3 layers, 4 ranks of 1 to 4 equal slots and every expert; on a rank each at most once where `distinct`."""
    num_ranks, per_rank = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    num_slots = num_ranks * per_rank
    num_experts = draw(st.integers(per_rank if distinct else 1, num_slots))
    table = []
    for _ in range(draw(st.integers(1, 3))):
        if distinct:
            # Consecutive slots of a rank hold consecutive experts, under other names.
            names = draw(st.permutations(range(num_experts)))
            table.append([names[slot % num_experts] for slot in range(num_slots)])
        else:
            spare = st.lists(st.integers(0, num_experts - 1), min_size=num_slots, max_size=num_slots)
            table.append(draw(st.permutations([*range(num_experts), *draw(spare)][:num_slots])))
    topology = Topology(num_ranks, draw(st.integers(1, num_ranks)))
    return Placement.from_physical_to_logical(table, num_experts, topology)


def written(placement: Placement, path: Path, *arguments: Any, **options: Any) -> Path:
    formats.write(placement, path, *arguments, **options)
    return path


def make(table: Any = ((0, 1, 2, 0), (2, 1, 0, 0)), num_experts: int = 3, *arguments: Any, **options: Any) -> Placement:
    topology = Topology(*(arguments or (2,)), **options)
    return Placement.from_physical_to_logical(table, num_experts, topology)


def refused(call: Any, path: Path | None = None) -> str:
    """What is said, after the file's name."""
    with pytest.raises(ValueError, match=re.escape(f"`{path}`: ") if path else ".") as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    return message.removeprefix(f"`{path}`: ")


def put(path: Path, content: Any) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".pt":
        torch.save(content, path)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- round trips ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(placements(distinct=True))
def test_every_format_gives_the_placement_back(p: Placement) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in formats.FORMATS:
            for file in NAMES[name]:
                path = written(p, Path(folder) / file, name)
                assert [entry.name for entry in Path(folder).iterdir()] == [file]
                assert formats.recognise(path) == name
                for again in (
                    formats.read(path, topology=p.topology),
                    formats.read(path, name, p.num_experts, p.topology),
                ):
                    assert again == p
                    assert again.digest() == p.digest()
                    assert again.topology.num_nodes == p.topology.num_nodes
                first = path.read_bytes()
                assert written(again, path, name).read_bytes() == first or file.endswith(".pt")
                path.unlink()


@settings(max_examples=40, deadline=None)
@given(placements(), st.lists(st.integers(0, 3), min_size=3, max_size=3), st.integers(0, 2))
def test_layers_of_the_model_are_kept_where_the_format_has_them(p: Placement, steps: list[int], after: int) -> None:
    ids = tuple(np.cumsum([step + 1 for step in steps[: p.num_layers]]).tolist())
    with tempfile.TemporaryDirectory() as folder:
        for name in ("p.json", "p.pt"):
            path = Path(folder) / name
            formats.write(p, path, "sglang", layer_ids=ids, num_hidden_layers=ids[-1] + 1 + after)
            layers = formats.read_layers(path, topology=p.topology, layer_ids=ids)
            assert (layers.placement.digest(), layers.layer_ids) == (p.digest(), ids)
            # Without them every row is a layer, and those that were dense hold what SGLang starts with.
            whole = formats.read(path, topology=p.topology).physical_to_logical().tolist()
            assert len(whole) == ids[-1] + 1 + after
            trivial = [slot % p.num_experts for slot in range(p.num_slots)]
            assert all(row == trivial for layer, row in enumerate(whole) if layer not in ids)
        path = Path(folder) / "p.yaml"
        formats.write(p, path, layer_ids=ids)
        layers = formats.read_layers(path, topology=p.topology)
        assert (layers.placement.digest(), layers.layer_ids) == (p.digest(), ids)
        assert formats.read(path, topology=p.topology, layer_ids=ids[-1:]).num_layers == 1


@settings(deadline=None)
@given(placements())
def test_a_conversion_through_every_format_loses_nothing(p: Placement) -> None:
    with tempfile.TemporaryDirectory() as folder:
        current = p
        for name in ("sglang", "deepseek", "tensorrt_llm", "native"):
            for file in NAMES[name]:
                current = formats.read(written(current, Path(folder) / file, name), name, p.num_experts, p.topology)
        assert current.digest() == p.digest()


def test_unequal_ranks_that_no_engine_has_are_kept_in_our_own_file(tmp_path: Path) -> None:
    p = make([[0, -1, 1, 2]], 3, 3, 3, [0, 3, 1], [1, 2, 3], [False, True, True])
    path = written(p, tmp_path / "p.json", "native")
    assert formats.read(path) == p
    assert formats.read(path).topology == p.topology
    assert Placement.load(path) == formats.read(path, num_experts=3, topology=Topology(3, 3))


# --- files as the engines write them ----------------------------------------------------------------------------------

# For `--init-expert-location` of sglang 0.5.23 (`srt/eplb/expert_location.py`): one key, a row for each hidden layer.
SGLANG = '{"physical_to_logical_map": [[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 2]]}'

# As `export_tensor_to_file` of vllm-ascend writes it (`vllm_ascend/core` and `eplb/adaptor`), by `json.dump(indent=4)`.
ASCEND = json.dumps(
    {
        "moe_layer_count": 2,
        "layer_list": [
            {
                "layer_id": 0,
                "device_count": 2,
                "device_list": [
                    {"device_id": 0, "device_expert": [0, 1, 2]},
                    {"device_id": 1, "device_expert": [3, 0, 1]},
                ],
            },
            {
                "layer_id": 1,
                "device_count": 2,
                "device_list": [
                    {"device_id": 0, "device_expert": [3, 2, 1]},
                    {"device_id": 1, "device_expert": [0, 3, 2]},
                ],
            },
        ],
    },
    indent=4,
)

# As `examples/wide_ep/ep_load_balancer/generate_eplb_config.py` of TensorRT-LLM writes it: `yaml.dump` with sorted keys
# and lists in one line. Keys are the layers of DeepSeek-R1 with experts, from 3.
TENSORRT = """\
initial_global_assignments:
  3: [0, 1, 2, 3, 0, 1]
  4: [3, 2, 1, 0, 3, 2]
layer_updates_per_iter: 0
num_slots: 6
"""

TABLE = [[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 2]]


def test_files_as_the_engines_write_them_are_read(tmp_path: Path) -> None:
    expected = make(TABLE, 4)
    for name, file, content in (
        ("sglang", "a.json", SGLANG),
        ("sglang", "b.pt", {"physical_to_logical_map": torch.tensor(TABLE, dtype=torch.int32)}),
        ("sglang", "c.pt", {"physical_to_logical_map": TABLE}),
        ("vllm_ascend", "d.json", ASCEND),
        ("tensorrt_llm", "e.yaml", TENSORRT),
        ("tensorrt_llm", "f", TENSORRT),
    ):
        path = put(tmp_path / file, content)
        assert formats.recognise(path) == name
        assert formats.read(path, topology=Topology(2)) == expected, name
    assert formats.read_layers(tmp_path / "e.yaml", topology=Topology(2)).layer_ids == (3, 4)
    assert formats.read_layers(tmp_path / "a.json", topology=Topology(2)).layer_ids == (0, 1)
    assert formats.read_layers(tmp_path / "d.json").layer_ids is None
    assert formats.read(tmp_path / "d.json") == expected


def test_files_are_written_as_the_engines_write_them(tmp_path: Path) -> None:
    import yaml

    p = make(TABLE, 4)
    assert json.loads(written(p, tmp_path / "a.json", "sglang").read_text()) == json.loads(SGLANG)
    saved = torch.load(written(p, tmp_path / "b.pt", "sglang"), weights_only=True)
    assert list(saved) == ["physical_to_logical_map"]
    assert saved["physical_to_logical_map"].dtype == torch.int64
    assert saved["physical_to_logical_map"].tolist() == TABLE
    assert json.loads(written(p, tmp_path / "d.json", "vllm_ascend").read_text()) == json.loads(ASCEND)
    assert written(p, tmp_path / "e.yaml", layer_ids=[3, 4]).read_text() == TENSORRT
    assert list(yaml.safe_load(TENSORRT)["initial_global_assignments"]) == [3, 4]
    tensorrt_llm.write(p, tmp_path / "f.yaml", layer_updates_per_iter=2)
    assert yaml.safe_load((tmp_path / "f.yaml").read_text())["layer_updates_per_iter"] == 2


def test_dialects_of_the_expert_map_are_read(tmp_path: Path) -> None:
    # Fixtures of vllm-ascend leave ids and counts out, and verl's recipe adds a version: the engine ignores both.
    content = json.loads(ASCEND) | {"strategy_version": 1}
    for layer in content["layer_list"]:
        del layer["layer_id"], layer["device_count"]
        layer["pool_mode"] = "x"
        for device in layer["device_list"]:
            del device["device_id"]
    assert vllm_ascend.read(put(tmp_path / "p.json", content), 4) == make(TABLE, 4)


def test_yaml_with_anchors_and_string_keys_is_read(tmp_path: Path) -> None:
    # `yaml.dump` writes a list that stands twice once, and a writer of JSON has strings for keys.
    text = "initial_global_assignments:\n  4: *rows\n  3: &rows [0, 1]\nnum_slots: 2\n"
    path = put(
        tmp_path / "p.yaml", text.replace("4: *rows", "1: &rows [1, 0]", 1).replace("3: &rows [0, 1]", "3: *rows")
    )
    layers = formats.read_layers(path, topology=Topology(1))
    assert (layers.layer_ids, layers.placement.physical_to_logical().tolist()) == ((1, 3), [[1, 0], [1, 0]])
    path = put(tmp_path / "q.json", {"num_slots": 2, "initial_global_assignments": {"10": [1, 0], "9": [0, 1]}})
    layers = formats.read_layers(path, topology=Topology(1))
    assert (layers.layer_ids, layers.placement.physical_to_logical().tolist()) == ((9, 10), [[0, 1], [1, 0]])


# What `rebalance_experts` of deepseek-ai/EPLB gives for the example of its README: two layers of 12 experts, 16 slots,
# 4 groups, 2 nodes and 8 GPUs. `log2phy` has the replicas in the order of their making: expert 1 of layer 0 has 15, 13.
WEIGHT = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
PHY2LOG = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]


def triple() -> tuple[Any, Any, Any]:
    phy2log = torch.tensor(PHY2LOG)
    log2phy = torch.full((2, 12, 2), -1)
    for layer, row in enumerate(PHY2LOG):
        for expert in range(12):
            slots = [slot for slot, there in enumerate(row) if there == expert][::-1]
            log2phy[layer, expert, : len(slots)] = torch.tensor(slots)
    logcnt = (log2phy >= 0).sum(-1)
    assert log2phy[0, 1].tolist() == [15, 13]
    return phy2log, log2phy, logcnt


def test_what_people_save_of_the_tables_of_eplb_is_read(tmp_path: Path) -> None:
    from expert_placement import rebalance

    expected = make(PHY2LOG, 12, 8, 2)
    assert rebalance(WEIGHT, 16, Topology(8, 2), "deepseek", 4) == expected
    phy2log, log2phy, logcnt = triple()
    named = {"phy2log": phy2log, "log2phy": log2phy, "logcnt": logcnt}
    padded = named | {"log2phy": torch.nn.functional.pad(log2phy, (0, 14), value=-1)}
    for file, content in (
        ("triple.pt", (phy2log, log2phy, logcnt)),
        ("list.pt", [phy2log, log2phy, logcnt]),
        ("dict.pt", named),
        ("padded.pt", padded),
        ("alone.pt", phy2log),
        ("int32.pt", phy2log.int()),
        ("alone.npy", phy2log.numpy()),
        ("alone.json", {"phy2log": PHY2LOG}),
        ("three.json", {key: table.tolist() for key, table in named.items()}),
    ):
        path = put(tmp_path / file, content)
        assert formats.recognise(path) == "deepseek"
        assert formats.read(path, topology=Topology(8, 2)) == expected, file
    saved = torch.load(written(expected, tmp_path / "w.pt", "deepseek"), weights_only=True)
    assert {key: (table.dtype, tuple(table.shape)) for key, table in saved.items()} == {
        "phy2log": (torch.int64, (2, 16)),
        "log2phy": (torch.int64, (2, 12, 2)),
        "logcnt": (torch.int64, (2, 12)),
    }
    assert saved["log2phy"][0, 1].tolist() == [13, 15]
    assert torch.equal(saved["logcnt"], logcnt)


# --- what is no such file ---------------------------------------------------------------------------------------------

R2 = Topology(2)
READERS: dict[str, Any] = {
    "sglang": sglang.read,
    "deepseek": deepseek.read,
    "vllm_ascend": vllm_ascend.read,
    "tensorrt_llm": tensorrt_llm.read,
}


def ascend(change: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(ASCEND)
    change(content)
    return content


def layer_1(content: dict[str, Any]) -> dict[str, Any]:
    layer: dict[str, Any] = content["layer_list"][1]
    return layer


SG = "physical_to_logical_map"
IGA = "initial_global_assignments"
BAD: list[tuple[str, Any, str]] = [
    ("sglang", "{", "line 1, column 2: broken JSON: expecting property name enclosed in double quotes"),
    ("sglang", [[0, 1]], f"the content is an array, expected an object with the one key `{SG}`"),
    ("sglang", {"logical_count": [[1]]}, f"`{SG}` is missing"),
    ("sglang", {SG: [[0, 1]], "version": 1}, "`version` is unknown, SGLang reads an object with the one key"),
    ("sglang", {SG: 3}, f"`{SG}` is `3`, expected an array with a row for each layer"),
    ("sglang", {SG: []}, f"`{SG}` is an empty array, expected an array with a row for each layer"),
    ("sglang", {SG: [[], []]}, "there are no slots, expected at least one"),
    ("sglang", {SG: [0, 1]}, f"`{SG}[0]` is `0`, expected an array with an integer for each slot"),
    ("sglang", {SG: [[0, 1], [0]]}, f"`{SG}[1]` has 1 slots, expected 2 as the first"),
    ("sglang", {SG: [[0, 1], [0, True]]}, f"`{SG}[1][1]` is `true`, expected an integer"),
    ("sglang", {SG: [[0, 1.0]]}, f"`{SG}[0][1]` is `1.0`, expected an integer"),
    ("sglang", {SG: [[0, "1"]]}, f'`{SG}[0][1]` is the string `"1"`, expected an integer'),
    ("sglang", {SG: [[0, None]]}, f"`{SG}[0][1]` is `null`, expected an integer"),
    ("sglang", {SG: [[[0, 1]]]}, f"`{SG}[0][0]` is an array, expected an integer"),
    ("sglang", {SG: [[0, -1]]}, f"`{SG}[0][1]` is `-1`, expected an expert in 0..1; layer ids leave the rows of"),
    ("sglang", {SG: [[0, 1], [0, 10**30]]}, f"`{SG}[0]` leaves expert 2 out"),
    ("sglang", {SG: [[0, 1], [0, 0]]}, f"`{SG}[1]` leaves expert 1 out, of 2 in 2 slots; layer ids leave the rows of"),
    ("sglang", {SG: [[0, 1, 2]]}, "3 slots do not divide by num_ranks=2, and SGLang's file gives every rank equally"),
    ("deepseek", {"phy2log": [[0, 1]], "plan": []}, "`plan` is unknown, expected one of phy2log, log2phy, logcnt"),
    ("deepseek", {"logcnt": [[1]]}, "`phy2log` is missing"),
    ("deepseek", "7", "the content is `7`, expected `phy2log`, alone or with"),
    ("deepseek", {"phy2log": [[0, 1]], "logcnt": [[1, 2]]}, "`logcnt[0][1]` is `2`, but `phy2log` has the expert in 1"),
    ("deepseek", {"phy2log": [[0, 1]], "logcnt": [[1, 1, 0]]}, "`phy2log[0]` leaves expert 2 out"),
    ("deepseek", {"phy2log": [[0, 1]], "logcnt": [[1, 1]] * 2}, "`logcnt` has 2 layers, but `phy2log` has 1"),
    (
        "deepseek",
        {"phy2log": [[0, 1]], "log2phy": [[[1], [0]]]},
        "`log2phy[0][0]` contradicts `phy2log`, which has the",
    ),
    ("deepseek", {"phy2log": [[0, 1]], "log2phy": [[[0, 0], [1, -1]]]}, "`log2phy[0][0]` contradicts `phy2log`"),
    ("deepseek", {"phy2log": [[0, 0]], "log2phy": [[[0]]]}, "`log2phy[0][0]` contradicts `phy2log`"),
    ("deepseek", {"phy2log": [[0, 1]], "log2phy": [[0, 1]]}, "`log2phy[0][0]` is `0`, expected an array"),
    (
        "deepseek",
        {"phy2log": [[0, 1]], "log2phy": [[]]},
        "`log2phy[0]` is an empty array, expected an array with a row",
    ),
    ("deepseek", {"phy2log": [[0, 1]], "log2phy": []}, "`log2phy` is an array, expected [layers][experts][replicas]"),
    ("deepseek", {"phy2log": [[0, 1]], "log2phy": None}, "`log2phy` is `null`"),
    ("vllm_ascend", "[]", "the JSON is an array, expected an object with `moe_layer_count` and `layer_list`"),
    ("vllm_ascend", {"moe_layer_count": 1}, "`layer_list` is missing"),
    ("vllm_ascend", {"layer_list": [{"device_list": [{"device_expert": [0]}]}]}, "`moe_layer_count` is missing"),
    ("vllm_ascend", ascend(lambda c: c.update(layer_list=[])), "`layer_list` is an empty array"),
    ("vllm_ascend", ascend(lambda c: c.update(layer_list=[1])), "`layer_list[0]` is `1`, expected an object"),
    ("vllm_ascend", ascend(lambda c: c.update(moe_layer_count=3)), "`moe_layer_count` is `3`, but `layer_list` has 2"),
    ("vllm_ascend", ascend(lambda c: c.update(moe_layer_count=2.0)), "`moe_layer_count` is `2.0`, expected an integer"),
    (
        "vllm_ascend",
        ascend(lambda c: layer_1(c).update(layer_id=5)),
        "`layer_list[1].layer_id` is `5`, expected 1, its position, which vllm-ascend goes by",
    ),
    (
        "vllm_ascend",
        ascend(lambda c: layer_1(c).update(device_count=3)),
        "`layer_list[1].device_count` is `3`, expected 2, the length of its `device_list`",
    ),
    (
        "vllm_ascend",
        ascend(lambda c: layer_1(c)["device_list"].reverse()),
        "`layer_list[1].device_list[0].device_id` is `1`, expected 0, its position",
    ),
    (
        "vllm_ascend",
        ascend(lambda c: (layer_1(c)["device_list"].pop(), layer_1(c).update(device_count=1))),
        "`layer_list[1].device_list` has 1 devices, expected 2 as layer 0 has",
    ),
    (
        "vllm_ascend",
        ascend(lambda c: layer_1(c)["device_list"][1]["device_expert"].pop()),
        "`layer_list[1].device_list[1].device_expert` has 2 slots, expected 3 as the first has: vllm-ascend",
    ),
    (
        "vllm_ascend",
        ascend(lambda c: layer_1(c)["device_list"][1].pop("device_expert")),
        "`layer_list[1].device_list[1].device_expert` is missing",
    ),
    (
        "vllm_ascend",
        ascend(lambda c: layer_1(c)["device_list"][1].update(device_expert=[0, 3, "2"])),
        '`layer_list[1].device_list[1].device_expert[2]` is the string `"2"`, expected an integer',
    ),
    (
        "vllm_ascend",
        ascend(lambda c: layer_1(c)["device_list"][1].update(device_expert=[0, 3, 0])),
        "`layer_list[1].device_list[1].device_expert[2]` is expert 0 a second time, and vllm-ascend uses one slot",
    ),
    (
        "vllm_ascend",
        ascend(lambda c: layer_1(c)["device_list"][1].update(device_expert=[-1, 3, 0])),
        "`layer_list[1].device_list[1].device_expert[0]` is `-1`, expected an expert in 0..4",
    ),
    ("tensorrt_llm", "- 1", "the YAML is an array, expected a mapping with `num_slots` and"),
    ("tensorrt_llm", "", "the YAML is `null`, expected a mapping with `num_slots` and"),
    ("tensorrt_llm", TENSORRT + "ep_size: 2\n", "`ep_size` is unknown, expected one of num_slots, "),
    ("tensorrt_llm", "num_slots: 6\n", f"`{IGA}` is missing: the file leaves the placement to TensorRT-LLM"),
    ("tensorrt_llm", f"{IGA}: {{0: [0]}}\n", "`num_slots` is missing"),
    ("tensorrt_llm", f"num_slots: x\n{IGA}: {{0: [0]}}\n", '`num_slots` is the string `"x"`, expected an integer'),
    ("tensorrt_llm", f"num_slots: 1\n{IGA}: [[0]]\n", f"`{IGA}` is an array, expected a mapping from layers"),
    ("tensorrt_llm", f"num_slots: 1\n{IGA}: {{}}\n", f"`{IGA}` is empty, expected a mapping from layers"),
    ("tensorrt_llm", f"num_slots: 1\n{IGA}: {{x: [0]}}\n", f'`{IGA}` has the key `"x"`, expected a layer of the model'),
    ("tensorrt_llm", f"num_slots: 1\n{IGA}: {{-1: [0]}}\n", f"`{IGA}` has the key `-1`, expected a layer of the model"),
    ("tensorrt_llm", f"num_slots: 1\n{IGA}: {{yes: [0]}}\n", f"`{IGA}` has the key `true`, expected a layer of the"),
    ("tensorrt_llm", f"num_slots: 1\n{IGA}: {{1: [0], '1': [0]}}\n", f"`{IGA}` has layer 1 twice"),
    ("tensorrt_llm", f"num_slots: 1\n{IGA}: {{1: [0], 1: [0]}}\n", "line 2, column 38: duplicate key `1`"),
    ("tensorrt_llm", f"num_slots: 2\n{IGA}: {{1: [0]}}\n", f"`{IGA}[1]` has 1 slots, but `num_slots` is `2`"),
    ("tensorrt_llm", f"num_slots: 2\n{IGA}: {{1: [0, 1.5]}}\n", f"`{IGA}[1][1]` is `1.5`, expected an integer"),
    ("tensorrt_llm", f"num_slots: 2\n{IGA}: {{1: [0, 2021-01-01]}}\n", f"`{IGA}[1][1]` is `a value of type date`"),
    ("tensorrt_llm", f"num_slots: 2\n{IGA}: {{1: [0, 2021-13-41]}}\n", "a value of the YAML is broken: month must be"),
    ("tensorrt_llm", f"num_slots: 2\n{IGA}: {{1: [0, -1]}}\n", f"`{IGA}[1][1]` is `-1`, expected an expert in 0..1"),
    ("tensorrt_llm", f"num_slots: 2\n{IGA}: {{1: &a [0, *a]}}\n", f"`{IGA}[1][1]` is an array, expected an integer"),
    ("tensorrt_llm", "a: !!python/object/apply:os.mkdir [touched]", "line 1, column 4: broken YAML: could not"),
    ("tensorrt_llm", b"a: \xff", "line 1, column 4: byte `0xff` is no valid UTF-8"),
    ("tensorrt_llm", b"\x93NUMPY", "the content is arrays or tensors, expected YAML with a mapping"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[f"{name}: {message}" for name, _, message in BAD])
def test_a_bad_file_is_refused_with_the_place(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = put(tmp_path / ("p.yaml" if name == "tensorrt_llm" else "p.json"), content)
    for read in (READERS[name], lambda path, *rest: formats.read(path, name, *rest)):
        assert refused(lambda read=read: read(path, None, R2), path).startswith(message)
    assert not Path("touched").exists()


@pytest.mark.parametrize("name", FOREIGN)
def test_another_number_of_experts_or_another_topology_is_refused(tmp_path: Path, name: str) -> None:
    path = written(make(TABLE, 4), tmp_path / NAMES[name][0], name)
    read = READERS[name]
    assert "expected an expert in 0..3" in refused(lambda: read(path, 3, R2), path)
    assert "leaves expert 4 out" in refused(lambda: read(path, 5, R2), path)
    assert "out of range" in refused(lambda: read(path, -1, R2))
    for topology, part in (
        (Topology(4), "num_ranks=4"),
        (Topology(2, slots_per_rank=4), "slots_per_rank=4"),
        (Topology(2, slots_per_rank=[2, 4]), "slots_per_rank=[2, 4]"),
        (Topology(2, active=[True, False]), "not active"),
    ):
        assert part in refused(lambda topology=topology: read(path, 4, topology), path)
    for topology in (Topology(2, 2, 3), Topology(2, slots_per_rank=[3, 3])):
        assert read(path, 4, topology).digest() == make(TABLE, 4).digest()
    if name == "vllm_ascend":
        assert "num_ranks=3, and the file 2 devices" in refused(lambda: read(path, 4, Topology(3)), path)
    else:
        assert "expected a topology" in refused(lambda: read(path, 4), path)
    with pytest.raises(TypeError):
        read(path, 4.0, R2)


def test_our_own_file_must_agree_with_the_arguments(tmp_path: Path) -> None:
    path = written(make(TABLE, 4, 2, 2), tmp_path / "p.json", "native")
    assert "`num_experts` is `4`, expected 5" in refused(lambda: formats.read(path, num_experts=5), path)
    assert "`topology.num_ranks` is `2`, expected 3" in refused(lambda: formats.read(path, topology=Topology(3)), path)
    assert "`topology.num_nodes` is `2`, expected 1" in refused(lambda: formats.read(path, topology=Topology(2)), path)
    assert "`topology.slots_per_rank` is `null`" in refused(
        lambda: formats.read(path, topology=Topology(2, 2, 3)), path
    )
    assert formats.read(path, None, 4, Topology(2, 2)) == make(TABLE, 4, 2, 2)
    assert native.read(Placement, path) == make(TABLE, 4, 2, 2)


def test_layers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    p = make(TABLE, 4)
    for ids, part in (
        ([], "layer_ids is empty"),
        ([1], "layer_ids has 1 layers, expected 2"),
        ([1, 1], "layer_ids[1]=1 is out of range, expected more than the 1 before it"),
        ([2, 1], "layer_ids[1]=1 is out of range"),
        ([-1, 1], "layer_ids[0]=-1 is out of range, expected 0 or more"),
    ):
        for name in formats.LAYERED:
            path = tmp_path / NAMES[name][0]
            assert part in refused(lambda name=name, path=path, ids=ids: formats.write(p, path, name, layer_ids=ids))
            assert not path.exists()
    with pytest.raises(TypeError):
        formats.write(p, tmp_path / "p.yaml", layer_ids=[0.0, 1.0])  # type: ignore[list-item]
    for count in (4, -1, 2**20 + 1):
        message = refused(
            lambda count=count: formats.write(
                p, tmp_path / "p.json", "sglang", layer_ids=[3, 4], num_hidden_layers=count
            )
        )
        expected = f"5..={2**20} for layer 4 and layers of 6 slots"
        assert message == f"num_hidden_layers={count} is out of range, expected {expected}"
    message = refused(lambda: formats.write(p, tmp_path / "p.json", "sglang", layer_ids=[3, 10**9]))
    assert message == f"layer_ids[1]={10**9} is out of range, expected less than {2**20} for layers of 6 slots"
    path = written(p, tmp_path / "p.json", "sglang", layer_ids=[3, 4])
    assert "has 5 rows, and none for layer 5" in refused(lambda: sglang.read(path, 4, R2, layer_ids=[3, 5]), path)
    for name in formats.LAYERED:
        path = written(p, tmp_path / NAMES[name][0], name)
        assert "is empty" in refused(lambda name=name, path=path: READERS[name](path, 4, R2, layer_ids=[]))
    path = written(p, tmp_path / "p.yaml", layer_ids=[3, 4])
    assert "has no layer 5" in refused(lambda: tensorrt_llm.read(path, 4, R2, layer_ids=[3, 5]), path)
    path = written(p, tmp_path / "a.json", "vllm_ascend")
    assert formats.read_layers(path, layer_ids=[3, 4]).layer_ids == (3, 4)
    assert "layer_ids has 1 layers" in refused(lambda: formats.read(path, layer_ids=[3]))
    for name in ("native", "deepseek", "vllm_ascend"):
        assert "do not hold it" in refused(lambda name=name: formats.write(p, path, name, layer_ids=[3, 4]))
    assert "do not hold it" in refused(lambda: formats.write(p, path, "tensorrt_llm", num_hidden_layers=9))


@pytest.mark.parametrize("name", FOREIGN)
def test_what_an_engine_can_not_say_is_not_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / NAMES[name][0]
    for placement, message in (
        (make([[0, 1, 2, 0], [2, 1, 0, -1]]), "slot 3 of layer 1 is empty, and "),
        (make([[0, 1, 2]]), "rank 1 has 1 slots and rank 0 has 2, and "),
        (make([[0, 1, 2, 0]], 3, 2, 1, [1, 3]), "rank 1 has 3 slots and rank 0 has 1, and "),
        (make([[0, 1, 2, -1]], 3, 2, active=[True, True]), "slot 3 of layer 0 is empty, and "),
        (make(np.zeros((1, 0), dtype=np.int64), 0), "the placement has no slots"),
    ):
        assert refused(lambda p=placement: formats.write(p, path, name)).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "p.json"
    folder.mkdir()
    for path in (folder, tmp_path / "none" / "p.json"):
        with pytest.raises(OSError, match=f"'{path}'"):
            formats.write(make(), path, "sglang")
    assert list(tmp_path.iterdir()) == [folder]


def test_an_expert_twice_on_a_rank_is_not_written_for_vllm_ascend(tmp_path: Path) -> None:
    p = make([[0, 1, 2, 1], [1, 0, 2, 2]])
    message = "layer 1 has expert 2 twice on rank 1, and vllm-ascend uses one slot of an expert on a device"
    assert refused(lambda: formats.write(p, tmp_path / "p.json", "vllm_ascend")) == message
    assert formats.read(written(p, tmp_path / "p.json", "sglang"), topology=R2) == p


def test_suffixes_that_say_too_little_are_refused(tmp_path: Path) -> None:
    p = make(TABLE, 4)
    for suffix, part in (
        (".json", "the suffix is that of native, sglang, deepseek, vllm_ascend, expected one of native, "),
        (".pt", "the suffix is that of sglang, deepseek, expected one of native, "),
        (".txt", "the suffix says no format, expected one of native, "),
        ("", "the suffix says no format, expected one of native, "),
    ):
        path = tmp_path / f"p{suffix}"
        assert refused(lambda path=path: formats.write(p, path), path).startswith(part)
    assert formats.read(written(p, tmp_path / "p.npy"), topology=R2) == p
    assert "ends in `.json` or `.pt`" in refused(lambda: formats.write(p, tmp_path / "p.txt", "sglang"))
    assert "written as `.pt`, `.npy` or `.json`" in refused(lambda: formats.write(p, tmp_path / "p", "deepseek"))
    for call in (lambda: formats.write(p, tmp_path / "p", "x"), lambda: formats.read(tmp_path / "p", "x")):
        assert refused(call).startswith("format=`x` is unknown, expected one of `native`, `sglang`, ")


def test_a_format_that_is_no_short_text_is_refused_by_name(tmp_path: Path) -> None:
    p, file = make(TABLE, 4), written(make(TABLE, 4), tmp_path / "p.json", "sglang")
    odd: Any = [["sglang"]]
    calls: tuple[Any, ...] = (
        lambda kind: formats.write(p, tmp_path / "q.json", kind),
        lambda kind: formats.read(file, kind, topology=R2),
        lambda kind: formats.read_layers(file, kind, topology=R2),
    )
    for call in calls:
        assert refused(lambda call=call: call("x" * 10**6)).startswith(f"format=`{'x' * 40}...` is unknown, expected ")
        with pytest.raises(TypeError, match=r"^format must be a str, got `list`$"):
            call(odd)
    with pytest.raises(TypeError, match=r"^layer_ids must be a sequence of ints, got `dict`$"):
        formats.read(file, "sglang", topology=R2, layer_ids={0: 1})  # type: ignore[arg-type]
    assert "none for layer a huge integer of" in refused(
        lambda: formats.read(file, "sglang", topology=R2, layer_ids=[0, 10**5000])
    )
    with pytest.raises(TypeError, match=r"^num_experts must be an int, got `Tensor`$"):
        formats.read(file, "sglang", torch.tensor(4, device="meta"), R2)
    with pytest.raises(ValueError, match=r"^``: the path is empty, expected that of a file$"):
        formats.read("", "sglang", topology=R2)


def test_a_table_of_one_row_many_times_is_read_as_it_was_written(tmp_path: Path) -> None:
    p = make(TABLE, 4)
    file = tmp_path / "p.json"
    formats.write(p, file, "sglang", layer_ids=[3, 10], num_hidden_layers=2**12)
    assert formats.read(file, "sglang", topology=R2, layer_ids=[3, 10]) == p
    rows = json.loads(file.read_text())["physical_to_logical_map"]
    dense = [slot % 4 for slot in range(p.num_slots)]
    assert [row for layer, row in enumerate(rows) if layer not in (3, 10)] == [dense] * (2**12 - 2)


@pytest.mark.parametrize("name", ["sglang", "deepseek"])
def test_an_archive_behind_something_else_is_refused(tmp_path: Path, name: str) -> None:
    file = written(make(TABLE, 4), tmp_path / "p.pt", name)
    content = file.read_bytes()
    for before in (content, b"x"):
        file.write_bytes(before + content)
        with pytest.raises(ValueError, match=r"the archive begins after \d+ bytes of something else|is no|expected"):
            formats.read(file, name, topology=R2)


def test_a_file_that_says_it_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    with file.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(ValueError, match=r"the file is larger than 1073741824 bytes, expected a placement$"):
        formats.read(file, "sglang", topology=R2)


def test_a_file_of_no_format_or_of_several_is_refused(tmp_path: Path) -> None:
    for content, part in (
        ({}, "the format is unknown, expected a file of one of native, "),
        ({"logical_count": [[1, 2]]}, "tensorrt_llm; these look like loads"),
        ([[0, 1]], "the JSON is no object"),
        ({SG: [[0]], "phy2log": [[0]]}, "the file has keys of sglang and deepseek, the format must be given"),
    ):
        path = put(tmp_path / "p.json", content)
        assert part in refused(lambda path=path: formats.recognise(path), path)
        assert part in refused(lambda path=path: formats.read(path, topology=R2), path)
    assert "as `.pt` says" in refused(lambda: formats.read(put(tmp_path / "p.pt", b"[]"), topology=R2))
    assert "directory" in refused(lambda: formats.read(tmp_path), tmp_path)
    with pytest.raises(FileNotFoundError):
        formats.read(tmp_path / "none")


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("touched",)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (Hostile(), {"phy2log": Hostile()}, {SG: Hostile()}):
        path = put(tmp_path / "p.pt", content)
        holds_tensors = name in ("sglang", "deepseek")
        for part in ("torch can not load this", "plain pickle"):
            message = refused(lambda path=path: formats.read(path, name, 1, R2), path)
            assert (part if holds_tensors else "the content is arrays or tensors") in message
            assert part in refused(lambda path=path: formats.recognise(path), path)
            put(path, pickle.dumps(content))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["sglang", "deepseek"])
def test_wrong_tensors_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.pt"
    key = {"sglang": SG, "deepseek": "phy2log"}[name]
    for tensor, part in (
        (torch.zeros(2, 2), f"`{key}` is float64 of shape (2, 2), expected integers"),
        (torch.zeros(2, 2, dtype=torch.bool), f"`{key}` is bool of shape"),
        (torch.zeros(2, dtype=torch.int32), f"`{key}` is int32 of shape (2,)"),
        (torch.zeros(0, 2, dtype=torch.int32), f"`{key}` is an empty array"),
        (torch.zeros(1, dtype=torch.int64).expand(1 << 20, 1 << 20), f"`{key}` needs"),
    ):
        message = refused(lambda tensor=tensor: formats.read(put(path, {key: tensor}), name, 1, R2), path)
        assert message.replace("float32", "float64").startswith(part)


def test_layers_that_are_spelled_in_two_ways_are_refused(tmp_path: Path) -> None:
    for first, second in (("0", "00"), ("10", "0xa"), ("1", "1.0"), ("1", "0b1")):
        text = f"num_slots: 2\n{IGA}:\n  {first}: [0, 1]\n  {second}: [1, 0]\n"
        message = refused(lambda text=text: tensorrt_llm.read(put(tmp_path / "p.yaml", text), 2, R2))
        assert f"line 4, column 3: duplicate key `{second}`" in message
    text = f"num_slots: 2\n{IGA}:\n  0: [0, 1]\nlayer_updates_per_iter: -1\n"
    message = refused(lambda: tensorrt_llm.read(put(tmp_path / "p.yaml", text), 2, R2))
    assert message.endswith("`layer_updates_per_iter` is `-1`, expected an integer of 0 or more")


READ: Any = formats.read
WRITE: Any = formats.write


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: READ(path, topology=4), "topology must be a Topology, got `int`"),
        (lambda path: READ(path, num_experts=4.0), "num_experts must be an int, got `float`"),
        (lambda path: READ(path, num_experts=True), "num_experts must be an int, got `bool`"),
        (lambda path: READ(path, layer_ids=3), "layer_ids must be a sequence of ints, got `int`"),
        (lambda path: READ(path, layer_ids=[True]), "layer_ids must be an int, got `bool`"),
        (lambda path: WRITE(None, path, "native"), "placement must be a Placement, got `NoneType`"),
    ],
)
def test_an_argument_of_another_type_is_refused_by_its_name(tmp_path: Path, call: Any, message: str) -> None:
    path = tmp_path / "p.json"
    make(TABLE, 4).save(path)
    with pytest.raises(TypeError) as caught:
        call(path)
    assert str(caught.value) == message


def test_more_layers_than_any_model_has_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    make(TABLE, 4).save(path)
    with pytest.raises(ValueError, match=r"^layer_ids has more than 1048576 layers, expected fewer$"):
        formats.read(path, layer_ids=range(10**12))


def test_a_file_for_more_ranks_than_memory_has_room_for_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    make(TABLE, 4).save(path)
    root = json.loads(path.read_text())
    root["topology"]["num_ranks"] = 2**31 - 1
    path.write_text(json.dumps(root))
    message = refused(lambda: Placement.load(path))
    assert message.endswith("`topology.num_ranks` is `2147483647`, expected 1..=1048576")


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_broken_yaml_is_refused_by_either_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: str) -> None:
    import yaml

    # The parser in C is not there in every build of PyYAML, and words its errors otherwise.
    monkeypatch.setattr(yaml, "CSafeLoader", getattr(yaml, loader), raising=False)
    for content in ("a: [\n", "a: b: c", "[" * 5000, "a: \x00", "*a", "%x", "? [", "a: 'b", "- - {", "a: 1\n---\nb: 2"):
        message = refused(lambda content=content: tensorrt_llm.read(put(tmp_path / "p.yaml", content)))
        assert "broken YAML: " in message or "the YAML is nested too deeply" in message
    assert tensorrt_llm.read(put(tmp_path / "p.yaml", TENSORRT), 4, R2) == make(TABLE, 4)


def test_yaml_that_stands_for_more_than_it_is_is_refused(tmp_path: Path) -> None:
    row = ", ".join(["0"] * 10_000)
    rows = "".join(f"  {layer}: *a\n" for layer in range(1, 10_000))
    path = put(tmp_path / "p.yaml", f"{IGA}:\n  0: &a [{row}]\n{rows}num_slots: 10000\n")
    assert "10000 layers of 10000 slots are more than" in refused(lambda: tensorrt_llm.read(path, 1, R2), path)
    nested = "a0: &a0 [0]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    path = put(tmp_path / "p.yaml", nested)
    assert "`a0` is unknown" in refused(lambda: tensorrt_llm.read(path, 1, R2), path)
    path.write_bytes(b" " * (2**24 + 1))
    assert "larger than" in refused(lambda: tensorrt_llm.read(path, 1, R2), path)


def test_a_missing_extra_is_one_line_that_names_it(tmp_path: Path) -> None:
    p = make(TABLE, 4)
    for file, name, module, extra in (("p.yaml", "tensorrt_llm", "yaml", "yaml"), ("p.pt", "sglang", "torch", "torch")):
        path = written(p, tmp_path / file, name)
        code = (
            f"import sys; sys.modules[{module!r}] = None\n"
            "from expert_placement import Topology, formats\n"
            f"try: formats.read({str(path)!r}, topology=Topology(2))\n"
            "except ModuleNotFoundError as error: print(error)"
        )
        said = subprocess.check_output([sys.executable, "-c", code], text=True)
        assert said.startswith(f"`{path}`: ")
        assert said.partition("`: ")[2].endswith(f"`{module}`: pip install 'expert-placement[{extra}]'\n")
        assert said.count("\n") == 1


def test_importing_formats_loads_neither_torch_nor_numpy_nor_yaml() -> None:
    code = "import sys, expert_placement.formats; print([m for m in ('torch', 'numpy', 'yaml') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
