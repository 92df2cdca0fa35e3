"""Ranks that are late, interrupted or unable to write: all write the same batches, or say that they do not know."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="weights are tensors")

from expert_placement import Migration, Placement, Topology, plan_migration
from expert_placement.distributed import DisagreementError, MigrationError, agree, migrate, placement_after
from expert_placement.distributed._groups import Members
from expert_placement.distributed._transfers import Transfers

from tests.distributed.running import new_group, on_ranks
from tests.distributed.test_migration import expect_state, local_part, of_experts, placements

if TYPE_CHECKING:
    from collections.abc import Callable

SLOTS, EXPERTS, SECONDS = (5, 4, 3), 8, 0.5


class Disturbed:
    """A rank of a migration that is disturbed in a confirmation: each batch has two, of votes and of what is heard."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.old, self.new = placements(5, EXPERTS, SLOTS)
        self.plan: Migration = plan_migration(self.old, self.new)
        assert self.plan.num_batches >= 3
        self.largest, self.decide, self.write = Members.largest, Members.decide, Transfers.write

    def run(self, call: int, act: Callable[[], None], who: int = 1) -> tuple[int, str, bool]:
        """How many batches this rank has written, what it raised, and whether it says that all stopped there."""
        genuine, calls = self.largest, 0

        def disturbed(members: Members, value: int, deadline: Any) -> int:
            nonlocal calls
            calls += 1
            if calls == call + 1:
                act()
            return genuine(members, value, deadline)

        if self.rank == who:
            Members.largest = disturbed  # type: ignore[assignment,method-assign]
        return self.migrated()

    def migrated(self) -> tuple[int, str, bool]:
        whole = of_experts(self.old)
        mine = local_part(whole, self.old, self.rank)
        # After what went wrong groups are not to be used again, and here none is.
        group, control = new_group(), new_group()
        try:
            migrate(mine, self.plan, group, control_group=control, timeout=SECONDS)
        except BaseException as raised:
            error = raised if isinstance(raised, MigrationError) else raised.__cause__
            assert isinstance(error, MigrationError)
            assert not error.is_usable
            again = pickle.loads(pickle.dumps(error))
            assert (str(again), vars(again)) == (str(error), vars(error))
            if not error.slots_torn:
                expect_state(self.old, self.plan, whole, mine, self.rank, error)
            self.error = error
            return error.batch, type(raised).__name__, error.is_agreed
        finally:
            Members.largest, Members.decide = self.largest, self.decide  # type: ignore[method-assign]
            Transfers.write = self.write  # type: ignore[method-assign]
        complete = MigrationError("", self.plan.num_batches, None, True, tuple(range(self.plan.num_layers)))
        expect_state(self.old, self.plan, whole, mine, self.rank, complete)
        return self.plan.num_batches, "", True


def sleeps() -> None:
    time.sleep(2.5 * SECONDS)


def interrupts() -> None:
    raise KeyboardInterrupt


def confirmed(rank: int) -> list[tuple[str, int, tuple[int, str, bool]]]:
    disturbed = Disturbed(rank)
    last = disturbed.plan.num_batches - 1
    return [
        ("late to the votes", last, disturbed.run(2 * last, sleeps)),
        ("late to what is heard", 2, disturbed.run(2 * 1 + 1, sleeps)),
        ("late to what is heard last", last + 1, disturbed.run(2 * last + 1, sleeps)),
        ("interrupted before the votes", 1, disturbed.run(2 * 1, interrupts)),
        ("interrupted before it hears", 2, disturbed.run(2 * 1 + 1, interrupts)),
    ]


def test_a_rank_that_is_late_or_interrupted_writes_what_the_others_write_and_no_more() -> None:
    """Domain: 3 ranks; before the votes of a batch and after them, in the middle and at the end."""
    for results in zip(*on_ranks(3, confirmed), strict=True):
        ((name, expected),) = {(name, expected) for name, expected, _ in results}
        said = [each for _, _, each in results]
        assert {batch for batch, _, _ in said} == {expected}, f"{name}: {said}"
        assert all(is_agreed for _, _, is_agreed in said), f"{name}: {said}"
        kinds = [kind for _, kind, _ in said]
        assert kinds[1] == ("KeyboardInterrupt" if name.startswith("interrupted") else kinds[1])
        assert {kinds[0], kinds[2]} == {"MigrationError"}, f"{name}: {said}"


def without_a_store(rank: int) -> tuple[bool, int]:
    """The one rank that is late comes when nobody can say what the others do: it writes nothing, and says so."""
    disturbed = Disturbed(rank)
    Members.decide = lambda *_: None  # type: ignore[method-assign]
    batch, _, is_agreed = disturbed.run(2 * 1, sleeps)
    return is_agreed, batch


def test_without_the_store_a_rank_that_is_not_heard_writes_nothing_and_does_not_say_that_it_knows() -> None:
    assert on_ranks(3, without_a_store) == [(False, 1)] * 3


def unwritten(rank: int) -> tuple[int, str, bool, str]:
    """Rank 1 cannot write what is due after the first batch, of which the others do not hear: it is found out."""
    disturbed = Disturbed(rank)

    def refuse(layer: int, slot: int) -> Any:
        raise OSError("no such memory")

    def fail(transfers: Transfers, batch: int) -> None:
        if batch and any(move.write_batch == batch for move, _, _ in transfers._held):
            transfers._local = refuse  # type: ignore[method-assign]
        disturbed.write(transfers, batch)

    if rank == 1:
        Transfers.write = fail  # type: ignore[assignment,method-assign]
    outcome = disturbed.migrated()
    error = disturbed.error
    held = placement_after(disturbed.old, disturbed.plan, error.batch)
    assert (error.slots_torn != ()) == (rank == 1)
    if rank == 1:
        assert isinstance(error.__cause__, OSError)
        assert "it could not be written: OSError: no such memory" in str(error)
        for layer, slot in error.slots_torn:
            assert f"slot {slot} of layer {layer}" in str(error)
    with pytest.raises(DisagreementError, match=r"ranks 0, 2 hold .*; rank 1 holds"):
        agree(held, new_group(), timeout=20)
    return (*outcome, str(error))


def test_what_cannot_be_written_is_named_and_the_others_find_out_that_placements_differ() -> None:
    first, second, third = on_ranks(3, unwritten)
    batch = second[0]
    assert batch > 0
    assert second[:3] == (batch, "MigrationError", False)
    assert first[:3] == third[:3] == (batch + 1, "MigrationError", True)


def test_a_placement_after_a_scale_up_has_the_ranks_in_service_that_were_written_to() -> None:
    active = [True, True, False]
    old = Placement.from_physical_to_logical([0, 1, 1, 0, -1, -1], 2, Topology(3, active=active, speeds=[1, 2, 3]))
    new = Placement.from_physical_to_logical([0, -1, 1, -1, 0, 1], 2, Topology(3))
    plan = plan_migration(old, new)
    assert placement_after(old, plan, 0) == old
    after = placement_after(old, plan, plan.num_batches)
    assert after.topology.active is None
    assert after.topology.speeds == (1.0, 2.0, 3.0)
    assert after.physical_to_logical().tolist() == [[0, 1, 1, 0, 0, 1]]
    whole = placement_after(old, plan, plan.num_batches, topology=Topology(3))
    assert whole.topology == Topology(3)
    with pytest.raises(ValueError, match="active"):
        placement_after(old, plan, plan.num_batches, topology=old.topology)
