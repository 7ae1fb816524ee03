"""Text embeddings: one unit vector per class, what is left of a text encoder in a trained network.

A table on disk is two files: ``NAME.npy`` (K×C float32) and ``NAME.json`` (class names and
provenance). No torch here: the table is made once, offline, and read by training and by tests.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ConfigError, InputError
from edgeseg.files import write_atomically

CLIP_RN50_DIMENSIONS = 1024
"""Dimensions of CLIP RN50's text space, and of the backbone's last feature map."""

_UNIT_TOLERANCE = 1e-3  # float16 tables, converted to float32, are off by some 1e-4


@dataclass(frozen=True)
class TextEmbeddings:
    """One unit vector per class.

    Attributes:
        classes: K distinct class names, in the order of the rows.
        vectors: K×C float32, finite, rows of length 1.
        provenance: Where the vectors come from, in words; travels into every checkpoint.

    Raises:
        InputError: The vectors do not have this form.
    """

    classes: tuple[str, ...]
    vectors: NDArray[np.float32]
    provenance: str

    def __post_init__(self) -> None:
        rows = self.vectors
        if rows.ndim != 2 or rows.dtype != np.float32:
            raise InputError(
                f"text embeddings are {rows.dtype} of shape {rows.shape}; expected a float32 "
                "matrix, one row per class"
            )
        if len(self.classes) != len(rows):
            raise InputError(
                f"text embeddings have {len(rows)} rows for {len(self.classes)} class names; "
                "give one name per row"
            )
        if repeated := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            raise InputError(f"class names must be distinct, but these repeat: {repeated}")
        if not np.isfinite(rows).all():
            raise InputError("text embeddings contain NaN or infinity; compute the table anew")
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        off = np.flatnonzero(np.abs(lengths - 1) > _UNIT_TOLERANCE)
        if off.size:
            raise InputError(
                f"the text embedding of {self.classes[off[0]]!r} has length {lengths[off[0]]:.4f}; "
                "expected unit rows, use TextEmbeddings.normalised"
            )

    @staticmethod
    def normalised(
        classes: Sequence[str], vectors: NDArray[np.floating], provenance: str
    ) -> TextEmbeddings:
        """Table of K×C vectors of any length, scaled to unit rows."""
        rows = np.asarray(vectors, dtype=np.float64)
        lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
        if (lengths == 0).any():
            raise InputError("a text embedding is all zeros and has no direction")
        return TextEmbeddings(tuple(classes), (rows / lengths).astype(np.float32), provenance)

    @staticmethod
    def random(
        classes: Sequence[str], dimensions: int = CLIP_RN50_DIMENSIONS, *, seed: int
    ) -> TextEmbeddings:
        """Random directions: the ablation that asks whether the text matters at all."""
        rows = np.random.default_rng(seed).standard_normal((len(classes), dimensions))
        return TextEmbeddings.normalised(classes, rows, f"random directions, seed {seed}")

    @staticmethod
    def load(path: Path | str) -> TextEmbeddings:
        """Read ``path`` (.npy) and the JSON of class names and provenance beside it.

        Raises:
            InputError: A file is missing, is not what it should be, or the two disagree.
        """
        path = Path(path)
        if path.suffix != ".npy":
            raise InputError(f"{path} does not end in .npy; a text table is NAME.npy and NAME.json")
        names = path.with_suffix(".json")
        for file in (path, names):
            try:
                there = file.is_file()
            except OSError:  # a name that no file can have
                there = False
            if not there:
                raise InputError(
                    f"{file} does not exist; a text table is NAME.npy (K×C float32) beside "
                    'NAME.json ({"classes": [...], "provenance": "..."}); edgeseg text makes both'
                )
        try:
            # What a header claims beyond the file's end is refused, not allocated: the array is
            # mapped, and the header's own length has two bytes in version 1.0.
            with path.open("rb") as opened:
                if np.lib.format.read_magic(opened) != (1, 0):
                    raise ValueError("a format version that np.save gives no float32 matrix")
            vectors = np.array(np.lib.format.open_memmap(path, mode="r"))
        except (ValueError, TypeError, SyntaxError, TokenError, OSError) as error:
            raise InputError(
                f"{path} is not a NumPy array file: {_short(error)}; make it anew with edgeseg text"
            ) from error
        try:
            about = json.loads(names.read_text(encoding="utf-8"))
            classes, provenance = about["classes"], str(about["provenance"])
            if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
                raise TypeError("classes are not a list of names")
        except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
            raise InputError(
                f'{names} must be {{"classes": [...], "provenance": "..."}}: {_short(error)}'
            ) from error
        return TextEmbeddings(tuple(classes), vectors, provenance)

    def save(self, path: Path | str) -> None:
        """Write ``path`` (.npy) and the JSON beside it.

        Raises:
            InputError: ``path`` does not end in .npy.
            OutputError: A file cannot be written.
        """
        path = Path(path)
        if path.suffix != ".npy":
            raise InputError(f"{path} does not end in .npy; a text table is NAME.npy and NAME.json")
        array = io.BytesIO()
        np.save(array, self.vectors)
        about = {"classes": list(self.classes), "provenance": self.provenance}
        write_atomically(path, [array.getbuffer()])
        write_atomically(path.with_suffix(".json"), [(json.dumps(about, indent=1) + "\n").encode()])

    def select(self, classes: Sequence[str]) -> TextEmbeddings:
        """The rows of these classes, in this order.

        Raises:
            ConfigError: A class has no row here.
        """
        return self.by_synonym({name: (name,) for name in classes})

    def by_synonym(self, synonyms: Mapping[str, Sequence[str]]) -> TextEmbeddings:
        """Table of new class names, each the renormalised mean of the named rows of this one.

        Args:
            synonyms: New class name → one or more names of this table, in the new row order.

        Raises:
            ConfigError: A synonym has no row here, or a class has no synonym.
        """
        row = {name: index for index, name in enumerate(self.classes)}
        if missing := sorted({s for names in synonyms.values() for s in names if s not in row}):
            raise ConfigError(
                f"no text embedding for {missing}; this table has {list(self.classes)}. Make one "
                "for your classes: edgeseg text CLASSES... --out NAME.npy"
            )
        if empty := [name for name, names in synonyms.items() if not names]:
            raise ConfigError(f"no synonym given for {empty}")
        renamed = {new: list(old) for new, old in synonyms.items() if list(old) != [new]}
        provenance = self.provenance + (f"; by synonym {json.dumps(renamed)}" if renamed else "")
        means = [self.vectors[[row[s] for s in names]].mean(axis=0) for names in synonyms.values()]
        return TextEmbeddings.normalised(tuple(synonyms), np.stack(means), provenance)


def _short(error: Exception) -> str:
    """Some errors quote all of a file."""
    return f"{type(error).__name__}, {str(error)[:200]}"
