"""Placements: every derived table against the plainest derivation of it, refusals, files and values."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from expert_placement import Partition, Placement, Topology
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="tensors need torch")

if TYPE_CHECKING:
    from collections.abc import Callable


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """Up to 3 layers, 6 experts, 4 ranks of 0 to 4 slots each, empty slots and ranks out of service included."""
    slots = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    active = [draw(st.booleans()) for _ in slots]
    active[0] = True
    usable = [rank for rank, number in enumerate(slots) for _ in range(number)]
    live = [slot for slot, rank in enumerate(usable) if active[rank]]
    num_experts = draw(st.integers(0, min(6, len(live))))
    table = []
    for _ in range(draw(st.integers(1, 3))):
        row = [-1] * len(usable)
        for slot in live:
            row[slot] = draw(st.integers(-1, num_experts - 1))
        for expert, slot in enumerate(draw(st.permutations(live))[:num_experts]):
            row[slot] = expert
        table.append(row)
    topology = Topology(len(slots), draw(st.integers(1, len(slots))), slots, active=active)
    array = np.array(table, dtype=np.int64).reshape(len(table), len(usable))
    return Placement.from_physical_to_logical(array, num_experts=num_experts, topology=topology)


@given(placements())
def test_every_table_follows_from_the_slots(p: Placement) -> None:
    table = p.physical_to_logical().tolist()
    offsets = p.slot_offsets().tolist()
    assert offsets[0] == 0
    assert offsets[-1] == p.num_slots
    where = [[[s for s, x in enumerate(row) if x == e] for e in range(p.num_experts)] for row in table]
    most = max((len(slots) for layer in where for slots in layer), default=0)
    assert p.most_replicas == most
    padded = [[slots + [-1] * (most + 2 - len(slots)) for slots in layer] for layer in where]
    assert p.logical_to_physical(most + 2).tolist() == padded
    assert p.logical_to_physical().shape == (p.num_layers, p.num_experts, most)
    assert p.replica_counts().tolist() == [[len(slots) for slots in layer] for layer in where]
    for layer in range(p.num_layers):
        for rank in range(p.num_ranks):
            held = table[layer][offsets[rank] : offsets[rank + 1]]
            index_map = [held.index(e) if e in held else -1 for e in range(p.num_experts)]
            mask = [int(e in held) for e in range(p.num_experts)]
            assert p.local_experts(layer, rank).tolist() == held
            assert p.experts_to_load(layer, rank).tolist() == sorted(set(held) - {-1})
            assert p.expert_map(layer, rank).tolist() == index_map
            assert p.expert_map_with_shared(layer, rank, 2).tolist() == [*index_map, len(held), len(held) + 1]
            assert p.expert_map_with_sentinel(layer, rank).tolist() == [*index_map, -1]
            assert p.expert_mask(layer, rank, 1).tolist() == [*mask, 1, 0]
    for tensor in (p.physical_to_logical(), p.logical_to_physical(), p.replica_counts(), p.slot_offsets()):
        assert tensor.dtype == torch.int32
        assert tensor.is_contiguous()


@given(placements(), st.data())
def test_loads_are_split_and_conserved(p: Placement, data: st.DataObject) -> None:
    shape = (2, p.num_layers, p.num_experts)
    loads = np.array([data.draw(st.integers(0, 9)) for _ in range(int(np.prod(shape)))]).reshape(shape)
    ranks = p.rank_loads(loads)
    assert ranks.dtype == torch.float64
    assert ranks.shape == (2, p.num_layers, p.num_ranks)
    assert torch.allclose(ranks.sum(-1), torch.from_numpy(loads.sum(-1)).double())
    assert torch.equal(p.rank_loads(loads[1]), ranks[1])
    counts = p.replica_counts().numpy()
    table, offsets = p.physical_to_logical().numpy(), p.slot_offsets().tolist()
    for layer in range(p.num_layers):
        for rank in range(p.num_ranks):
            held = [e for e in table[layer, offsets[rank] : offsets[rank + 1]] if e >= 0]
            assert ranks[0, layer, rank] == sum(loads[0, layer, e] / counts[layer, e] for e in held)
    active = p.topology.active or (True,) * p.num_ranks
    means, largest = loads.sum(-1).sum() / sum(active), float(ranks.amax(-1).sum())
    assert p.balancedness(loads) == pytest.approx(means / largest if largest else 1.0)
    for report in p.report(loads):
        assert report.lower_bound <= report.largest
        assert report.gap >= 0


@given(placements())
def test_a_placement_is_a_value(p: Placement) -> None:
    again = Placement.from_physical_to_logical(p.physical_to_logical(), num_experts=p.num_experts, topology=p.topology)
    for other in (again, pickle.loads(pickle.dumps(p)), copy.deepcopy(p), copy.copy(p)):
        assert other == p
        assert hash(other) == hash(p)
        assert other.digest() == p.digest()
        assert type(other) is Placement
    assert p != object()
    assert eval(repr(p.topology)) == p.topology


class Tagged(Placement):
    """A subclass with an attribute that its `__new__` demands."""

    tags: list[str]

    def __new__(cls, placement: Any, tags: list[str]) -> Tagged:
        self = super().__new__(cls, placement)
        self.tags = tags
        return self


class Reducing(Tagged):
    """A subclass that says itself how it is made again."""

    def __reduce__(self) -> Any:
        return Reducing, (Placement.from_physical_to_logical([0, 1], 2, Topology(2)), [*self.tags, "made"])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_of_a_subclass_has_attributes_of_its_own(duplicate: Any) -> None:
    plain = Placement.from_physical_to_logical([0, 1], 2, Topology(2))
    p = Tagged(plain, ["a"])
    twin = duplicate(p)
    assert (type(twin), twin, twin.tags) == (Tagged, plain, ["a"])
    assert twin is not p
    assert (twin.tags is p.tags) == (duplicate is copy.copy)
    assert duplicate(Reducing(plain, ["a"])).tags == ["a", "made"]
    assert (duplicate(plain) is plain) == (duplicate in (copy.copy, copy.deepcopy))


def test_a_digest_tells_contents_apart_and_nothing_else() -> None:
    def digest(row: list[int], num_experts: int = 3, **options: Any) -> str:
        topology = Topology(2, **options)
        return Placement.from_physical_to_logical([row], num_experts=num_experts, topology=topology).digest()

    assert digest([0, 1, 2, 0]) == digest([0, 1, 2, 0], num_nodes=2, speeds=[1, 2])
    assert digest([0, 1, 2, 0]).startswith("01")
    assert len(digest([0, 1, 2, 0])) == 66
    others = {digest([0, 1, 2, 1]), digest([0, 1, 2, -1]), digest([0, 1, 2, 0], slots_per_rank=[1, 3])}
    assert len(others | {digest([0, 1, 2, 0])}) == 4


def test_a_digest_is_the_same_in_another_process() -> None:
    code = (
        "from expert_placement import *; print(Placement.from_physical_to_logical([[0, 1, 2, 0]], "
        "num_experts=3, topology=Topology(2)).digest())"
    )
    printed = {subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)}
    p = Placement.from_physical_to_logical([[0, 1, 2, 0]], num_experts=3, topology=Topology(2))
    assert printed == {p.digest() + "\n"}


def test_a_digest_is_what_the_specification_says() -> None:
    import hashlib

    numbers = [3, 1, 4, 2, 0, 2, 4, 0, 1, 2, -1]  # E, L, P, R, offsets, table
    text = bytes([1]) + b"".join(number.to_bytes(4, "little", signed=True) for number in numbers)
    p = Placement.from_physical_to_logical([0, 1, 2, -1], num_experts=3, topology=Topology(2))
    assert p.digest() == "01" + hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("strategy", ["linear", "round_robin", "proportional"])
def test_a_partition_is_a_placement(strategy: Any) -> None:
    partition = Partition(30, 8, strategy)
    p = Placement.from_partition(partition, num_layers=2)
    assert (p.num_layers, p.num_experts, p.num_slots, p.num_ranks) == (2, 30, 30, 8)
    for rank in range(8):
        assert torch.equal(p.expert_map(1, rank), partition.expert_map(rank))
        assert torch.equal(p.local_experts(0, rank), partition.local_experts(rank))


def make(table: Any = ((0, 1),), num_experts: Any = 2, **topology: Any) -> Placement:
    topology = {"num_ranks": 2, **topology}
    return Placement.from_physical_to_logical(table, num_experts=num_experts, topology=Topology(**topology))


REFUSED: list[tuple[Any, str]] = [
    (lambda: make([[0, 2]]), r"physical_to_logical\[0, 1\]=2 is out of range, expected -1..=1"),
    (lambda: make([[0, -2]]), r"physical_to_logical\[0, 1\]=-2 is out of range"),
    (lambda: make([[0, 2**40]]), r"physical_to_logical\[0, 1\]=1099511627776 is out of range"),
    (lambda: make([[0, 1], [0, 0]]), "expert 1 has no slot in layer 1"),
    (
        lambda: make([[0, 1, 0]], active=[True, False]),
        "slot 2 of layer 0 holds expert 0 on rank 1, which is not active",
    ),
    (lambda: make([[0, 1, 0]], slots_per_rank=[1, 1]), "num_slots=3 is out of range, expected 2..=2"),
    (lambda: make([[[0, 1]]]), "3 dimensions"),
    (lambda: make().logical_to_physical(0), "width=0 is out of range, expected 1..="),
    (lambda: make().rank_loads([[1, float("nan")]]), r"loads\[0, 1\]=NaN is out of range, expected a finite number"),
    (lambda: make().rank_loads([[1, -1]]), r"loads\[0, 1\]=-1 is out of range"),
    (lambda: make().rank_loads([[[1, 1]], [[1, float("inf")]]]), r"loads\[1, 0, 1\]=inf is out of range"),
    (lambda: make().rank_loads([[1, 1, 1]]), "loads has num_experts=3, expected 2"),
    (lambda: make().rank_loads([1, 1]), "loads has 1 dimensions"),
    (
        lambda: Placement.from_physical_to_logical([0, 1, 2, 2**40], 3, Topology(2)),
        r"physical_to_logical\[0, 3\]=1099511627776 is out of range, expected -1..=2",
    ),
    (lambda: make().rank_loads([[1e308, 1e308]]), "loads add up to too much, expected a sum of at most 1e301"),
    (lambda: Topology(0), "num_ranks=0 is out of range"),
    (lambda: Topology(2, 3), r"num_nodes=3 is out of range, expected 1..=2"),
    (lambda: Topology(2, slots_per_rank=[1]), "slots_per_rank has length 1, expected 2"),
    (lambda: Topology(2, slots_per_rank=-1), "slots_per_rank=-1 is out of range"),
    (lambda: Topology(2, speeds=[1, 0]), r"speeds\[1\]=0 is out of range, expected a number in 1e-6..=1e6"),
    (lambda: Topology(2, active=[False, False]), "active has no active rank"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_wrong_values_are_refused_by_name(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_ids_out_of_range_are_index_errors() -> None:
    p = make()
    for call in (p.expert_map, p.local_experts, p.experts_to_load, p.expert_mask, p.expert_map_with_sentinel):
        for layer, rank in ((1, 0), (-1, 0), (0, 2), (0, -1), (2**70, 0)):
            with pytest.raises(IndexError, match=r"is out of range, expected 0\.\."):
                call(layer, rank)


def test_wrong_types_are_refused() -> None:
    calls: list[Any] = [
        lambda: make([[0.0, 1.0]]),
        lambda: Topology(True),
        lambda: Topology(2, active=[1, 0]),  # type: ignore[list-item]
        lambda: Topology(2, speeds=["1", "2"]),  # type: ignore[list-item]
        lambda: Placement.from_physical_to_logical([[0]], num_experts=1, topology=2),  # type: ignore[arg-type]
        lambda: make().rank_loads([[True, False]]),
        lambda: make().rank_loads([[1j, 1]]),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()


@given(placements())
def test_a_saved_placement_is_loaded(p: Placement) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "placement.json"
        p.save(path)
        assert Placement.load(path) == p
        assert [file.name for file in Path(folder).iterdir()] == ["placement.json"]


DAMAGE: list[tuple[Any, str]] = [
    (lambda root: root.update(version=2), "`version` is `2`, expected 1"),
    (lambda root: root.update(format="other"), '`format` is `"other"`'),
    (lambda root: root.pop("digest"), "`digest` is missing"),
    (lambda root: root.update(more=1), "`more` is unknown"),
    (lambda root: root["topology"].pop("num_nodes"), "`topology.num_nodes` is missing"),
    (lambda root: root["topology"].update(num_ranks=0), "`topology`: num_ranks=0"),
    (lambda root: root["physical_to_logical"][0].__setitem__(1, 0), "expert 1 has no slot in layer 0"),
    (lambda root: root["physical_to_logical"][0].__setitem__(3, 1), "the file was damaged or edited"),
    (lambda root: root["topology"].__setitem__("speeds", [1.0, 9.0]), "`topology_digest` is .* damaged or edited"),
    (lambda root: root["physical_to_logical"][0].__setitem__(3, True), r"`physical_to_logical\[0\]\[3\]` is `true`"),
    (lambda root: root["physical_to_logical"][1].pop(), r"`physical_to_logical\[1\]` has 3 slots"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[message for _, message in DAMAGE])
def test_a_damaged_file_is_refused_with_the_place(tmp_path: Path, damage: Any, message: str) -> None:
    path = tmp_path / "placement.json"
    make([[0, 1, 2, 0], [2, 1, 0, 0]], 3).save(path)
    root = json.loads(path.read_text())
    damage(root)
    path.write_text(json.dumps(root))
    with pytest.raises(ValueError, match=message) as caught:
        Placement.load(path)
    assert "placement.json" in str(caught.value)


def test_a_torn_file_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "placement.json"
    with pytest.raises(FileNotFoundError, match="no such file"):
        Placement.load(path)
    make().save(path)
    path.write_text(path.read_text()[:40])
    with pytest.raises(ValueError, match="line 3, column 2: broken JSON"):
        Placement.load(path)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Topology(4, slots_per_rank=[[1, 2], [3, 4]]),
            ValueError,
            "slots_per_rank has 2 dimensions, expected 1",
        ),
        (
            lambda: Topology(4, active=np.ones((4, 4), bool)),
            TypeError,
            "active must be a sequence of bools, got `ndarray`",
        ),
        (lambda: Topology(4, speeds=[[1], [1], [1], [1]]), TypeError, "speeds must be a number, got `list`"),  # type: ignore[list-item]
        (
            lambda: Placement.from_physical_to_logical([[0, 1], [2]], 3, Topology(1)),
            ValueError,
            "physical_to_logical has rows of different lengths",
        ),
    ],
)
def test_tables_of_another_shape_are_refused_by_name(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Placement.load(""), ValueError, "``: the path is empty, expected that of a file"),
        (
            lambda: Placement.from_physical_to_logical(None, 2, Topology(2)),  # type: ignore[arg-type]
            TypeError,
            "physical_to_logical must be an array or a sequence, got `NoneType`",
        ),
        (
            lambda: Placement.from_physical_to_logical("01", 2, Topology(2)),
            TypeError,
            "physical_to_logical must be an array or a sequence, got `str`",
        ),
        (
            lambda: Placement.from_physical_to_logical(torch.tensor([[0, 1]]).to_sparse(), 2, Topology(2)),
            TypeError,
            "physical_to_logical must be a dense tensor whose values are known: its layout is torch.sparse_coo",
        ),
        (
            lambda: Placement.from_physical_to_logical([[0, 1]], 2, Topology(2)).logical_to_physical(2**63),
            ValueError,
            f"width={2**63} is out of range, expected 1..=2147483647",
        ),
        (
            lambda: Placement.balancedness_of(float("nan"), 1),
            ValueError,
            "mean=NaN is out of range, expected a finite number of at least 0",
        ),
        (
            lambda: Placement.balancedness_of(1, -1),
            ValueError,
            "largest=-1 is out of range, expected a finite number of at least 0",
        ),
        (lambda: Placement.balancedness_of("1", 1), TypeError, "mean must be a number, got `str`"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_placement_s_input_is_refused_by_its_name(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
