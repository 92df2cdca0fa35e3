"""`expert-placement convert`: between all formats, what it says, what it names as lost, and every refusal."""

from __future__ import annotations

import json
import os
import stat
import sys
from itertools import permutations
from pathlib import Path

import pytest
from expert_placement import Placement, Topology, formats

from tests.cli.running import Shell, program, write

pytest.importorskip("torch", reason="tables are tensors")
pytest.importorskip("yaml", reason="TensorRT-LLM's files are YAML")

TABLE = [[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 2]]
NAMES = {
    "native": "native.json",
    "sglang": "sglang.json",
    "deepseek": "deepseek.pt",
    "vllm_ascend": "vllm_ascend.json",
    "tensorrt_llm": "tensorrt_llm.yaml",
}


def placement(num_nodes: int = 1) -> Placement:
    return Placement.from_physical_to_logical(TABLE, 4, Topology(2, num_nodes))


@pytest.mark.parametrize(("source", "target"), list(permutations(formats.FORMATS, 2)))
def test_every_format_becomes_every_other(shell: Shell, tmp_path: Path, source: str, target: str) -> None:
    before, after = tmp_path / NAMES[source], tmp_path / NAMES[target]
    formats.write(placement(), before, source)
    fields = shell.fields("convert", before, after, "--to", target, "--experts", 4, "--ranks", 2)
    assert fields == {
        "input": str(before),
        "from": source,
        "output": str(after),
        "to": target,
        "num_layers": 2,
        "num_experts": 4,
        "num_slots": 6,
        "num_ranks": 2,
        "num_nodes": 1,
        "layer_ids": [0, 1] if {source, target} & set(formats.LAYERED) else None,
        "digest": placement().digest(),
        "lost": [],
    }
    assert formats.read(after, target, 4, Topology(2)).digest() == placement().digest()


def test_it_says_what_was_done_and_what_is_lost(shell: Shell, tmp_path: Path) -> None:
    before, after = tmp_path / "a.yaml", tmp_path / "b.json"
    formats.write(placement(), before, layer_ids=[3, 4])
    assert shell.lines("convert", before, after, "--to", "vllm_ascend", "--ranks", 2, "--nodes", 2) == [
        "2 layers of 4 experts in 6 slots on 2 ranks of 2 nodes",
        "layers 3-4 of the model",
        f"from tensorrt_llm, `{before}`",
        f"to vllm_ascend, `{after}`",
        f"digest {placement().digest()}",
        "Not in the new file: 2 nodes.",
        "Not in the new file: that the layers are 3-4 of the model.",
    ]
    assert shell.lines("convert", after, before)[1:4] == [
        "layers 0-1 of the model, as neither the file nor --layers says otherwise",
        f"from vllm_ascend, `{after}`",
        f"to tensorrt_llm, `{before}`",
    ]
    speeds = Placement.from_physical_to_logical(TABLE, 4, Topology(2, 2, speeds=[1, 2]))
    formats.write(speeds, after, "native")
    assert shell.fields("convert", after, before, "--ranks", 2, "--nodes", 2)["lost"] == ["num_nodes", "speeds"]


def test_layers_of_the_model_go_from_file_to_file(shell: Shell, tmp_path: Path) -> None:
    native, location, assignments = tmp_path / "p.json", tmp_path / "location.json", tmp_path / "a.yaml"
    placement().save(native)
    layers = ("--layers", "1,3", "--hidden-layers", 5)
    assert shell.fields("convert", native, location, "--to", "sglang", *layers)["layer_ids"] == [1, 3]
    rows = json.loads(location.read_text())["physical_to_logical_map"]
    trivial = [0, 1, 2, 3, 0, 1]
    assert rows == [trivial, TABLE[0], trivial, TABLE[1], trivial]
    shell.text("convert", location, assignments, "--ranks", 2, "--layers", "1,3")
    assert shell.fields("convert", assignments, location, "--to", "sglang", "--ranks", 2)["layer_ids"] == [1, 3]
    assert json.loads(location.read_text())["physical_to_logical_map"] == rows[:4]
    fields = shell.fields("convert", assignments, native, "--to", "native", "--ranks", 2)
    assert (fields["digest"], fields["lost"]) == (placement().digest(), ["layer_ids"])
    assert Placement.load(native) == placement()
    many = [f"{layer}-{layer + 1}" for layer in range(0, 40, 4)]
    formats.write(Placement.from_physical_to_logical([TABLE[0]] * 20, 4, Topology(2)), location, "sglang")
    shell.refused("convert", location, assignments, "--ranks", 2, "--layers", ",".join(many))


