"""The engines' functions: adapters pass on what is answered, and the report says what a run finds.

Where the environment variable PEERS_DIR, or PEERS, names a folder with the engines' files as `engines --fetch` leaves
them, the functions themselves are looked at; elsewhere fakes with their signatures, some of them wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import expert_placement_spec
import pytest
from expert_placement_spec.commands import engines as command
from expert_placement_spec.deviations import Deviation, read_deviations
from expert_placement_spec.engines import record, sources
from expert_placement_spec.engines.catalogue import KINDS, PLANNING, REFUSING, SUBJECTS, Subject, indivisible
from expert_placement_spec.engines.look import Finding, look
from expert_placement_spec.engines.reading import Table
from expert_placement_spec.engines.sglang import Eplb, EplbAfterFailures, EplbInChunks
from expert_placement_spec.engines.vllm import (
    EplbPolicy,
    ExpertMap,
    ExpertMapOrAll,
    LocalExpertIds,
    LocalExpertIdsOrAll,
)
from expert_placement_spec.outcome import Outcome
from expert_placement_spec.placement.topology import Topology
from expert_placement_spec.reference import Partition

torch = pytest.importorskip("torch", reason="the engines' functions take tensors")

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"
RECORDED = {one["title"]: one for one in record.read_record(DOCS)}
DEPENDS_ON_THE_PROCESSOR = {("expert_placement_spec.engines.vllm:EplbPolicy", "deepseek_is_followed_exactly")}
"""Where a sort is not stable, another processor may put equal loads into another order."""


# Fakes.


def expert_map(
    ep_size: int, ep_rank: int, experts: int, strategy: str = "linear", shared: int = 0, with_mask: bool = False
) -> tuple[int, Any, Any]:
    """As vLLM's, by the reference model."""
    if ep_size == 1:
        return experts, None, None
    p = Partition(experts, ep_size, strategy)
    index = p.expert_map_with_shared(ep_rank, shared) if with_mask else p.expert_map(ep_rank)
    mask = torch.tensor(p.expert_mask(ep_rank, shared), dtype=torch.int32) if with_mask else None
    return p.count(ep_rank), torch.tensor(index, dtype=torch.int32), mask


def rest_on_the_last(ep_size: int, ep_rank: int, experts: int, *_: Any) -> tuple[int, Any, Any]:
    """The rule that engines used to have."""
    base = experts // ep_size
    count = experts - base * (ep_size - 1) if ep_rank == ep_size - 1 else base
    index = torch.full((experts,), -1, dtype=torch.int32)
    index[ep_rank * base : ep_rank * base + count] = torch.arange(count, dtype=torch.int32)
    return count, index, None


def local_ids(experts: int, ep_size: int, ep_rank: int, placement: str = "linear") -> set[int] | None:
    """As vLLM's, by the reference model."""
    return None if ep_size <= 1 else set(Partition(experts, ep_size, placement).experts(ep_rank))


class FakeMap(ExpertMap):
    ask: ClassVar[Any] = staticmethod(expert_map)


class FakeMapOrAll(ExpertMapOrAll):
    ask: ClassVar[Any] = staticmethod(expert_map)


class WrongMap(ExpertMap):
    ask: ClassVar[Any] = staticmethod(rest_on_the_last)


class FakeIds(LocalExpertIds):
    ask: ClassVar[Any] = staticmethod(local_ids)


class FakeIdsOrAll(LocalExpertIdsOrAll):
    ask: ClassVar[Any] = staticmethod(local_ids)


def in_turn(weight: Any, replicas: int, groups: int, nodes: int, ranks: int, old: Any = None) -> Any:
    """Experts in turn, whatever their loads are; an assertion where numbers do not divide, as the engines have."""
    assert replicas % ranks == 0
    assert groups % nodes or ranks % nodes == 0
    return (torch.arange(replicas) % weight.shape[1]).repeat(weight.shape[0], 1)


def leaves_out_the_last(*given: Any) -> Any:
    """The same without the last expert."""
    table = in_turn(*given)
    return torch.where(table == given[0].shape[1] - 1, 0, table)


