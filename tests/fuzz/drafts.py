"""Engine files that tell lies, described so that a mutation can change one thing and keep the rest.

A fuzzer that only flips bytes never passes a hash. So an input is a draft: the manifest's text, the
parts, and what is done to the finished archive; `assemble` makes the file, with sizes and hashes
put right where the draft says so. An input that is no draft is taken for the file itself.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import cv2
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgeseg.engine_file import _describe, _layout

MODEL, FRAME, LABELS = "onnx/model.onnx", "golden/frame.png", "golden/labels.png"


@dataclass(frozen=True)
class Draft:
    """An engine file before it is written.

    Attributes:
        manifest: its text.
        parts: name and content, in the archive's order.
        honest: the manifest gets the true sizes and hashes of `parts`.
        patches: offset and new value of bytes of the finished file.
        length: the finished file is cut or zero-filled to so many bytes.
    """

    manifest: str
    parts: tuple[tuple[str, bytes], ...] = ()
    honest: bool = True
    patches: tuple[tuple[int, int], ...] = ()
    length: int | None = None

    def encode(self) -> bytes:
        return json.dumps(
            {
                "manifest": self.manifest,
                "parts": [[name, base64.b64encode(data).decode()] for name, data in self.parts],
                "honest": self.honest,
                "patches": self.patches,
                "length": self.length,
            },
            indent=1,
        ).encode()


def decode(data: bytes) -> Draft | None:
    """The draft that an input describes; None if it is a file as it stands."""
    try:
        raw = json.loads(data)
        return Draft(
            manifest=raw["manifest"],
            parts=tuple((name, base64.b64decode(content)) for name, content in raw["parts"]),
            honest=raw["honest"],
            patches=tuple((offset, value) for offset, value in raw["patches"]),
            length=raw["length"],
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def assemble(data: bytes) -> bytes:
    """The file that an input describes."""
    draft = decode(data)
    if draft is None:
        return data
    records = {name: _describe(content) for name, content in draft.parts}
    text = draft.manifest.encode("utf-8", "surrogatepass")
    if draft.honest:
        try:
            manifest = json.loads(text)
            manifest["parts"] = {name: part.model_dump() for name, part in records.items()}
            text = json.dumps(manifest).encode()
        except (ValueError, TypeError, RecursionError):
            pass  # no manifest that could be put right
    parts = {name: part for name, part in records.items() if name.isascii()}
    layout = _layout(text, parts)
    contents = [text, *(content for name, content in draft.parts if name in parts)]
    file = bytearray(layout.size)
    for offset, header in (*layout.headers, (layout.tail_offset, layout.tail)):
        file[offset : offset + len(header)] = header
    for (offset, size), content in zip(layout.data, contents, strict=False):
        file[offset : offset + size] = content[:size]
    for offset, value in draft.patches:
        file[offset % len(file)] = value % 256
    if draft.length is not None:
        length = draft.length % (1 << 20)
        file = file[:length].ljust(length, b"\0")
    return bytes(file)


# ----------------------------------------------------------------------------------------- seeds


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def png_bomb(width: int, height: int, *, rows: int = 0) -> bytes:
    """A grey PNG that claims `width`×`height` pixels and holds `rows` rows of zeros."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + name + content + check

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(rows * (width + 1)), 9)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def onnx_network(
    *nodes: Any,
    tensors: tuple[TensorProto, ...] = (),
    taken: int = TensorProto.FLOAT,
    given: int = TensorProto.FLOAT,
    logits: tuple[int | str, ...] = (1, 3, 8, 12),
) -> bytes:
    """An ONNX network from `image` 1×3×64×96 to `logits`, unchecked; without nodes a good one."""
    image = helper.make_tensor_value_info("image", taken, [1, 3, 64, 96])
    output = helper.make_tensor_value_info("logits", given, list(logits))
    graph = helper.make_graph(nodes or [pool("logits")], "g", [image], [output], tensors)
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


