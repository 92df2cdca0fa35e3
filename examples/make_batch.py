"""Writes examples/data/olmoe-1b-7b/topk_ids.json: a batch of top-k expert ids that follows a recorded load.

No trace that may be shipped holds the ids of single tokens, so they are drawn: for each token eight different experts
of layer 7, each with the probability of its recorded count. Run it as `python examples/make_batch.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "data" / "olmoe-1b-7b"
TOKENS, TOP_K, LAYER, SEED = 128, 8, 7, 20261124


def main() -> None:
    """Draws the batch and writes it, one token a line."""
    trace = json.loads((FOLDER / "c4.json").read_text(encoding="utf-8"))
    counts = np.array(trace["counts"][trace["layers"].index(LAYER)], dtype=np.float64)
    draw = np.random.Generator(np.random.PCG64(SEED))
    rows = [draw.choice(len(counts), TOP_K, replace=False, p=counts / counts.sum()).tolist() for _ in range(TOKENS)]
    about = f"drawn by examples/make_batch.py from the recorded counts of layer {LAYER} in c4.json, seed {SEED}"
    lines = ",\n".join(f"    {row}" for row in rows)
    text = f'{{\n  "about": "{about}",\n  "layer": {LAYER},\n  "topk_ids": [\n{lines}\n  ]\n}}\n'
    (FOLDER / "topk_ids.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
