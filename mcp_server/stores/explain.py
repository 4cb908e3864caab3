"""Says which condition of a filter is the one that leaves nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcp_server.domain.filters import AllOf, And, AnyOf, Filter
from mcp_server.stores.bits import count_bits
from mcp_server.stores.evaluation import Evaluator
from mcp_server.stores.sentences import NOTHING, Sentence, joined


def empty_reason(evaluator: Evaluator, node: Filter) -> str:
    """Return at most 200 characters: what would be left if one of the conditions that must all hold were dropped.

    `node` passes nothing. Takes one evaluation of each condition.
    """
    passed = [evaluator.passed(condition) for condition in _conditions(node)]
    sentences = [one.sentence for one in passed]
    once, twice = np.zeros_like(evaluator.mapped), np.zeros_like(evaluator.mapped)
    for one in passed:
        failing = evaluator.mapped & ~one.bits
        twice |= once & failing
        once |= failing
    if not np.any(evaluator.mapped):
        return "The collection has no indexed items."
    if NOTHING in sentences:
        return "A list in the filter is empty, which no item passes. Put values into it, or leave that condition out."
    if len(passed) == 1:
        return f"No item passes: {sentences[0].clipped(90)}. Change it; describe_filters shows the values and their counts."
    # a row that fails one condition only would pass without it
    without = [count_bits(once & ~twice & ~one.bits) for one in passed]
    return _reason(sentences, [count_bits(one.bits) for one in passed], without)


def _conditions(node: Filter) -> list[Filter]:
    """Return the conditions that must all hold, the nested ones too."""
    match node:
        case And() if node.children:
            return [condition for child in node.children for condition in _conditions(child)]
        case AllOf() if len(node.values) > 1:
            return [AnyOf(node.field, (value,)) for value in node.values]
        case _:
            return [node]


def _reason(sentences: Sequence[Sentence], alone: Sequence[int], without: Sequence[int]) -> str:
    worst = max(range(len(without)), key=without.__getitem__)
    if without[worst]:
        others = [sentence for position, sentence in enumerate(sentences) if position != worst]
        rest = joined(others, "and").clipped(80)
        one = "one" if len(sentences) == 2 else "the last"
        return f"{rest} leaves {without[worst]}; adding {sentences[worst].clipped(50)} leaves 0. Drop or change {one}."
    impossible = [sentences[position].clipped(50) for position, count in enumerate(alone) if not count]
    if impossible:
        both = f", nor does {impossible[1]}" if len(impossible) > 1 else ""
        return f"{impossible[0]} matches no item at all{both}. Drop or change more than one."
    counts = ", ".join(f"{sentences[at].clipped(28)}: {alone[at]}" for at in sorted(range(len(alone)), key=alone.__getitem__)[:3])
    return f"Alone they leave {counts}, but no item passes even without one of them. Drop two or more."
