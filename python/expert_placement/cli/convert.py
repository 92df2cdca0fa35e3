"""`expert-placement convert`: a placement from one engine's file to another's."""

from __future__ import annotations

import re
from dataclasses import dataclass

import typer

from expert_placement import Topology, formats
from expert_placement.cli import options
from expert_placement.cli.errors import Refused, refusing
from expert_placement.cli.output import Paper, expect_output, write_json
from expert_placement.cli.words import many
from expert_placement.formats.json_object import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from expert_placement.placement import Placement

__all__ = ["HELP", "command"]

# A paragraph a line: typer keeps line breaks.
HELP = "\n\n".join(
    (
        "A placement from one file to another: our own, or one that an engine reads.",
        f"Formats: {', '.join(formats.FORMATS)}. That of INPUT is told by its content, that of OUTPUT by --to. "
        "`sglang` is the file of --init-expert-location, `deepseek` the tables phy2log, log2phy and logcnt, "
        "`vllm_ascend` the expert map, and `tensorrt_llm` the YAML of moe_config.load_balancer.",
        "`sglang` has a row for each layer of the model and `tensorrt_llm` the ids of those with experts; the others "
        "count layers with experts alone. --layers says which they are where experts begin late: DeepSeek-V3 has "
        "--layers 3-60 of --hidden-layers 61.",
        "What a format has no way to say, as an empty slot or ranks with different numbers of slots, is an error.",
        "[bold]Examples[/bold]",
        "  expert-placement convert plan.json location.json --to sglang",
        "  expert-placement convert plan.json eplb.yaml --to tensorrt_llm --layers 3-60",
        "  expert-placement convert location.json map.json --to vllm_ascend --ranks 32 --layers 3-60",
        "  expert-placement convert map.json plan.json --to native --experts 256 --ranks 32 --nodes 4 --json",
    )
)

_SPAN = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


@dataclass(frozen=True, slots=True)
class _Converted:
    """What was read and written.

    Attributes:
        placement: it.
        source: the format of the file that was read.
        target: the format of the file that was written.
        layer_ids: the model's layer of each layer of the placement, where that is known or was written.
        are_layers_assumed: whether nobody said so, and they were written as 0, 1, 2, ..
    """

    placement: Placement
    source: str
    target: str
    layer_ids: tuple[int, ...] | None
    are_layers_assumed: bool

    def lost(self) -> dict[str, str]:
        """What the new file does not hold: what it is called in Python, and in words."""
        topology = self.placement.topology
        left_out = {}
        if self.target != "native":
            if topology.num_nodes > 1:
                left_out["num_nodes"] = many(topology.num_nodes, "node")
            if topology.speeds is not None:
                left_out["speeds"] = "the speeds of the ranks"
        ids = self.layer_ids
        if self.target not in formats.LAYERED and ids is not None and ids != tuple(range(len(ids))):
            left_out["layer_ids"] = f"that the layers are {_spans(ids)} of the model"
        return left_out


def _complete_format(incomplete: str) -> list[str]:
    return [name for name in formats.FORMATS if name.startswith(incomplete)]


def command(
    source: str = typer.Argument(..., help="The placement to read.", metavar="INPUT", show_default=False),
    target: str = typer.Argument(..., help="The file to write.", metavar="OUTPUT", show_default=False),
    from_format: str | None = typer.Option(
        None,
        "--from",
        help="Format of INPUT; by its content without it.",
        metavar="FORMAT",
        autocompletion=_complete_format,
    ),
    to_format: str | None = typer.Option(
        None,
        "--to",
        help="Format of OUTPUT; by its suffix without it, where that says it.",
        metavar="FORMAT",
        autocompletion=_complete_format,
    ),
    experts: int | None = typer.Option(
        None, "--experts", help="Number of logical experts, E; checked, or the largest id says it.", metavar="E"
    ),
    ranks: int | None = typer.Option(
        None, "--ranks", help="Number of ranks, R, where INPUT does not say it.", metavar="R"
    ),
    nodes: int | None = options.NODES,
    layers: str | None = typer.Option(
        None, "--layers", help="The model's layers of the placement, as 3-60 or 1,3,5.", metavar="LAYERS"
    ),
    hidden_layers: int | None = typer.Option(
        None, "--hidden-layers", help="Layers of the model, dense ones included, for `sglang`.", metavar="N"
    ),
    as_json: bool = options.AS_JSON,
) -> None:
    """The options of `expert-placement convert`."""
    expect_output("OUTPUT", target, {"INPUT": source})
    asked = None if layers is None else _layer_ids(layers)
    with refusing():
        to = formats.format_of(target) if to_format is None else to_format
        found = formats.recognise(source) if from_format is None else from_format
        read = formats.read_layers(source, found, experts, _topology(found, ranks, nodes), layer_ids=asked)
    _expect_ranks(source, read.placement, ranks, nodes)
    ids = read.layer_ids
    if ids is None and to in formats.LAYERED:
        ids = tuple(range(read.placement.num_layers))
    with refusing():
        formats.write(
            read.placement,
            target,
            to,
            layer_ids=ids if to in formats.LAYERED else None,
            num_hidden_layers=hidden_layers,
        )
    converted = _Converted(read.placement, found, to, ids, ids != read.layer_ids)
    if as_json:
        write_json(_fields(converted, source, target))
    else:
        _write(converted, source, target, Paper())


