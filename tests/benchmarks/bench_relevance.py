"""How well `rel` tells what is there from what is not, on the bundled demo; with --write FILE keeps the demo's scale.

python tests/benchmarks/bench_relevance.py [--write data/demo/relevance.json]
"""

from __future__ import annotations

import argparse
import json
import math
import random
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from mcp_server.config import load_settings
from mcp_server.domain.search import SearchRequest, WeightedText
from mcp_server.engine.opening import open_engine
from mcp_server.engine.relevance import measure
from mcp_server.stores.relevance_file import cached_file

UNRELATED = """
revenue grew by four percent in the third quarter|an appeal against the tax assessment|the proof is left as an exercise
please find attached the signed agreement|metaphysics of causation|the ministry published a statement|depreciation of fixed assets
an annual report of a pension fund|warranty void if removed|he resigned for personal reasons|gdpr compliance checklist
tcp congestion control|a fourier transform|eigenvalue decomposition|shareholder meeting minutes|mortgage approval letter
the dative case in german|a budget deficit|an optimal stopping problem|credit default swaps|a vector space over the reals
macroeconomic equilibrium|subordinate clause|the referendum result was contested|insurance premium calculation
an mri scan of a knee|an oscilloscope trace|a hydroelectric dam|a power substation|a coal mine entrance|surgical instruments on a tray
refugee camp tents|blast furnace|the stratosphere ozone measurements|a textile mill in eighteen ninety|a lawyer reading a file
quarterly revenue forecast|value added tax return|a memorandum of understanding|minutes of the board meeting
"""
PARAPHRASES = {
    "a fruit that is red and round": "apple",
    "a big grey animal with a trunk": "elephant",
    "man's best friend": "dog",
    "a vehicle with two wheels and pedals": "bicycle",
    "frozen dessert in a cone": "ice cream",
    "a yellow fruit that monkeys eat": "banana",
    "the star that shines by day": "sun",
    "a house made of snow": "igloo",
}
WORDS = """
cat dog apple car tree house star heart clock phone book ship bird fish flower sun moon bus key cup horse boat train airplane
bicycle hat shoe guitar drum ball cake pizza bread cheese banana grapes lemon cow pig chicken frog snake lion bear elephant rabbit
mouse spider bee butterfly rose mountain cloud rainbow umbrella snowman flag hand foot eye ear nose mouth baby man woman king
police doctor chef farmer dancer computer camera television lamp chair bed door window hammer scissors pencil envelope globe
rocket bomb skull ghost alien robot
"""
HITS = 10


def nonsense(count: int) -> list[str]:
    rng = random.Random(3)
    words = ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(4, 9))) for _ in range(2 * count)]
    return [f"{first} {second}" for first, second in zip(words[::2], words[1::2], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    settings = load_settings()
    with closing(open_engine(settings, Path(":memory:"), math.inf)) as engine, engine.shelf.using("demo") as collection:
        scale = measure(collection.encoder.encode_text, collection.index, collection.catalog.mapped, collection.sample)
        if options.write:
            collection.scale_file.write(asdict(scale))
            options.write.write_bytes(cached_file(settings.state_folder, "demo").read_bytes())
        rows = range(len(collection.catalog.mapped))
        titles = {int(item.id): item.title for item in collection.catalog.items_at(list(rows), "concise")}
        names = sorted(set(titles.values()))
        random.Random(5).shuffle(names)
        groups = {
            "unrelated": [text.strip() for text in UNRELATED.replace("\n", "|").split("|") if text.strip()],
            "nonsense": nonsense(40),
            "titles": names[:250],
            "words": WORDS.split(),
            "paraphrases": list(PARAPHRASES),
        }
        print(json.dumps({"fair above": round(scale.text_fair, 4), "strong above": round(scale.text_strong, 4)}))
        print(f"{'queries':<12}{'n':>5}   share of the first hits: strong fair weak   of all {HITS} hits: strong fair weak")
        for name, texts in groups.items():
            found = [engine.search(SearchRequest((WeightedText(text),), n=HITS)).hits for text in texts]
            first = [hits[0].rel for hits in found]
            every = [hit.rel for hits in found for hit in hits]
            print(f"{name:<12}{len(texts):>5}   {shares(first):>40}   {shares(every):>36}")
            if name == "titles":
                right = [hit.rel for text, hits in zip(texts, found, strict=True) for hit in hits if hit.item.title == text]
                wrong = [hit.rel for text, hits in zip(texts, found, strict=True) for hit in hits if hit.item.title != text]
                print(f"  with the title asked for: {shares(right)}; with another title: {shares(wrong)}")
        for text, word in PARAPHRASES.items():
            hits = engine.search(SearchRequest((WeightedText(text),), n=3)).hits
            print(f"  {text!r} ({word}): " + ", ".join(f"{hit.item.title} {hit.rel}" for hit in hits))


def shares(rels: list[str | None]) -> str:
    return "  ".join(f"{rels.count(rel) / max(1, len(rels)):6.1%}" for rel in ("strong", "fair", "weak"))


if __name__ == "__main__":
    main()