def pool(output: str) -> Any:
    """8×8 means of `image`: its logits, for the classes red, green and blue."""
    return helper.make_node(
        "AveragePool", ["image"], [output], kernel_shape=[8] * 2, strides=[8] * 2
    )


def external(location: str, count: int = 3) -> TensorProto:
    """A tensor `w` whose numbers lie in another file."""
    tensor = helper.make_tensor(
        "w", TensorProto.FLOAT, [1, count, 1, 1], bytes(4 * count), raw=True
    )
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(4 * count))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def _manifest(**changes: Any) -> str:
    fields = {
        "schema_version": 1,
        "name": "tiny",
        "created_by": "fuzz",
        "classes": ["red", "green", "blue"],
        "palette": [[255, 0, 0], [0, 255, 0], [0, 0, 255]],
        "input": {"height": 64, "width": 96, "mean": [0, 0, 0], "std": [1, 1, 1]},
        "architecture": {
            "backbone": "none",
            "text_guidance": None,
            "parameters": 0,
            "align_corners": False,
        },
        "training": {"dataset": "none"},
        "targets": [{"kind": "onnx", "parts": [MODEL], "weights": "float32"}],
        "golden": {"frame": FRAME, "labels": LABELS},
        "parts": {},
    }
    return json.dumps(fields | changes)


GOOD = Draft(
    _manifest(),
    (
        (MODEL, onnx_network()),
        (FRAME, png(np.full((64, 96, 3), (0, 0, 200), np.uint8))),
        (LABELS, png(np.zeros((64, 96), np.uint8))),
    ),
)


def with_part(name: str, content: bytes) -> Draft:
    """`GOOD` with another content of one part."""
    parts = tuple((n, content if n == name else old) for n, old in GOOD.parts)
    return replace(GOOD, parts=parts)


def archives() -> list[bytes]:
    """Drafts and files whose lies are in the archive and the manifest."""
    size = len(assemble(GOOD.encode()))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 5_000_000)
        archive.writestr(MODEL, bytes(5_000_000))
    twice = _manifest()[:-1] + ', "name": "other"}'
    lies = _manifest(
        parts={
            name: _describe(content).model_dump() | {"size": 1 << 31}
            for name, content in GOOD.parts
        }
    )
    drafts = [
        GOOD,
        replace(GOOD, length=size - 1),
        replace(GOOD, length=size + 1),
        replace(GOOD, length=4096),
        replace(GOOD, patches=((8, 8),)),  # method: deflated
        replace(GOOD, patches=((18, 255), (19, 255), (20, 255), (21, 127))),  # 2 GiB of manifest
        replace(GOOD, honest=False),
        Draft(lies, GOOD.parts, honest=False),
        Draft(twice, GOOD.parts),
        Draft("[" * 100_000, honest=False),
        Draft('{"schema_version": ' + "[" * 950 + "]" * 950 + "}", honest=False),
        Draft('{"schema_version": 1, "name": "\\ud800"}', honest=False),
        Draft(_manifest(name="\x1b[2J"), GOOD.parts),
        replace(GOOD, parts=(*GOOD.parts, (MODEL, b"again"))),
        replace(GOOD, parts=(*GOOD.parts, ("spare", b"unnamed"))),
    ]
    for part in (
        "../../escape",
        "/etc/passwd",
        "a\0b",
        "manifest.json",
        "C:\\x",
        "a//b",
        "x" * 400,
    ):
        target = {"kind": "onnx", "parts": [part], "weights": "float32"}
        drafts.append(Draft(_manifest(targets=[target]), ((part, b"x"), *GOOD.parts[1:])))
    for size_of in ({"height": 10**9}, {"width": 8192, "height": 8192}, {"std": [0, 1, 1]}):
        changed = {"height": 64, "width": 96, "mean": [0, 0, 0], "std": [1, 1, 1]} | size_of
        drafts.append(Draft(_manifest(input=changed), GOOD.parts))
    return [*(draft.encode() for draft in drafts), bomb.getvalue(), b"", b"PK\3\4", b"\x7fELF"]


