"""`expert-placement migrate`: from one placement to another, in batches, bytes and time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

import typer

from expert_placement import Topology
from expert_placement.cli import options
from expert_placement.cli.errors import Refused, refusing
from expert_placement.cli.output import Paper, write_json
from expert_placement.cli.words import bytes_as_text, many, middle_left_out, seconds_as_text
from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from expert_placement import Migration, Placement
    from expert_placement.cli.transfers import Sent

__all__ = ["HELP", "command"]

# A paragraph a line: typer keeps line breaks.
HELP = "\n\n".join(
    (
        "From one placement to another: what each rank sends and receives, in how many batches, and how long it takes.",
        "In a batch no rank sends twice or receives twice, so that a batch takes as long as one expert needs, in both "
        "directions at once. Copies inside a rank are no transfers, and the time does not count them.",
        "[bold]Examples[/bold]",
        "  expert-placement migrate old.json new.json",
        "  expert-placement migrate old.json new.json --bytes-per-expert 44MB --bandwidth 50",
        "  expert-placement migrate old.json new.json --max-staged 16 --max-node-transfers 8",
        "  expert-placement migrate old.json new.json --json | jq .num_batches",
    )
)

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?(Ki|Mi|Gi|k|M|G|)B?")
_MAX_BYTES = 2**53


def command(
    old: str = typer.Argument(..., help="The placement that is there.", metavar="OLD", show_default=False),
    new: str = typer.Argument(..., help="The placement that shall be.", metavar="NEW", show_default=False),
    ranks: int | None = options.RANKS_OF_FILE,
    nodes: int | None = options.NODES,
    experts: int | None = options.EXPERTS_OF_FILE,
    bytes_per_expert: str | None = typer.Option(
        None,
        "--bytes-per-expert",
        help="Weights of one expert in one layer, as 44040192, 44MB or 42MiB, or those of each layer, as 44MB,22MB.",
        metavar="BYTES,..",
    ),
    bandwidth: float | None = typer.Option(
        None, "--bandwidth", help="What a rank sends and receives at once, each, in GB/s.", metavar="GB/S"
    ),
    max_node_transfers: int | None = typer.Option(
        None, "--max-node-transfers", help="Transfers that leave a node, or enter it, in one batch.", metavar="N"
    ),
    max_staged: int | None = typer.Option(
        None, "--max-staged", help="Experts that a rank may keep beside its slots at a time.", metavar="N"
    ),
    as_json: bool = options.AS_JSON,
) -> None:
    """The options of `expert-placement migrate`."""
    from expert_placement import plan_migration
    from expert_placement.cli.planning import need_torch, read_placement

    sizes = None if bytes_per_expert is None else [_bytes(text) for text in bytes_per_expert.split(",")]
    if bandwidth is not None:
        if not (math.isfinite(bandwidth) and bandwidth > 0):
            raise Refused(f"bandwidth={bandwidth:g} is out of range, expected a finite number of GB/s above 0")
        if sizes is None:
            raise Refused("--bandwidth gives a time for --bytes-per-expert, which is not given")
    need_torch("migrate")
    if nodes is not None and ranks is None:
        raise Refused("--nodes says where the ranks of --ranks are, which is not given")
    with refusing():
        topology = None if ranks is None else Topology(ranks, nodes or 1)
    placements = [read_placement(path, experts, topology) for path in (old, new)]
    for path, placement in zip((old, new), placements, strict=True):
        _expect(path, "num_experts", placement.num_experts, experts)
        _expect(path, "num_ranks", placement.num_ranks, ranks)
        _expect(path, "num_nodes", placement.topology.num_nodes, nodes)
    with refusing():
        migration = plan_migration(*placements, max_node_transfers=max_node_transfers, max_staged=max_staged)
        plan = _counted(migration, placements[1], sizes, bandwidth)
    if as_json:
        write_json(_fields(plan))
    else:
        _write(plan, f"from `{printable(old)}` to `{printable(new)}`", Paper())


@dataclass(frozen=True, slots=True)
class _Plan:
    """A migration, and what it sends."""

    migration: Migration
    num_nodes: int
    num_between_nodes: int
    sizes: list[int] | None
    """Bytes of an expert, in each layer where there are several numbers."""
    experts: Sent
    bytes: Sent | None
    bandwidth: float | None

    @property
    def num_copies(self) -> int:
        return self.migration.num_moves - self.migration.num_transfers

    @property
    def seconds(self) -> float | None:
        if self.bytes is None or self.bandwidth is None:
            return None
        return self.bytes.seconds(self.bandwidth * 1e9)


def _counted(migration: Migration, new: Placement, sizes: list[int] | None, bandwidth: float | None) -> _Plan:
    from expert_placement.cli.transfers import count_transfers_between_nodes, sent

    return _Plan(
        migration,
        new.topology.num_nodes,
        count_transfers_between_nodes(migration, new),
        sizes,
        sent(migration),
        None if sizes is None else sent(migration, sizes[0] if len(sizes) == 1 else sizes),
        bandwidth,
    )


def _expect(path: str, name: str, found: int, asked: int | None) -> None:
    """Our own files say everything themselves, so that options can only be wrong about them."""
    if asked not in (None, found):
        raise Refused(f"`{printable(path)}`: {name} is {found}, expected {asked} as the option says")


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    size = Fraction(match[1]) * _UNITS[match[2] or ""] if match else Fraction(0)
    if not (1 <= size <= _MAX_BYTES and size.denominator == 1):
        raise Refused(
            f"bytes_per_expert=`{printable(text)}` is out of range, expected a whole number of 1 to {_MAX_BYTES} "
            "bytes, with kB, MB, GB, KiB, MiB or GiB after it or without"
        )
    return int(size)


def _fields(plan: _Plan) -> dict[str, object]:
    migration = plan.migration
    fields: dict[str, object] = {
        "num_moves": migration.num_moves,
        "num_transfers": migration.num_transfers,
        "num_transfers_between_nodes": plan.num_between_nodes,
        "num_copies": plan.num_copies,
        "num_batches": migration.num_batches,
        "num_staged": migration.num_staged,
        "is_interruption_safe": migration.is_interruption_safe,
        "sent_experts": plan.experts.sent.tolist(),
        "received_experts": plan.experts.received.tolist(),
    }
    if plan.bytes is not None:
        fields |= {
            "bytes_per_expert": plan.sizes,
            "num_bytes": plan.bytes.total,
            "sent_bytes": plan.bytes.sent.tolist(),
            "received_bytes": plan.bytes.received.tolist(),
        }
    if plan.seconds is not None:
        fields |= {"bandwidth_gb_per_s": plan.bandwidth, "seconds": plan.seconds}
    return fields | {
        "moves": migration.moves.tolist(),
        "batches": migration.batches.tolist(),
        "write_batches": migration.write_batches.tolist(),
    }


def _write(plan: _Plan, names: str, paper: Paper) -> None:
    migration = plan.migration
    paper.line(f"migration {names}")
    if migration.num_moves == 0:
        paper.line("Nothing moves: every slot holds what it shall hold.")
        return
    paper.line(
        "Safe to interrupt: after every batch each expert is whole in at least one slot."
        if migration.is_interruption_safe
        else "Not safe to interrupt: after some batch an expert is in no slot, only staged."
    )
    paper.line()
    rows = [
        ("moves, slots that get another expert", f"{migration.num_moves:,}", ""),
        ("copies inside a rank", f"{plan.num_copies:,}", ""),
        (
            "transfers between ranks",
            f"{migration.num_transfers:,}",
            "" if plan.bytes is None else bytes_as_text(plan.bytes.total),
        ),
        *([("  of these between nodes", f"{plan.num_between_nodes:,}", "")] if plan.num_nodes > 1 else []),
        ("staged on a rank at most", f"{migration.num_staged:,}", ""),
        ("batches", f"{migration.num_batches:,}", ""),
    ]
    if plan.seconds is not None:
        rows.append((f"time at {plan.bandwidth:g} GB/s, copies not counted", "", seconds_as_text(plan.seconds)))
    paper.table(("", "count", "" if plan.bytes is None else "size or time"), rows, left=(0,))
    units = (plan.experts,) if plan.bytes is None else (plan.experts, plan.bytes)
    paper.heading("what each rank sends and receives, in experts" + ("" if plan.bytes is None else " and bytes"))
    paper.table(("rank", *("sends", "receives") * len(units)), _rank_rows(units))


def _rank_rows(units: Sequence[Sent]) -> Iterator[tuple[str, ...]]:
    """A row for each rank, and one for the most, with what is sent and received in experts and perhaps in bytes."""
    columns = [column for unit in units for column in (unit.sent, unit.received)]
    ranks = list(enumerate(zip(*(column.tolist() for column in columns), strict=True)))

    def row(name: str, numbers: Sequence[int]) -> tuple[str, ...]:
        return (name, *map("{:,}".format, numbers[:2]), *map(bytes_as_text, numbers[2:]))

    head, left_out, tail = middle_left_out(ranks)
    for rank, numbers in head:
        yield row(str(rank), numbers)
    if left_out:
        yield ("...", f"{many(left_out, 'more rank')}, all of them with --json")
    for rank, numbers in tail:
        yield row(str(rank), numbers)
    yield row("most", [int(column.max()) for column in columns])