def _layer_ids(text: str) -> list[int]:
    ids: list[int] = []
    for part in text.split(","):
        match = _SPAN.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if last < first or (ids and first <= ids[-1]):
            raise Refused(f"layers=`{printable(text[:80])}` is no ascending list of layers, expected as 3-60 or 1,3,5")
        ids += range(first, last + 1)
    return ids


def _topology(source: str, ranks: int | None, nodes: int | None) -> Topology | None:
    """The ranks of a file that does not say them all."""
    if ranks is None:
        if nodes is not None:
            raise Refused("--nodes says how --ranks are grouped, which is not given")
        if source in formats.FORMATS and source not in formats.RANKED:
            raise Refused(f"a file of `{source}` does not say how many ranks there are, expected --ranks")
        return None
    # Our own file holds more of them than there are options, and is compared afterwards.
    return None if source == "native" else Topology(ranks, 1 if nodes is None else nodes)


def _expect_ranks(source: str, placement: Placement, ranks: int | None, nodes: int | None) -> None:
    topology = placement.topology
    for name, asked, found in (("ranks", ranks, topology.num_ranks), ("nodes", nodes, topology.num_nodes)):
        if asked is not None and asked != found:
            raise Refused(
                f"`{printable(source)}`: the placement is on {many(found, name[:-1])}, and --{name} is {asked}"
            )


def _fields(converted: _Converted, source: str, target: str) -> dict[str, object]:
    placement = converted.placement
    return {
        "input": source,
        "from": converted.source,
        "output": target,
        "to": converted.target,
        "num_layers": placement.num_layers,
        "num_experts": placement.num_experts,
        "num_slots": placement.num_slots,
        "num_ranks": placement.num_ranks,
        "num_nodes": placement.topology.num_nodes,
        "layer_ids": converted.layer_ids,
        "digest": placement.digest(),
        "lost": list(converted.lost()),
    }


def _write(converted: _Converted, source: str, target: str, paper: Paper) -> None:
    placement = converted.placement
    sizes = f"{many(placement.num_layers, 'layer')} of {many(placement.num_experts, 'expert')}"
    nodes = f" of {many(placement.topology.num_nodes, 'node')}" if placement.topology.num_nodes > 1 else ""
    paper.line(f"{sizes} in {many(placement.num_slots, 'slot')} on {many(placement.num_ranks, 'rank')}{nodes}")
    if converted.layer_ids is not None:
        why = ", as neither the file nor --layers says otherwise" if converted.are_layers_assumed else ""
        paper.line(f"layers {_spans(converted.layer_ids)} of the model{why}")
    paper.line(f"from {converted.source}, `{printable(source)}`")
    paper.line(f"to {converted.target}, `{printable(target)}`")
    paper.line(f"digest {placement.digest()}")
    for words in converted.lost().values():
        paper.line(f"Not in the new file: {words}.")


def _spans(ids: tuple[int, ...]) -> str:
    """Layers as they are given on the command line, at most eight parts of them."""
    parts: list[list[int]] = []
    for layer in ids:
        if parts and layer == parts[-1][1] + 1:
            parts[-1][1] = layer
        else:
            parts.append([layer, layer])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in parts[:8]]
    return ",".join(shown) + (",.." if len(parts) > 8 else "")
