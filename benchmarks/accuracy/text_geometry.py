"""How close the class vectors lie to each other, which bounds what a score map can tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from benchmarks.accuracy.tables import markdown

from edgeseg.prompts import Preparation, prepare
from edgeseg.text import TextEmbeddings


@dataclass(frozen=True)
class Geometry:
    """Cosines between all pairs of different classes.

    Attributes:
        text: Which embeddings.
        preparation: What was done to them.
        low: Least cosine.
        mean: Mean cosine.
        high: Greatest cosine.
        closest: The two classes that have it.
    """

    text: str
    preparation: Preparation
    low: float
    mean: float
    high: float
    closest: tuple[str, str]


def geometry(text: str, preparation: Preparation, table: TextEmbeddings) -> Geometry:
    """Cosines of one table after one preparation."""
    rows = prepare(torch.from_numpy(table.vectors), preparation).double().numpy()
    cosines = rows @ rows.T
    first, second = np.triu_indices(len(rows), k=1)
    pairs = cosines[first, second]
    top = int(pairs.argmax())
    return Geometry(
        text,
        preparation,
        float(pairs.min()),
        float(pairs.mean()),
        float(pairs.max()),
        (table.classes[first[top]], table.classes[second[top]]),
    )


def geometries(tables: Mapping[str, TextEmbeddings]) -> tuple[Geometry, ...]:
    """Every table after every preparation."""
    return tuple(
        geometry(text, preparation, table)
        for text, table in tables.items()
        for preparation in get_args(Preparation)
    )


def geometry_table(found: Iterable[Geometry]) -> str:
    """As Markdown."""
    return markdown(
        ("text embeddings", "preparation", "least", "mean", "greatest", "closest classes"),
        (
            (
                item.text,
                item.preparation,
                _cosine(item.low),
                _cosine(item.mean),
                _cosine(item.high),
                " and ".join(item.closest),
            )
            for item in found
        ),
    )


def _cosine(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # no minus before zero
