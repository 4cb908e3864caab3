"""How far `unlike` moves what is not wanted, and what is wanted with it, by the weight it has; on the bundled demo.

python tests/benchmarks/bench_query_mix.py
"""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import numpy as np

from mcp_server.config import load_settings
from mcp_server.engine import query_vectors
from mcp_server.engine.opening import open_engine

WORDS = [
    "animal",
    "fruit",
    "vegetable",
    "flag",
    "car",
    "person",
    "house",
    "tree",
    "flower",
    "bird",
    "fish",
    "face",
    "hand",
    "heart",
    "clock",
    "tool",
    "sport ball",
    "musical instrument",
    "drink",
    "bread",
    "hat",
    "shoe",
    "boat",
    "train",
    "sign",
    "weather",
    "star",
    "moon",
    "plant",
    "insect",
]
WEIGHTS = (0.15, 0.25, 0.35, 0.5, 0.75)


def main() -> None:
    print("weight  unwanted: median rank without -> with   wanted still among the first 20   mean cosine to the text kept")
    with closing(open_engine(load_settings(), Path(":memory:"), math.inf)) as engine, engine.shelf.using("demo") as collection:
        vectors = collection.index.vectors(np.arange(collection.index.size))
        none = np.empty((0, vectors.shape[1]), np.float32)
        for weight in WEIGHTS:
            query_vectors.UNLIKE = weight
            ranks, stayed, kept = [], [], []
            for word in WORDS:
                text = collection.encoder.encode_text(word).vector
                plain = vectors @ text
                first = np.argsort(-plain)
                for unwanted in first[:10:3]:
                    query = query_vectors.compose([(text, 1.0)], none, vectors[[unwanted]], collection.sample).vector
                    mixed = np.argsort(-(vectors @ query))
                    before, after = np.argsort(first), np.argsort(mixed)
                    near = vectors @ vectors[unwanted]
                    alike = [row for row in np.argsort(-near)[1:6] if before[row] < 50]
                    wanted = [row for row in first[:20] if row != unwanted and near[row] < 0.6]
                    if alike:
                        ranks.append((np.median(before[alike]), np.median(after[alike])))
                    if wanted:
                        stayed.append(np.mean(after[wanted] < 20))
                    kept.append(plain[mixed[:10]].mean() / plain[first[:10]].mean())
            without, moved = np.median(np.array(ranks), axis=0)
            print(f"{weight:>6}  {without:>20.0f} -> {moved:<18.0f}   {np.mean(stayed):>20.1%}   {np.mean(kept):>30.1%}")


if __name__ == "__main__":
    main()