def goldens() -> list[bytes]:
    """Drafts whose golden sample is not what it should be."""
    good = dict(GOOD.parts)
    contents = {
        FRAME: (
            *(b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(50), good[MODEL], good[FRAME][:-20]),
            *(png_bomb(1 << 31, 1 << 31), png_bomb(20_000, 20_000, rows=200), png_bomb(0, 0)),
            *(png_bomb(60_000, 60, rows=60), png_bomb(96, 64, rows=1)),
            bytes(cv2.imencode(".tiff", np.zeros((64, 96, 3), np.uint8))[1].tobytes()),
            png(np.zeros((64, 96, 4), np.uint8)),
            png(np.zeros((64, 96, 3), np.uint16)),
        ),
        LABELS: (b"", png(np.zeros((6, 9), np.uint8)), png(np.full((64, 96), 255, np.uint8))),
    }
    drafts = [with_part(name, content) for name, several in contents.items() for content in several]
    return [draft.encode() for draft in (GOOD, *drafts)]


def networks() -> list[bytes]:
    """Drafts whose network is not what the manifest says."""
    node, number = helper.make_node, numpy_helper.from_array
    scale = node("Mul", ["x", "w"], ["logits"])
    ones = number(np.ones((1, 3, 1, 1), np.float32), "w")
    nan = number(np.full((1, 3, 1, 1), np.nan, np.float32), "w")
    resize = node("Resize", ["x", "", "s"], ["logits"])
    casts = {
        kind: onnx_network(pool("x"), node("Cast", ["x"], ["logits"], to=kind), given=kind)
        for kind in (TensorProto.INT64, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.STRING)
    }
    fill = number(np.array([1, 3, 40_000, 60_000]), "s")
    contents = [
        onnx_network(),
        onnx_network(pool("x"), scale, tensors=(ones,)),
        onnx_network(pool("x"), scale, tensors=(nan,)),
        *(
            onnx_network(pool("x"), scale, tensors=(external(path),))
            for path in ("weights.bin", "/etc/passwd", "../../../../../../../etc/passwd")
        ),
        *(
            onnx_network(pool("x"), resize, tensors=(number(np.array([1, 1, n, n], "f4"), "s"),))
            for n in (2, 50, 5000)
        ),
        onnx_network(node("ConstantOfShape", ["s"], ["logits"]), tensors=(fill,)),
        onnx_network(pool("x"), node("Concat", ["x", "x"], ["logits"], axis=1)),
        onnx_network(pool("x"), node("NonZero", ["x"], ["logits"]), given=TensorProto.INT64),
        onnx_network(node("Loop", ["", "", "image"], ["logits"])),
        onnx_network(node("NoSuchOperator", ["image"], ["logits"])),
        onnx_network(pool("x"), node("Identity", ["y"], ["logits"])),
        *casts.values(),
        *(b"", b"<?xml version='1.0'?><net name='x' version='11'/>", b"/etc/passwd"),
        GOOD.parts[1][1],  # a picture
    ]
    drafts = [with_part(MODEL, content) for content in contents]
    for kind, names in (
        ("openvino", [MODEL]),
        ("openvino", [MODEL, FRAME]),
        ("onnx", [MODEL, FRAME]),
        ("onnx", [FRAME]),
        ("tensorrt", [MODEL]),
        ("aoti", [MODEL]),
    ):
        target = {"kind": kind, "parts": names, "weights": "float32"}
        used = [part for part in GOOD.parts if part[0] in (*names, FRAME, LABELS)]
        drafts.append(Draft(_manifest(targets=[target]), tuple(used)))
    return [draft.encode() for draft in drafts]


# ------------------------------------------------------------------------------------- mutations

