"""The engine file: one archive that carries a network to any machine.

`NAME.edgeseg` is an uncompressed zip that any tool can unpack. Its bytes are a pure function of the
manifest and the parts:

    manifest.json, then every part of the manifest in the manifest's order, each one starting
    on a multiple of 4 KiB so that it can be mapped; the central directory; and a comment with the
    SHA-256 of manifest.json.

So the reader needs no zip parser. It reads the manifest at its fixed place, lays the archive out
anew from what the manifest says, and compares: a byte that differs anywhere outside the parts is
damage, and the parts have their SHA-256. Hashes find accidents, not attackers.

This module knows nothing of networks or backends: manifest, parts and hashes only.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import reprlib
import struct
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeseg.classes import MAX_CLASSES
from edgeseg.errors import EngineError, printable
from edgeseg.files import reason, write_atomically

SCHEMA_VERSION: Final = 1
SUFFIX = ".edgeseg"
ALIGNMENT = 4096
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_PART_BYTES = 2 << 30  # zip without its 64-bit extension
MAX_PARTS = 64
MAX_MIOU_DROP = 0.005  # what "auto" gives up for INT8's speed, as a fraction

# ------------------------------------------------------------------------------------- manifest

_PART_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*(\.[a-z0-9]+)?")


def _check_part_name(name: str) -> str:
    if not _PART_NAME.fullmatch(name) or len(name) > 200 or name == MANIFEST_NAME:
        raise ValueError(f"part name {name!r} is not a relative path like onnx/model.onnx")
    return name


def _check_text(text: str) -> str:
    # A terminal obeys control characters, and these texts end up in one.
    if any(unicodedata.category(c) == "Cc" and c not in "\t\n" for c in text):
        raise ValueError("a text has control characters")
    return text


PartName = Annotated[str, AfterValidator(_check_part_name)]
Text = Annotated[str, Field(max_length=4000), AfterValidator(_check_text)]
ShortText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_text)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
Std = Annotated[float, Field(ge=1e-3, le=1e6)]
TargetKind = Literal["onnx", "openvino", "tensorrt", "tensorrt-rtx", "aoti"]
Resize = Literal["stretch", "letterbox"]
FloatWeights = Literal["float32", "float16"]
FloatType = Literal["float32", "float16", "bfloat16"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Input(_Model):
    """What the network takes, and how a frame becomes it.

    Attributes:
        height, width: size of the network's input in pixels.
        mean, std: R, G, B in grey levels 0..255; the tensor is (grey - mean) / std. Far beyond
            what any network means by them they are refused: float32 has to hold the tensor.
        resize: "stretch" fills the input; "letterbox" keeps the aspect ratio and pads.
        pad: grey level of the letterbox's bars, 0..255.
    """

    height: Annotated[int, Field(ge=32, le=8192)]
    width: Annotated[int, Field(ge=32, le=8192)]
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]
    resize: Resize = "stretch"
    pad: Annotated[float, Field(ge=0, le=255)] = 0.0


class Architecture(_Model):
    """The network: STDC variant, placement of the score map, and its size."""

    backbone: ShortText
    text_guidance: Literal["encoder", "decoder"] | None
    parameters: Annotated[int, Field(ge=0)]
    align_corners: bool


class Training(_Model):
    """Where the weights come from. `miou` is on `validation`, as a fraction."""

    dataset: Text
    validation: Text = ""
    iterations: Annotated[int, Field(ge=0)] = 0
    miou: Fraction | None = None
    iou: dict[ShortText, Fraction | None] = Field(default_factory=dict, max_length=MAX_CLASSES)
    notes: Text = ""


class Agreement(_Model):
    """Share of pixels whose label equals the trained network's in PyTorch float32.

    Measured on `device`, with the target running in `precision`: at export on `frames` synthetic
    frames; of an INT8 target on the frames that it was calibrated on, with the float32 engine,
    whose own agreement is known, standing for PyTorch.
    """

    precision: ShortText
    device: ShortText
    frames: Annotated[int, Field(ge=1)]
    pixels: Fraction


class Quantization(_Model):
    """How a target came to its 8-bit integers, and what they cost where they were made.

    Attributes:
        method: library, version and settings.
        calibration: the frames that the ranges of its activations come from.
        golden: share of the golden sample's pixels with the trained network's label.
        golden_tolerance: how much less `verify` allows on other machines.
        validation: labelled images that both mIoU were measured on; empty if they were not.
        float_miou, miou: of the float32 engine and of this target, as fractions.
    """

    method: Text
    calibration: Text
    golden: Fraction
    golden_tolerance: Fraction
    validation: Text = ""
    float_miou: Fraction | None = None
    miou: Fraction | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.float_miou is None) != (self.miou is None):
            raise ValueError("float_miou and miou belong together")
        return self

    @property
    def miou_drop(self) -> float | None:
        """By how much mIoU falls, as a fraction; None where it was not measured."""
        if self.float_miou is None or self.miou is None:
            return None
        return self.float_miou - self.miou

    @property
    def harmless(self) -> bool:
        """Whether "auto" may take the target: measured, and mIoU falls by 0.005 at most."""
        return self.miou_drop is not None and self.miou_drop <= MAX_MIOU_DROP


class Target(_Model):
    """One compiled or portable form of the network.

    Attributes:
        kind: what runs it.
        parts: names of its parts; the first one is the model.
        weights: number format in which the weights are stored.
        requires: what a machine must have to run a target that is code: "library", "version",
            "platform", "classes", and "compute_capability" with spaces between several; see
            `edgeseg.machine.mismatch`.
        agreement: what was measured when the target was made.
        quantization: of an INT8 target.
        precision: what a compiled target computes in; None: the runtime chooses.
    """

    kind: TargetKind
    parts: Annotated[tuple[PartName, ...], Field(min_length=1, max_length=8)]
    weights: FloatWeights | Literal["bfloat16", "int8"]
    requires: dict[ShortText, ShortText] = Field(default_factory=dict, max_length=16)
    agreement: Annotated[tuple[Agreement, ...], Field(max_length=16)] = ()
    quantization: Quantization | None = None
    precision: ShortText | None = None

    @property
    def quantized(self) -> bool:
        """Whether it computes in 8-bit integers."""
        return self.weights == "int8"

    @property
    def identity(self) -> tuple[str, bool, str | None]:
        """What a file has one target of: the kind, INT8 or not, and the GPUs it is for."""
        return self.kind, self.quantized, self.requires.get("compute_capability")


class Golden(_Model):
    """A frame (PNG, BGR once decoded) and the labels (PNG, grey) of the trained network for it."""

    frame: PartName
    labels: PartName


class Part(_Model):
    """Size in bytes and check sums of one part."""

    size: Annotated[int, Field(ge=0, le=MAX_PART_BYTES)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    crc32: Annotated[int, Field(ge=0, lt=1 << 32)]


class Manifest(_Model):
    """What an engine file says of itself.

    Attributes:
        classes: K names, 1 <= K <= 254; a label is an index into them, 255 is "no class".
        palette: K colours, R, G, B.
        text: provenance of the text embeddings; empty without text guidance.
        parts: filled in by `write_engine`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: ShortText
    created_by: ShortText
    classes: Annotated[tuple[ShortText, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    palette: tuple[tuple[Byte, Byte, Byte], ...]
    input: Input
    architecture: Architecture
    text: Text = ""
    training: Training
    license: Text = ""
    targets: Annotated[tuple[Target, ...], Field(min_length=1, max_length=16)]
    golden: Golden
    parts: Annotated[dict[PartName, Part], Field(max_length=MAX_PARTS)] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.palette) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes but {len(self.palette)} colours")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("class names must be distinct")
        return self

    def named_parts(self) -> set[str]:
        """Names of all parts that a target or the golden sample refers to."""
        of_targets = {part for target in self.targets for part in target.parts}
        return of_targets | {self.golden.frame, self.golden.labels}

    def target(self, kind: TargetKind, *, quantized: bool = False) -> Target | None:
        """The target of that kind, in floating point or quantized, or None."""
        return next(iter(self.targets_of(kind, quantized=quantized)), None)

    def targets_of(self, kind: TargetKind, *, quantized: bool = False) -> tuple[Target, ...]:
        """All targets of that kind, which are compiled for different GPUs."""
        return tuple(t for t in self.targets if (t.kind, t.quantized) == (kind, quantized))


# --------------------------------------------------------------------------------------- layout

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_EXTRA = struct.Struct("<2H")
_EXTRA_ID = 0xD935  # the id that zip aligners use for padding
_VERSION, _DATE = 20, (1980 - 1980) << 9 | 1 << 5 | 1  # no time stamps: same input, same bytes
_COMMENT = b"edgeseg manifest sha256 "


@dataclass(frozen=True)
class _Layout:
    """Everything in the archive that is not data."""

    headers: tuple[tuple[int, bytes], ...]  # offset and bytes of each local header
    data: tuple[tuple[int, int], ...]  # offset and size of the manifest and of each part
    tail_offset: int
    tail: bytes  # central directory, end record, comment

    @property
    def size(self) -> int:
        return self.tail_offset + len(self.tail)


def _layout(manifest_bytes: bytes, parts: Mapping[str, Part]) -> _Layout:
    manifest_part = _describe(manifest_bytes)
    headers, data, central = [], [], []
    offset = 0
    for name, part in [(MANIFEST_NAME, manifest_part), *parts.items()]:
        encoded = name.encode("ascii")
        start = offset + _LOCAL.size + len(encoded) + _EXTRA.size
        padding = -start % ALIGNMENT
        extra = _EXTRA.pack(_EXTRA_ID, padding) + bytes(padding)
        fields = (_VERSION, 0, 0, 0, _DATE, part.crc32, part.size, part.size, len(encoded))
        headers.append((offset, _LOCAL.pack(b"PK\3\4", *fields, len(extra)) + encoded + extra))
        data.append((start + padding, part.size))
        entry = _CENTRAL.pack(b"PK\1\2", _VERSION, *fields, 0, 0, 0, 0, 0, offset)
        central.append(entry + encoded)
        offset = start + padding + part.size
    directory = b"".join(central)
    comment = _COMMENT + manifest_part.sha256.encode("ascii")
    count = len(central)
    end = _END.pack(b"PK\5\6", 0, 0, count, count, len(directory), offset, len(comment))
    return _Layout(tuple(headers), tuple(data), offset, directory + end + comment)


def _describe(content: bytes | memoryview) -> Part:
    return Part(
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        crc32=zlib.crc32(content),
    )


# ---------------------------------------------------------------------------------------- write


def write_engine(
    path: str | os.PathLike[str], manifest: Manifest, parts: Mapping[str, bytes | memoryview]
) -> Manifest:
    """Write an engine file, all of it or nothing, and return its manifest with sizes and hashes.

    Args:
        path: where to; an existing file is replaced.
        manifest: the description; its `parts` are ignored and made anew.
        parts: content of exactly the parts that the manifest's targets and golden sample name.

    Raises:
        EngineError: manifest and parts do not fit together, or a part is too large.
        OutputError: the file cannot be written.
    """
    if set(parts) != manifest.named_parts():
        raise EngineError(
            f"the manifest names the parts {sorted(manifest.named_parts())}, "
            f"but {sorted(parts)} were given; give exactly those"
        )
    try:
        records = {name: _describe(content) for name, content in parts.items()}
        complete = Manifest.model_validate({**manifest.model_dump(), "parts": records})
    except ValidationError as error:
        raise EngineError(f"cannot write {path}: {_first_error(error)}") from error
    text = complete.model_dump_json(indent=1).encode()
    if len(text) > MAX_MANIFEST_BYTES:
        raise EngineError(
            f"cannot write {path}: the manifest has {len(text)} bytes, "
            f"at most {MAX_MANIFEST_BYTES} are allowed; shorten its texts"
        )
    layout = _layout(text, records)
    if layout.size >= 1 << 32:
        raise EngineError(
            f"cannot write {path}: {layout.size} bytes in all, an engine file ends at 4 GiB; "
            "leave a target out"
        )

    def chunks() -> Iterator[bytes | memoryview]:
        for (_, header), content in zip(layout.headers, [text, *parts.values()], strict=True):
            yield header
            yield content
        yield layout.tail

    write_atomically(path, chunks())
    return complete


def add_target(
    path: str | os.PathLike[str], target: Target, parts: Mapping[str, bytes | memoryview]
) -> Manifest:
    """Add a target to an engine file in place, instead of an earlier one of the same identity.

    A quantized target and one in floating point live side by side, and so do targets that are
    compiled for different GPUs.

    Raises:
        EngineError: the file cannot be read, or the target's parts do not fit it.
        OutputError: the file cannot be written; it stays as it was.
    """
    with open_engine(path) as engine:
        others = tuple(t for t in engine.manifest.targets if t.identity != target.identity)
        manifest = engine.manifest.model_copy(update={"targets": (*others, target)})
        kept = {name: engine.part(name) for name in manifest.named_parts() - set(parts)}
        ordered = [name for name in engine.manifest.parts if name in kept]
        return write_engine(path, manifest, {name: kept[name] for name in ordered} | dict(parts))


# ----------------------------------------------------------------------------------------- read


class EngineFile:
    """An open engine file: a checked manifest, and parts mapped into memory on demand.

    A context manager. Views that `part` gave stay valid after `close`; the mapping goes with the
    last of them.
    """

    def __init__(self, path: Path, manifest: Manifest, content: memoryview, layout: _Layout):
        self.path = path
        self.manifest = manifest
        self._content = content
        self._places = dict(zip([MANIFEST_NAME, *manifest.parts], layout.data, strict=True))

    @property
    def manifest_bytes(self) -> memoryview:
        """The manifest as it stands in the file, whose SHA-256 is in the archive's comment."""
        offset, size = self._places[MANIFEST_NAME]
        return self._content[offset : offset + size]

    def part(self, name: str) -> memoryview:
        """Content of a part, read-only, mapped rather than copied; its SHA-256 is checked.

        Raises:
            EngineError: no such part, or its bytes are not those that were written.
        """
        if name not in self.manifest.parts:
            raise EngineError(
                f"{self.path} has no part {name!r}; it has {', '.join(self.manifest.parts)}"
            )
        offset, size = self._places[name]
        content = self._content[offset : offset + size]
        found = hashlib.sha256(content).hexdigest()
        expected = self.manifest.parts[name].sha256
        if found != expected:
            raise EngineError(
                f"{self.path} is damaged: the SHA-256 of {name} is {found[:16]}…, the manifest "
                f"says {expected[:16]}…; copy the file again from where it came"
            )
        return content

    def close(self) -> None:
        """Let go of the file."""
        self._content.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_engine(path: str | os.PathLike[str]) -> EngineFile:
    """Open an engine file and check all of it but the content of its parts (see `part`).

    Raises:
        EngineError: the file is missing, foreign, truncated, damaged, or of another version.
    """
    path = Path(path)
    content = _map(path)
    try:
        manifest_bytes = _manifest_bytes(path, content)
        manifest = _parse_manifest(path, manifest_bytes)
        accounted = ALIGNMENT + len(manifest_bytes) + sum(p.size for p in manifest.parts.values())
        if len(content) < accounted:  # and no zip header could say how much that is
            raise _truncated(path, len(content), f"more than {accounted}")
        layout = _layout(manifest_bytes, manifest.parts)
        _check_layout(path, content, layout)
    except EngineError:
        content.release()
        raise
    return EngineFile(path, manifest, content, layout)


def _map(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise EngineError(f"{path} is empty; an engine file was expected")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise EngineError(
            f"there is no engine file {path}; make one with 'edgeseg export', "
            "or leave the name out to use the packaged engine"
        ) from error
    except IsADirectoryError as error:
        raise EngineError(f"{path} is a folder; an engine file ({SUFFIX}) was expected") from error
    except (OSError, ValueError) as error:
        raise EngineError(
            f"cannot read the engine file {path}: {reason(error)}; "
            "check the path and its permissions"
        ) from error


def _manifest_bytes(path: Path, content: memoryview) -> bytes:
    name = MANIFEST_NAME.encode("ascii")
    head = bytes(content[: _LOCAL.size + len(name)])
    if not (head.startswith(b"PK\3\4") and head.endswith(name)):
        raise EngineError(
            f"{path} is not an engine file (it begins with {head[:8]!r}); "
            "make one from a checkpoint with 'edgeseg export'"
        )
    size = _LOCAL.unpack_from(head)[8]
    if size > MAX_MANIFEST_BYTES:
        raise EngineError(f"{path} is damaged: its manifest claims {size} bytes")
    manifest = bytes(content[ALIGNMENT : ALIGNMENT + size])
    if len(manifest) < size:
        raise _truncated(path, len(content), f"more than {ALIGNMENT + size}")
    return manifest


def _parse_manifest(path: Path, text: bytes) -> Manifest:
    try:
        raw: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError(
            f"{path} is damaged: its manifest is not JSON; copy the file again"
        ) from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise EngineError(
            f"{path} has schema version {reprlib.repr(version)}, this edgeseg reads version "
            f"{SCHEMA_VERSION}; update edgeseg, or export the engine again with this version"
        )
    try:
        # From the text: in strict JSON a list may stand for a tuple, but a string for no number.
        manifest = Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise EngineError(f"{path} has a bad manifest: {_first_error(error)}") from error
    if set(manifest.parts) != manifest.named_parts():
        raise EngineError(
            f"{path} has a bad manifest: it lists the parts {sorted(manifest.parts)}, its targets "
            f"and golden sample need {sorted(manifest.named_parts())}"
        )
    return manifest


def _check_layout(path: Path, content: memoryview, layout: _Layout) -> None:
    if len(content) < layout.size:
        raise _truncated(path, len(content), str(layout.size))
    if len(content) > layout.size:
        raise EngineError(
            f"{path} has {len(content)} bytes, its manifest accounts for {layout.size}; "
            "something was appended, copy the file again"
        )
    for offset, expected in (*layout.headers, (layout.tail_offset, layout.tail)):
        if content[offset : offset + len(expected)] != expected:
            raise EngineError(
                f"{path} is damaged: the archive record at byte {offset} does not match the "
                "manifest; copy the file again from where it came"
            )


def _truncated(path: Path, found: int, expected: str) -> EngineError:
    return EngineError(
        f"{path} is truncated: it has {found} bytes, {expected} were expected; copy it again"
    )


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(step) for step in first["loc"]) or "manifest"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{printable(place, 200)}: {printable(first['msg'])}{more}"
