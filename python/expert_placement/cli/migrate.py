"""`expert-placement migrate`: from one placement to another, in batches, bytes and time."""

from __future__ import annotations

import math
import re
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
    from collections.abc import Iterator

    from expert_placement.cli.transfers import Transfers

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
        help="Weights of one expert in one layer, as 44040192, 44MB or 42MiB.",
        metavar="BYTES",
    ),
    bandwidth: float | None = typer.Option(
        None, "--bandwidth", help="What a rank sends and receives at once, each, in GB/s.", metavar="GB/S"
    ),
    as_json: bool = options.AS_JSON,
) -> None:
    """The options of `expert-placement migrate`."""
    from expert_placement.cli.planning import need_torch, read_placement
    from expert_placement.cli.transfers import transfers

    size = None if bytes_per_expert is None else _bytes(bytes_per_expert)
    if bandwidth is not None:
        if not (math.isfinite(bandwidth) and bandwidth > 0):
            raise Refused(f"bandwidth={bandwidth:g} is out of range, expected a finite number of GB/s above 0")
        if size is None:
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
    plan = transfers(*placements)
    if as_json:
        write_json(_fields(plan, size, bandwidth))
    else:
        _write(plan, size, bandwidth, f"from `{printable(old)}` to `{printable(new)}`", Paper())


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


def _fields(plan: Transfers, size: int | None, bandwidth: float | None) -> dict[str, object]:
    from expert_placement.cli.transfers import traffic

    migration = plan.migration
    experts = traffic(plan)
    fields: dict[str, object] = {
        "num_moves": migration.num_moves,
        "num_transfers": plan.num_transfers,
        "num_transfers_between_nodes": plan.num_between_nodes,
        "num_copies": migration.num_moves - plan.num_transfers,
        "num_batches": migration.num_batches,
        "num_staged": migration.num_staged,
        "is_interruption_safe": migration.is_interruption_safe,
        "sent_experts": experts.sent.tolist(),
        "received_experts": experts.received.tolist(),
    }
    if size is not None:
        carried = traffic(plan, size)
        fields |= {
            "bytes_per_expert": size,
            "num_bytes": plan.num_transfers * size,
            "num_staged_bytes": migration.num_staged * size,
            "sent_bytes": carried.sent.tolist(),
            "received_bytes": carried.received.tolist(),
        }
        if bandwidth is not None:
            fields |= {"bandwidth_gb_per_s": bandwidth, "seconds": carried.seconds(bandwidth * 1e9)}
    fields |= {
        "moves": plan.moves.tolist(),
        "batches": migration.batches.tolist(),
        "write_batches": migration.write_batches.tolist(),
    }
    return fields


def _write(plan: Transfers, size: int | None, bandwidth: float | None, names: str, paper: Paper) -> None:
    from expert_placement.cli.transfers import traffic

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

    def in_bytes(count: int) -> str:
        return "" if size is None else bytes_as_text(count * size)

    between_nodes = plan.num_between_nodes
    rows = [
        ("moves, slots that get another expert", migration.num_moves, ""),
        ("copies inside a rank", migration.num_moves - plan.num_transfers, ""),
        ("transfers between ranks", plan.num_transfers, in_bytes(plan.num_transfers)),
        *([("  of these between nodes", between_nodes, in_bytes(between_nodes))] if plan.node.max() else []),
        ("staged on a rank at most", migration.num_staged, in_bytes(migration.num_staged)),
        ("batches", migration.num_batches, ""),
    ]
    cells = [(name, f"{count:,}", text) for name, count, text in rows]
    if size is not None and bandwidth is not None:
        seconds = traffic(plan, size).seconds(bandwidth * 1e9)
        cells.append((f"time at {bandwidth:g} GB/s, copies not counted", "", seconds_as_text(seconds)))
    paper.table(("", "count", "" if size is None else "size or time"), cells, left=(0,))
    paper.heading("what each rank sends and receives, in experts" + ("" if size is None else " and bytes"))
    paper.table(("rank", "sends", "receives", *(() if size is None else ("sends", "receives"))), _rank_rows(plan, size))


def _rank_rows(plan: Transfers, size: int | None) -> Iterator[tuple[str, ...]]:
    from expert_placement.cli.transfers import traffic

    experts = traffic(plan)
    counts = list(zip(experts.sent.tolist(), experts.received.tolist(), strict=True))

    def row(name: str, sent: int, received: int) -> tuple[str, ...]:
        in_bytes = () if size is None else (bytes_as_text(sent * size), bytes_as_text(received * size))
        return (name, f"{sent:,}", f"{received:,}", *in_bytes)

    head, left_out, tail = middle_left_out(list(enumerate(counts)))
    for rank, (sent, received) in head:
        yield row(str(rank), sent, received)
    if left_out:
        yield ("...", f"{many(left_out, 'more rank')}, all of them with --json")
    for rank, (sent, received) in tail:
        yield row(str(rank), sent, received)
    yield row("most", int(experts.sent.max()), int(experts.received.max()))
