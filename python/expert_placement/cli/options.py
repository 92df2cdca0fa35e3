"""Options that several commands share, each declared once."""

from __future__ import annotations

import typer

from expert_placement import POLICIES

__all__ = [
    "AS_JSON",
    "EXPERTS_OF_FILE",
    "GROUPS",
    "INACTIVE",
    "KEEP",
    "LOADS",
    "LOADS_HELP",
    "MAX_MOVES",
    "MAX_OFF_NODE",
    "MIN_GAIN",
    "NODES",
    "POLICIES",
    "POLICY",
    "PREVIOUS",
    "RANKS",
    "RANKS_OF_FILE",
    "REDUNDANT",
    "SLOTS",
    "SLOTS_PER_RANK",
    "SPEEDS",
    "THREADS",
    "complete_policy",
]

# What a simulation calls the policy that never moves anything.
KEEP = "none"

LOADS_HELP = (
    "Loads are counts of tokens for each expert: JSON \\[layers]\\[experts], or \\[windows]\\[layers]\\[experts] for "
    "windows of time, alone or in an object as `counts`, `counts_total`, `expert_popularity` or `logical_count`; or an "
    "array of that shape that numpy or torch saved."
)


def complete_policy(incomplete: str) -> list[str]:
    """The policies whose names begin so, for the shell."""
    return [policy for policy in POLICIES if policy.startswith(incomplete)]


LOADS = typer.Option(..., "--loads", help="Recorded loads, one table or one a window.", metavar="FILE")
RANKS = typer.Option(None, "--ranks", help="Number of ranks, R.", metavar="R")
RANKS_OF_FILE = typer.Option(
    None, "--ranks", help="Number of ranks, R, where an engine's file does not say it.", metavar="R"
)
EXPERTS_OF_FILE = typer.Option(
    None, "--experts", help="Number of experts, E, where an engine's file does not say it.", metavar="E"
)
NODES = typer.Option(None, "--nodes", help="Number of nodes that the ranks are on, 1 without other word.", metavar="N")
SLOTS = typer.Option(None, "--slots", help="Number of physical slots of a layer, P.", metavar="P")
REDUNDANT = typer.Option(None, "--redundant", help="Slots beyond one an expert, in place of --slots.", metavar="N")
SLOTS_PER_RANK = typer.Option(
    None, "--slots-per-rank", help="Slots of a rank: one number for all, or R of them, as 9,9,8.", metavar="N,N,.."
)
SPEEDS = typer.Option(None, "--speeds", help="R numbers: a rank of speed 2 carries twice the load.", metavar="X,X,..")
INACTIVE = typer.Option(
    [], "--inactive", help="Ranks out of service, as 3,5; `none` brings those of --previous back.", metavar="RANK,.."
)
GROUPS = typer.Option(1, "--groups", help="Groups of experts that the routing chooses among, G.", metavar="G")
POLICY = typer.Option(
    POLICIES[0],
    "--policy",
    help=f"How to plan: {' or '.join(POLICIES)}, the field's algorithm.",
    metavar="NAME",
    autocompletion=complete_policy,
)
PREVIOUS = typer.Option(
    None, "--previous", help="The placement to start from. It tells ranks and slots, too.", metavar="FILE"
)
MAX_MOVES = typer.Option(None, "--max-moves", help="Experts that may come to a rank, in all layers.", metavar="N")
MIN_GAIN = typer.Option(None, "--min-gain", help="What a move must save at least, of the mean times.", metavar="X")
MAX_OFF_NODE = typer.Option(
    None, "--max-off-node", help="Part of the load that may be served off the groups' nodes, 0 to 1.", metavar="X"
)
THREADS = typer.Option(1, "--threads", help="Threads that share the layers.", metavar="N")
AS_JSON = typer.Option(False, "--json", help="Write JSON, always whole.", metavar="")