class InTurn(EplbPolicy):
    ask: ClassVar[Any] = staticmethod(in_turn)


class LeavesOutTheLast(EplbPolicy):
    ask: ClassVar[Any] = staticmethod(leaves_out_the_last)


PATH = "tests.spec.test_engines"


class Fake(Subject):
    """A subject whose adapter is of this file."""

    @property
    def implementation(self) -> str:
        return f"{PATH}:{self.attribute}"


def fake(attribute: str, like: str, strategy: str = "linear") -> Subject:
    """A subject like one of the catalogue, with a fake for its function."""
    model = next(one for one in SUBJECTS if one.attribute == like and one.strategy in ("", strategy))
    values: dict[str, Any] = {name: getattr(model, name) for name in model.__dataclass_fields__}
    return Fake(**values | {"attribute": attribute})


def results(findings: list[Finding]) -> dict[str, str]:
    return {one.outcome.invariant: one.outcome.result for one in findings}


def broken(subject: Subject, **options: Any) -> dict[str, Any]:
    findings = [one.outcome for one in look(subject, **options) if one.outcome.result == "broken"]
    return {one.invariant: one.counterexample for one in findings}


SMALL: dict[str, Any] = {"shapes": (9, 5), "examples": 40}


# What the adapters do.


@pytest.mark.parametrize("strategy", ["linear", "round_robin"])
@pytest.mark.parametrize("adapter", [FakeMapOrAll, FakeIdsOrAll])
def test_a_partition_is_read_off_maps_and_sets(adapter: Any, strategy: str) -> None:
    """Domain: E in 0..=12, R in 1..=7."""
    for experts in range(13):
        for ranks in range(1, 8):
            read, stated = adapter(experts, ranks, strategy), Partition(experts, ranks, strategy)
            assert [read.count(rank) for rank in range(ranks)] == stated.counts()
            assert [read.start(rank) for rank in range(ranks)] == stated.starts()
            assert [read.owner(expert) for expert in range(experts)] == stated.owners()
            assert [read.local_index(expert) for expert in range(experts)] == stated.local_indices()


@pytest.mark.parametrize("adapter", [FakeMap, FakeIds])
def test_no_answer_is_passed_on_as_none(adapter: Any) -> None:
    alone = adapter(4, 1, "linear")
    with pytest.raises((TypeError, AttributeError), match="NoneType"):
        alone.owner(0)
    if adapter is FakeMap:
        assert alone.expert_map(0) is None
        assert alone.expert_mask(0, 1) is None
        assert alone.count(0) == 4


def test_maps_are_passed_on_as_they_are() -> None:
    read, stated = FakeMap(7, 3, "round_robin"), Partition(7, 3, "round_robin")
    for rank in range(3):
        assert read.expert_map(rank).tolist() == stated.expert_map(rank)
        assert read.expert_map_with_shared(rank, 2).tolist() == stated.expert_map_with_shared(rank, 2)
        assert read.expert_mask(rank, 2).tolist() == stated.expert_mask(rank, 2)
    assert not hasattr(read, "expert_map_with_sentinel")
    assert not hasattr(read, "offsets")


def test_an_expert_that_no_rank_names_has_no_owner() -> None:
    class Nothing(LocalExpertIds):
        ask: ClassVar[Any] = staticmethod(lambda *_: set())

    with pytest.raises(LookupError, match="no rank names expert 0"):
        Nothing(1, 2, "linear").owner(0)


def test_right_partitions_break_nothing_but_what_is_passed_on() -> None:
    """Like the engines' functions the right ones for tests refuse little."""
    ids, maps = {"wrong_partitions_are_refused"}, {"wrong_partitions_are_refused", "wrong_shared_experts_are_refused"}
    for strategy in ("linear", "round_robin"):
        of_map = set(broken(fake("FakeMap", "vllm:ExpertMap", strategy), **SMALL))
        assert of_map - maps == {"answers_every_query"}
        of_ids = set(broken(fake("FakeIds", "vllm:LocalExpertIds", strategy), **SMALL))
        assert of_ids - ids == {"answers_every_query"}
        assert set(broken(fake("FakeMapOrAll", "vllm:ExpertMapOrAll", strategy), **SMALL)) <= maps
        assert set(broken(fake("FakeIdsOrAll", "vllm:LocalExpertIdsOrAll", strategy), **SMALL)) <= ids