def test_the_file_that_is_read_is_not_replaced(shell: Shell, tmp_path: Path) -> None:
    file, link = tmp_path / "p.json", tmp_path / "link.json"
    placement().save(file)
    link.symlink_to(file)
    before = file.read_bytes()
    for source, target in ((file, file), (file, link), (link, file)):
        message = f"OUTPUT and INPUT are the same file, `{target}`, expected another one to write"
        assert shell.refused("convert", source, target, "--to", "sglang") == message
    assert file.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_pipe_is_not_replaced(shell: Shell, tmp_path: Path) -> None:
    file, pipe = tmp_path / "p.json", tmp_path / "pipe.yaml"
    placement().save(file)
    os.mkfifo(pipe)
    assert shell.refused("convert", file, pipe) == f"`{pipe}`: this is no regular file, expected one, or a new path"
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert shell.refused("convert", file, "", "--to", "sglang") == "``: the path is empty, expected that of a file"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sglang.json out.yaml", "a file of `sglang` does not say how many ranks there are, expected --ranks"),
        (
            "sglang.json out.yaml --ranks 4",
            "`sglang.json`: 6 slots do not divide by num_ranks=4, and SGLang's file gives",
        ),
        ("sglang.json out.yaml --ranks 0", "num_ranks=0 is out of range"),
        (
            "sglang.json out.yaml --ranks 2 --experts 5",
            "`sglang.json`: `physical_to_logical_map[0]` leaves expert 4 out",
        ),
        ("sglang.json out.yaml --ranks 2 --nodes 3", "num_nodes=3 is out of range"),
        ("sglang.json out.yaml --nodes 3", "--nodes says how --ranks are grouped, which is not given"),
        ("sglang.json out.json --ranks 2", "`out.json`: the suffix is that of native, sglang, deepseek, vllm_ascend, "),
        ("sglang.json out --ranks 2", "`out`: the suffix says no format, expected one of native, "),
        ("sglang.json out.yaml --ranks 2 --from deepseek", "`sglang.json`: `phy2log` is missing"),
        ("sglang.json out.yaml --ranks 2 --from x", "format=`x` is unknown, expected one of `native`, `sglang`, "),
        ("sglang.json out.yaml --ranks 2 --to x", "format=`x` is unknown, expected one of `native`, `sglang`, "),
        (
            "sglang.json out.yaml --ranks 2 --layers 1-5",
            "`sglang.json`: `physical_to_logical_map` has 2 rows, and none",
        ),
        (
            "sglang.json out.yaml --ranks 2 --layers 1-x",
            "layers=`1-x` is no ascending list of layers, expected as 3-60",
        ),
        ("sglang.json out.yaml --ranks 2 --layers 1,1", "layers=`1,1` is no ascending list of layers"),
        ("sglang.json out.yaml --ranks 2 --layers 3-1", "layers=`3-1` is no ascending list of layers"),
        ("sglang.json out.yaml --ranks 2 --hidden-layers 9", "num_hidden_layers is given, and files of `tensorrt_llm`"),
        (
            "sglang.json out.json --to sglang --ranks 2 --hidden-layers 1",
            "num_hidden_layers=1 is out of range, expected",
        ),
        ("native.json out.yaml --ranks 3", "`native.json`: the placement is on 2 ranks, and --ranks is 3"),
        ("native.json out.yaml --ranks 2 --nodes 2", "`native.json`: the placement is on 1 node, and --nodes is 2"),
        ("native.json out.yaml --experts 5", "`native.json`: `num_experts` is `4`, expected 5"),
        ("native.json out.yaml --layers 1", "layer_ids has 1 layers, expected 2 as the placement has"),
        ("vllm_ascend.json out.yaml --ranks 3", "`vllm_ascend.json`: topology has num_ranks=3, and the file 2 devices"),
        ("loads.json out.yaml", "`loads.json`: the format is unknown, expected a file of one of native, "),
        ("broken.json out.yaml", "`broken.json`: line 1, column 2: broken JSON"),
        ("none.json out.yaml", "`none.json`: no such file or directory"),
        (". out.yaml", "`.`: this is a directory, expected a placement"),
        ("native.json nowhere/out.yaml", "`nowhere/out.yaml`: no such file or directory"),
        ("uneven.json out.yaml", "rank 1 has 4 slots and rank 0 has 2, and TensorRT-LLM gives every rank equally many"),
        ("empty.json out.yaml", "slot 5 of layer 1 is empty, and TensorRT-LLM has no empty slots"),
    ],
)
def test_wrong_input_is_one_line(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("native", "sglang", "vllm_ascend"):
        formats.write(placement(), NAMES[name], name)
    write(Path("loads.json"), {"counts": [[1, 2]]})
    write(Path("broken.json"), "{")
    empty = [TABLE[0], [*TABLE[1][:5], -1]]
    Placement.from_physical_to_logical(TABLE, 4, Topology(2, 1, [2, 4])).save("uneven.json")
    Placement.from_physical_to_logical(empty, 4, Topology(2)).save("empty.json")
    there = set(tmp_path.iterdir())
    assert shell.refused("convert", *arguments.split()).startswith(message)
    assert set(tmp_path.iterdir()) == there


@pytest.mark.parametrize("arguments", ["", "in.json", "in.json out.json more", "in.json out.json --ranks x"])
def test_wrong_usage_is_one_line(shell: Shell, arguments: str) -> None:
    shell.refused("convert", *arguments.split())


@pytest.mark.parametrize(("module", "extra"), [("torch", "torch"), ("yaml", "yaml")])
def test_a_missing_extra_is_one_line_that_names_it(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    name = {"torch": "sglang", "yaml": "tensorrt_llm"}[module]
    file = tmp_path / {"torch": "p.pt", "yaml": "p.yaml"}[module]
    formats.write(placement(), file, name)
    monkeypatch.setitem(sys.modules, module, None)
    message = shell.refused("convert", file, tmp_path / "out.json", "--to", "native", "--ranks", 2)
    assert message.startswith(f"`{file}`: ")
    assert message.endswith(f"`{module}`: pip install 'expert-placement[{extra}]'")


def test_the_program_itself_converts_and_its_help_has_examples(tmp_path: Path) -> None:
    before, after = tmp_path / "p.json", tmp_path / "p.yaml"
    placement().save(before)
    result = program("convert", before, after)
    assert (result.returncode, result.stderr) == (0, "")
    assert after.exists()
    assert program("convert", before, tmp_path / "p.txt").returncode == 2
    text = program("convert", "--help").stdout
    assert "expert-placement convert plan.json location.json --to sglang" in text
    for name in formats.FORMATS:
        assert name in text
