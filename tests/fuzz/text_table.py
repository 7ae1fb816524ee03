"""Fuzz the reader of text-embedding tables: NAME.npy and the NAME.json beside it."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from tests.fuzz import drafts, guard
from tests.fuzz.fuzzing import BrokenPromiseError, Target, main

from edgeseg.errors import InputError
from edgeseg.text import TextEmbeddings

_FOLDER = tempfile.TemporaryDirectory(prefix="edgeseg-fuzz-")
PATH = Path(_FOLDER.name) / "fuzzed.npy"
_MARK = b"\n--json--\n"  # an input is the .npy, this, and the .json


def check(data: bytes) -> str:
    """Promised: an InputError of one short line, or unit rows with distinct names."""
    array, _, names = data.partition(_MARK)
    PATH.write_bytes(array)
    PATH.with_suffix(".json").write_bytes(names)
    with guard.only_reading(PATH, PATH.with_suffix(".json")), guard.bounded_memory(len(data)):
        try:
            table = TextEmbeddings.load(PATH)
        except InputError as error:
            guard.check_message(error)
            return "refused"
    lengths = np.linalg.norm(table.vectors, axis=1)
    if len(set(table.classes)) != len(lengths) or not np.allclose(lengths, 1, atol=2e-3):
        raise BrokenPromiseError(f"not a table: {len(table.classes)} names, lengths {lengths[:5]}")
    return "sound"


def seeds() -> Sequence[bytes]:
    about = json.dumps({"classes": ["road", "sky"], "provenance": "fuzz"}).encode()
    unit = np.eye(2, 4, dtype=np.float32)
    arrays = [
        *(_npy(unit), _npy(unit.astype(np.float64)), _npy(unit.astype(np.float16))),
        *(_npy(unit * np.float32("nan")), _npy(np.zeros((2, 0), np.float32)), _npy(unit[:1])),
        *(_npy(np.asfortranarray(unit)), _npy(np.float32(1)), _npy(np.array(["a", "b"]))),
        _npy(np.array([{"pickled": 1}], dtype=object)),
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2000000000)}"),
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}"),
        _header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 4)}"),
        _header("(" * 5000 + ")" * 5000),
        _header("__import__('os').getpid()"),
        *(b"", b"\x93NUMPY", b"PK\3\4" + bytes(100)),
    ]
    names = [
        *(b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"classes": 1, "provenance": ""}'),
        *(b'{"classes": ["a", "a"], "provenance": ""}', b"\xff\xfe", b'{"classes": "ab"}'),
        *(
            b'{"classes": ["\\ud800", "b"], "provenance": "\\u001b[2J"}',
            about.replace(b"road", b""),
        ),
    ]
    good = _npy(unit)
    return [*(array + _MARK + about for array in arrays), *(good + _MARK + text for text in names)]


def _npy(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()


def _header(text: str) -> bytes:
    """The beginning of a .npy with this header, and little data."""
    header = text.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(32)


def mutate(data: bytes, random: Random) -> bytes:
    array, mark, names = data.partition(_MARK)
    if random.random() < 0.4:
        return array + (mark or _MARK) + drafts.flip(names, random)
    return drafts.flip(array, random) + (mark or _MARK) + names


TARGET = Target("text_table", check, seeds, mutate, modules=("edgeseg.text",))

if __name__ == "__main__":
    main(TARGET)