def test_a_wrong_map_is_rejected_by_name_with_a_call_that_shows_it() -> None:
    found = broken(fake("WrongMap", "vllm:ExpertMap"), **SMALL)
    assert {"balanced_within_one", "larger_shares_first", "agrees_with_seed", "smallest_possible_maximum"} <= set(found)
    for law, example in found.items():
        assert eval(example.call(), {"expert_placement_spec": expert_placement_spec}) is False, law


@pytest.mark.parametrize(("attribute", "law"), [("InTurn", ""), ("LeavesOutTheLast", "plan_leaves_no_expert_out")])
def test_a_wrong_plan_is_rejected_by_name(attribute: str, law: str) -> None:
    found = broken(fake(attribute, "vllm:EplbPolicy"), **SMALL)
    assert {"deepseek_is_followed_exactly", "deepseek_refuses_what_it_can_not_plan", "wrong_calls_are_refused"} <= set(
        found
    )
    assert ("plan_leaves_no_expert_out" in found) == bool(law)
    for name, example in found.items():
        assert eval(example.call(), {"expert_placement_spec": expert_placement_spec}) is False, name


def test_planners_give_the_engines_what_they_ask_for() -> None:
    given: list[Any] = []

    def seen(*arguments: Any) -> Any:
        given.append(arguments)
        return [["a table"]]

    def of(adapter: Any) -> Any:
        return type("Seen", (adapter,), {"ask": staticmethod(seen)})

    loads, nodes = [[3.0, 1.0, 2.0, 0.0]], Topology(4, 2)
    assert of(EplbPolicy).rebalance(loads, 8, nodes, "deepseek", 2).rows == [["a table"]]
    assert given[-1][1:] == (8, 2, 2, 4, None)
    assert given[-1][0].tolist() == loads
    of(EplbPolicy).rebalance(loads, 4, nodes, "balanced", 1, previous=Table([[0, 1, 2, 3]]))
    assert given[-1][5].tolist() == [[0, 1, 2, 3]]
    assert of(Eplb).rebalance(loads, 8, nodes, "deepseek", 2).rows == ["a table"]
    assert given[-1][1:] == (8, 2, 2, 4, True)
    of(Eplb).rebalance(loads, 8, nodes, "deepseek", 1)
    assert given[-1][1:] == (8, 1, 2, 4, False)
    of(EplbInChunks).rebalance([loads, loads], 8, nodes, "deepseek", 2)
    assert (given[-1][0].shape, given[-1][1:]) == ((2, 1, 4), (8, 2, 2, 2, True))
    of(EplbAfterFailures).rebalance(loads, 8, Topology(2, active=[True, False]), "balanced", 1)
    assert given[-1][1:5] == (8, 1, 1, 2)
    assert given[-1][6].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (Topology(2, slots_per_rank=[1, 3]), "takes no slots and no speeds of ranks"),
        (Topology(2, speeds=[1.0, 2.0]), "takes no slots and no speeds of ranks"),
        (Topology(2, active=[True, False]), "takes no ranks out of service"),
    ],
)
def test_what_a_function_has_no_parameter_for_is_never_left_out(topology: Topology, message: str) -> None:
    for adapter in (InTurn, Eplb, EplbInChunks):
        # No law takes a TypeError for a refusal.
        with pytest.raises(TypeError, match=message):
            adapter.rebalance([[1.0, 1.0]], 4, topology)
    with pytest.raises(TypeError, match="takes no budget"):
        InTurn.rebalance([[1.0, 1.0]], 4, Topology(2), max_moves=1)
    with pytest.raises(ValueError, match="policy=`nonsense` is unknown, expected one of balanced, deepseek"):
        InTurn.rebalance([[1.0, 1.0]], 4, Topology(2), policy="nonsense")


