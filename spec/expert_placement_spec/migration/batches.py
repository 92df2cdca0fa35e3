"""Transfers in batches in which no rank sends or receives twice. SPEC.md, "Batches".

Senders on one side, receivers on the other, each transfer an edge: batches are the colours of an edge colouring, and by
König's theorem the largest degree of the graph is enough of them. The proof is the algorithm.
"""

from __future__ import annotations


def fewest_batches(transfers: list[tuple[int, int]]) -> int:
    """The most transfers that one rank sends, or that one receives."""
    senders = [sender for sender, _ in transfers]
    receivers = [receiver for _, receiver in transfers]
    return max((side.count(rank) for side in (senders, receivers) for rank in side), default=0)


def colour(transfers: list[tuple[int, int]]) -> list[int]:
    """The batch of each transfer, as few batches as there can be."""
    number = fewest_batches(transfers)
    batches: list[int] = []
    for added, (sender, receiver) in enumerate(transfers):
        earlier = list(enumerate(transfers[:added]))
        sending = {batches[index]: index for index, transfer in earlier if transfer[0] == sender}
        receiving = {batches[index]: index for index, transfer in earlier if transfer[1] == receiver}
        of_sender = next(batch for batch in range(number) if batch not in sending)
        of_receiver = next(batch for batch in range(number) if batch not in receiving)
        # Along the path from the receiver whose transfers are in the two batches in turn, the batches are exchanged.
        # The path does not come by the sender, so that afterwards both ends are free in the sender's batch.
        path, side, rank, batch = [], 1, receiver, of_sender
        while True:
            following = [i for i, transfer in earlier if transfer[side] == rank and batches[i] == batch]
            if not following:
                break
            path += following
            side = 1 - side
            rank, batch = transfers[following[0]][side], of_sender + of_receiver - batch
        for index in path:
            batches[index] = of_sender + of_receiver - batches[index]
        batches.append(of_sender)
    return batches


def split(batches: list[int], ends: list[tuple[int, int]], limit: int) -> list[int]:
    """Other batches, in which so many transfers at most leave any node, and enter any.

    Of each batch the transfers between nodes are coloured by themselves, with nodes in the place of ranks, and `limit`
    colours make a batch. There are as few colours as there can be, and so there are as few batches.
    """
    others = list(batches)
    first = 0
    for batch in sorted(set(batches)):
        members = [index for index, one in enumerate(batches) if one == batch]
        between_nodes = [index for index in members if ends[index][0] != ends[index][1]]
        for index in members:
            others[index] = first
        for index, part in zip(between_nodes, colour([ends[index] for index in between_nodes]), strict=True):
            others[index] = first + part // limit
        first = max(others[index] for index in members) + 1
    return others
