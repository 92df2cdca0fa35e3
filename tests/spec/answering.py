"""A program that speaks the line protocol in as many wrong ways as its first argument names, and in the right one.

It is started by tests/spec/test_lines.py, and imports nothing of the project.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

OFFERS = [f"partition.{name}" for name in ("count", "start", "owner", "local_index", "counts", "owners", "is_uniform")]


def start(strategy: str, experts: int, ranks: int, rank: int) -> int:
    if strategy == "round_robin":
        return rank
    if strategy == "proportional":
        return rank * experts // ranks
    return rank * (experts // ranks) + min(rank, experts % ranks)


def count(strategy: str, experts: int, ranks: int, rank: int) -> int:
    if strategy == "proportional":
        return start(strategy, experts, ranks, rank + 1) - start(strategy, experts, ranks, rank)
    return experts // ranks + (rank < experts % ranks)


def owner(strategy: str, experts: int, ranks: int, expert: int) -> int:
    if strategy == "round_robin":
        return expert % ranks
    if strategy == "proportional":
        return ((expert + 1) * ranks - 1) // experts
    larger = experts % ranks * (experts // ranks + 1)
    if expert < larger:
        return expert // (experts // ranks + 1)
    return experts % ranks + (expert - larger) // (experts // ranks)


def local_index(strategy: str, experts: int, ranks: int, expert: int) -> int:
    if strategy == "round_robin":
        return expert // ranks
    return expert - start(strategy, experts, ranks, owner(strategy, experts, ranks, expert))


def counted(way: str, strategy: str, experts: int, ranks: int, rank: int) -> Any:
    """The count, or what the wrong way makes of it."""
    if way == "rest-on-last":
        return experts // ranks + (experts % ranks if rank == ranks - 1 else 0)
    right = count(strategy, experts, ranks, rank)
    return {"float": float(right), "bool": right == 1, "text": str(right)}.get(way, right)


def content(way: str, request: dict[str, Any]) -> dict[str, Any]:
    call, strategy = request["call"], request.get("strategy", "linear")
    if call == "hello":
        protocol = 2 if way == "other-protocol" else 1
        offers = [*OFFERS, "partition.cuont"] if way == "unknown-offer" else OFFERS
        return {"answer": {"protocol": protocol, "offers": offers}}
    experts, ranks = request["num_experts"], request["num_ranks"]
    for num_experts in experts if isinstance(experts, list) else [experts]:
        if not 0 <= num_experts < 2**31:
            return {"error": {"kind": "value", "message": f"num_experts={num_experts} is out of range"}}
    for num_ranks in ranks if isinstance(ranks, list) else [ranks]:
        if not 1 <= num_ranks < 2**31:
            return {"error": {"kind": "value", "message": f"num_ranks={num_ranks} is out of range"}}
    if strategy not in ("linear", "round_robin", "proportional"):
        return {"error": {"kind": "value", "message": f"strategy=`{strategy}` is unknown"}}
    if call == "partition.is_uniform":
        return {"answer": experts % ranks == 0}
    if call == "partition.counts":
        return {"answer": [counted(way, strategy, experts, ranks, rank) for rank in range(ranks)]}
    if call == "partition.owners":
        return {"answer": [owner(strategy, experts, ranks, expert) for expert in range(experts)]}
    name = call.partition(".")[2]
    ids = request["ranks" if name in ("count", "start") else "experts"]
    points = list(zip(experts, ranks, ids, strict=True))
    for num_experts, num_ranks, one in points:
        end = num_ranks if name in ("count", "start") else num_experts
        if not 0 <= one < end and way != "clamps":
            kind = "fatal" if way == "unknown-kind" else "index"
            return {"error": {"kind": kind, "message": f"{one} is out of range, expected 0..{end}"}}
    if name == "count":
        answers = [counted(way, strategy, *point) for point in points]
        return {"answer": answers[:-1] if way == "short" else answers}
    function = {"start": start, "owner": owner, "local_index": local_index}[name]
    if way == "refuses":
        return {"error": {"kind": "value", "message": "no"}}
    return {"answer": [function(strategy, *point) for point in points]}


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def misbehave(way: str, identifier: int, line: bytes) -> bytes:
    """What is written in the place of the right line, or what is done in the place of writing."""
    if way == "dies":
        os._exit(3)
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "closes":
        os.close(1)
        time.sleep(600)
    if way == "hangs":
        time.sleep(600)
    if way == "half-a-line":
        write(line[:-5])
        time.sleep(600)
    if way == "endless":
        while True:
            write(b"0" * 65536)
    return {
        "garbage": b"Segmentation fault\n",
        "empty": b"\n",
        "latin": b'{"id":1,"answer":"caf\xe9"}\n',
        "deep": b"[" * 100_000 + b"\n",
        "repeated": b'{"id": %d, "answer": [0], "answer": [1]}\n' % identifier,
        "nan": json.dumps({"id": identifier, "answer": [float("nan")]}).encode() + b"\n",
        "list": b"[1,2]\n",
        "other-id": line.replace(f'"id": {identifier}'.encode(), f'"id": {identifier + 1}'.encode()),
        "text-id": line.replace(f'"id": {identifier}'.encode(), f'"id": "{identifier}"'.encode()),
        "both": line[:-2] + b', "error": {"kind": "value", "message": ""}}\n',
        "neither": json.dumps({"id": identifier}).encode() + b"\n",
        "no-message": json.dumps({"id": identifier, "error": {"kind": "value"}}).encode() + b"\n",
        "twice": line + line,
    }.get(way, line)


def main() -> None:
    way = sys.argv[1]
    if len(sys.argv) > 2:
        with open(sys.argv[2], "a", encoding="utf-8") as pids:
            print(os.getpid(), file=pids)
    if way == "early":
        write(b"good morning\n")
    if way == "at-once":
        sys.exit(4)
    answered = 0
    while True:
        text = sys.stdin.buffer.readline()
        if not text:
            if way == "stays":
                continue
            return
        request = json.loads(text)
        if way == "noisy":
            print("warning: a line of noise", file=sys.stderr, flush=True)
        line = json.dumps({"id": request["id"], **content(way, request)}).encode() + b"\n"
        # The wrong begins only once something is asked, so that a greeting shows nothing of it.
        write(misbehave(way, request["id"], line) if answered >= 3 else line)
        answered += 1
        if way == "later" and answered == 4:
            time.sleep(0.1)
            write(b"still here\n")


if __name__ == "__main__":
    main()