def test_laws_are_looked_at_over_cases_that_functions_take() -> None:
    for subject in SUBJECTS:
        if subject.chapter == "balance":
            taken = [case for case in (subject.taken(REFUSING, one) for one in indivisible()) if case is not None]
            assert len(taken) > 100
            assert all(case.topology.slots_per_rank is None for case in taken)
            assert [subject.taken(PLANNING, case) for case in taken] == [None] * len(taken)
    assert len(KINDS) == 3


def test_every_law_is_looked_at_or_has_a_reason() -> None:
    findings = look(fake("InTurn", "vllm:EplbPolicy"), **SMALL)
    assert [one.outcome.invariant for one in findings] == list(expert_placement_spec.CHAPTERS["balance"].laws)
    for one in findings:
        assert bool(one.why_not) == (one.outcome.result == "not offered"), one
        assert one.outcome.result != "no cases", one


# Where the sources come from.


def test_functions_are_cut_out_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "src" / "engine"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text("import a_gpu\n\ndef helper(x: Unknown):\n    return x + 1\n", encoding="utf-8")
    (folder / "two.py").write_text("class Policy:\n    @staticmethod\n    def plan(x):\n        return helper(x)\n")
    monkeypatch.setenv(sources.ENVIRONMENT, str(tmp_path))
    plan = sources.EngineFunction("engine", "Policy.plan", (("one.py", ("helper",)), ("two.py", ("Policy",))))
    assert plan.is_at_hand()
    assert plan(1) == 2
    assert plan.version().startswith("SHA-256 ")
    with pytest.raises(ValueError, match=r"`.*one.py` defines no other$"):
        sources.EngineFunction("engine", "other", (("one.py", ("other",)),))()
    absent = sources.EngineFunction("engine", "x", (("three.py", ("x",)),))
    assert not absent.is_at_hand()
    with pytest.raises(ValueError, match=r"^the source of x is not at hand: there is no file `.*three.py`$"):
        absent()
    monkeypatch.delenv(sources.ENVIRONMENT)
    with pytest.raises(ValueError, match="EXPERT_PLACEMENT_ENGINES names no folder with the engines' sources"):
        plan(1)