_NUMBERS = (0, -1, 1, 255, 256, 1 << 31, 1 << 32, 1 << 63, 1e308, -1e308, 5e-324, 10**30)
_WORDS = (
    *("", "../x", "/etc/passwd", "a\0b", "x" * 5000, "\x1b[2J", "🚗", "manifest.json", "NaN"),
    *("int8", "float16", "letterbox", "openvino", "tensorrt", "tensorrt-rtx", "aoti", MODEL, FRAME),
)


def mutate(data: bytes, random: Random) -> bytes:
    """Another draft (or file): one thing changed."""
    draft = decode(data)
    if draft is None:
        return flip(data, random)
    change: Callable[[Draft, Random], Draft] = random.choices(
        [_manifest_value, _manifest_text, _part_bytes, _part_list, _file_bytes],
        weights=[8, 2, 6, 2, 2],
    )[0]
    return change(draft, random).encode()


def flip(data: bytes, random: Random) -> bytes:
    """Bytes changed, cut out, put in, or repeated."""
    content = bytearray(data) or bytearray(1)
    at = random.randrange(len(content))
    match random.randrange(6):
        case 0 | 1:
            content[at] ^= 1 << random.randrange(8)
        case 2:
            content[at] = random.choice((0, 1, 127, 128, 255))
        case 3:
            del content[at : at + random.choice((1, 2, 4, 16, 256))]
        case 4:
            content[at:at] = random.randbytes(random.choice((1, 2, 4, 16)))
        case 5:
            content[at:at] = content[at : at + random.choice((1, 4, 32))]
    return bytes(content[: 1 << 16])


def _manifest_value(draft: Draft, random: Random) -> Draft:
    """One value of the manifest replaced, taken away, doubled, or moved a level down."""
    try:
        manifest = json.loads(draft.manifest)
        places = list(_places(manifest))
    except (ValueError, TypeError, RecursionError):
        places = []
    if not places:
        return _manifest_text(draft, random)
    holder, key = random.choice(places)
    match random.randrange(6):
        case 0 | 1:
            holder[key] = random.choice(_NUMBERS)
        case 2 | 3:
            holder[key] = random.choice(_WORDS)
        case 4:
            del holder[key]
        case 5:
            holder[key] = random.choice(([holder[key]] * 300, {"x": holder[key]}, None, True, []))
    return replace(draft, manifest=json.dumps(manifest))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (dict, key) and (list, index) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 20))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _manifest_text(draft: Draft, random: Random) -> Draft:
    text = flip(draft.manifest.encode("utf-8", "surrogatepass"), random)
    return replace(draft, manifest=text.decode("utf-8", "replace"), honest=random.random() < 0.5)


def _part_bytes(draft: Draft, random: Random) -> Draft:
    if not draft.parts:
        return draft
    at = random.randrange(len(draft.parts))
    name, content = draft.parts[at]
    changed = (name, flip(content, random))
    return replace(draft, parts=(*draft.parts[:at], changed, *draft.parts[at + 1 :]))


def _part_list(draft: Draft, random: Random) -> Draft:
    """Parts shuffled, swapped, doubled, left out, or under another name."""
    parts = list(draft.parts)
    if not parts:
        return replace(draft, parts=GOOD.parts)
    at = random.randrange(len(parts))
    match random.randrange(5):
        case 0:
            random.shuffle(parts)
        case 1:
            parts[at] = (parts[at][0], random.choice(parts)[1])
        case 2:
            parts.append(parts[at])
        case 3:
            del parts[at]
        case 4:
            parts[at] = (random.choice(_WORDS) or "x", parts[at][1])
    return replace(draft, parts=tuple(parts))


def _file_bytes(draft: Draft, random: Random) -> Draft:
    if random.random() < 0.3:
        return replace(draft, length=random.randrange(1 << 15))
    patch = (random.randrange(1 << 15), random.randrange(256))
    return replace(draft, patches=(*draft.patches[-20:], patch))