def test_wheels_are_fetched_once_and_their_python_files_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def pip(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(arguments[-1])
        name, version = arguments[-1].split("==")
        with zipfile.ZipFile(Path(arguments[-2]) / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/_version.py", f"__version__ = version = '{version}'\n")
            wheel.writestr(f"{name}/library.so", "not unpacked")
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    for _ in range(2):
        sources.fetch(tmp_path)
    assert asked == [f"{name}=={version}" for name, version in sources.WHEELS.items()]
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {f"src/{name}/{name}/_version.py" for name in sources.WHEELS}
    monkeypatch.setenv(sources.ENVIRONMENT, str(tmp_path))
    assert sources.EngineFunction("vllm", "f", (("f.py", ("f",)),)).version() == sources.WHEELS["vllm"]


def test_a_failed_download_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "one\nERROR: no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match=r"^pip did not download vllm==.*: ERROR: no network$"):
        sources.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_engines_is_refused(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "expert_placement_spec", "engines", "--sources", str(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert "has no files of an engine, expected src/vllm or src/sglang, or --fetch" in result.stderr


# What is reported.


def test_the_page_shows_the_record() -> None:
    page = (DOCS / record.PAGE).read_text(encoding="utf-8")
    reasons = record.reasons_of(read_deviations(command.DEVIATIONS))
    assert record.part_of(page) == record.as_markdown(list(RECORDED.values()), reasons)
    assert record.with_part(page, record.part_of(page)) == page
    with pytest.raises(ValueError, match="the page lacks the lines"):
        record.with_part("no page", "part")


def test_the_declared_deviations_are_those_of_the_record() -> None:
    declared = {one.key for one in read_deviations(command.DEVIATIONS)}
    recorded = {
        (one["implementation"], law)
        for one in RECORDED.values()
        for law, found in one["laws"].items()
        if found["result"] == "broken"
    }
    assert recorded == declared


def test_the_record_is_of_every_function_that_a_wheel_has() -> None:
    titles = [one.title for one in SUBJECTS]
    assert len(set(titles)) == len(titles)
    assert [one.title for one in SUBJECTS if one.function.engine in sources.WHEELS] == [
        title for title, one in RECORDED.items() if one["engine"] != "DeepSeek"
    ]
    for one in RECORDED.values():
        assert one["version"] in (*sources.WHEELS.values(),) or one["engine"] == "DeepSeek"


def test_what_is_not_declared_and_what_no_longer_applies_are_told() -> None:
    subject = next(one for one in SUBJECTS if one.attribute == "vllm:EplbPolicy")
    findings = [Finding(Outcome(subject.implementation, "plan_leaves_no_expert_out", cases=3))]
    known = Deviation(subject.implementation, "balance", "plan_leaves_no_expert_out", "known")
    other = replace(known, implementation=f"{subject.implementation}s")
    assert list(command.unexpected([(subject, findings)], [])) == []
    (stale,) = command.unexpected([(subject, findings)], [known])
    assert stale.startswith("a declared deviation no longer applies: plan_leaves_no_expert_out of ")
    with pytest.raises(ValueError, match="which is not checked"):
        list(command.unexpected([(subject, findings)], [other]))
    wrong = fake("LeavesOutTheLast", "vllm:EplbPolicy")
    found = [one for one in look(wrong, **SMALL) if one.outcome.invariant == "plan_leaves_no_expert_out"]
    (sentence,) = command.unexpected([(wrong, found)], [])
    assert sentence.startswith(
        f"not declared: {wrong.implementation} breaks plan_leaves_no_expert_out: expert_placement"
    )


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    assert record.read_record(tmp_path) == []
    for text in ("{", "{}", "[]"):
        (tmp_path / record.JSON_FILE).write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="is no record of engines"):
            record.read_record(tmp_path)


def test_a_record_is_written_as_it_is_read(tmp_path: Path) -> None:
    page = (DOCS / record.PAGE).read_text(encoding="utf-8")
    (tmp_path / record.PAGE).write_text(record.with_part(page, "nothing yet"), encoding="utf-8")
    reasons = record.reasons_of(read_deviations(command.DEVIATIONS))
    record.write_record(tmp_path, list(RECORDED.values()), reasons)
    assert (tmp_path / record.PAGE).read_text(encoding="utf-8") == page
    for folder in (tmp_path, DOCS):
        assert json.loads((folder / record.JSON_FILE).read_text(encoding="utf-8"))["functions"] == list(
            RECORDED.values()
        )


# The engines' own functions.


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with the engines' files."""
    named = [Path(os.environ[name]) for name in ("PEERS_DIR", "PEERS") if os.environ.get(name)]
    at_hand = [folder for folder in named if all((folder / "src" / engine).is_dir() for engine in sources.WHEELS)]
    if not at_hand:
        pytest.skip("neither PEERS_DIR nor PEERS names a folder with src/vllm and src/sglang")
    monkeypatch.setenv(sources.ENVIRONMENT, str(at_hand[0]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield at_hand[0]
    torch.set_num_threads(threads)


@pytest.mark.parametrize("subject", [pytest.param(one, id=one.title) for one in SUBJECTS])
def test_the_engines_do_what_is_recorded(engines: Path, subject: Subject) -> None:
    """Domain: as the record says, but partitions up to 12 experts and 8 ranks, and 60 random cases."""
    if not subject.function.is_at_hand():
        pytest.skip(f"not at hand: {subject.title}")
    recorded = RECORDED[subject.title]
    if subject.function.version() != recorded["version"]:
        pytest.skip(f"recorded of {recorded['version']}, at hand is {subject.function.version()}")
    found = results(look(subject, shapes=(12, 8), examples=60))
    assert found == {law: one["result"] for law, one in recorded["laws"].items()}


@pytest.mark.filterwarnings("ignore")
def test_every_recorded_counterexample_shows_again(engines: Path) -> None:
    shown = 0
    for one in RECORDED.values():
        if one["engine"] == "DeepSeek":
            continue
        for law, found in one["laws"].items():
            if "counterexample" in found and (one["implementation"], law) not in DEPENDS_ON_THE_PROCESSOR:
                assert eval(found["counterexample"], {"expert_placement_spec": expert_placement_spec}) is False, law
                shown += 1
    assert shown >= 20
