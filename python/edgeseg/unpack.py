"""An engine file as a folder, for programs that are not in Python.

The folder holds what a C++ program with `libedgeseg` needs: the networks as files, and `engine.h`
with everything around them, so that no size, mean or class name is typed twice. `manifest.json`
has the same and more for programs that read it when they run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg import trust
from edgeseg.engine_file import MANIFEST_NAME, EngineFile, Manifest, Target, open_engine
from edgeseg.errors import EngineError, InputError, printable
from edgeseg.files import cannot_write, make_folder, write_atomically

HEADER_NAME = "engine.h"
_NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(::[A-Za-z][A-Za-z0-9_]*)*")
_KEYWORD = re.compile(  # of C++20
    r"""
    alignas|alignof|and|and_eq|asm|auto|bitand|bitor|bool|break|case|catch|char|char8_t|char16_t
    |char32_t|class|co_await|co_return|co_yield|compl|concept|const|const_cast|consteval|constexpr
    |constinit|continue|decltype|default|delete|do|double|dynamic_cast|else|enum|explicit|export
    |extern|false|float|for|friend|goto|if|inline|int|long|mutable|namespace|new|noexcept|not|not_eq
    |nullptr|operator|or|or_eq|private|protected|public|register|reinterpret_cast|requires|return
    |short|signed|sizeof|static|static_assert|static_cast|struct|switch|template|this|thread_local
    |throw|true|try|typedef|typeid|typename|union|unsigned|using|virtual|void|volatile|wchar_t|while
    |xor|xor_eq
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Unpacked:
    """What was written.

    Attributes:
        written: every file, in the order in which they were written.
        native_code: those that are code which this machine did not build. A program that loads one
            runs whatever its maker wrote.
    """

    written: tuple[Path, ...]
    native_code: tuple[Path, ...]


def unpack_engine(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], *, namespace: str = "engine"
) -> Unpacked:
    """Write an engine file's parts, its manifest and a C++ header into a folder.

    The header is written last: where it is, the rest is there. Other files in the folder are left
    alone. The portable networks are checked as `Runtime` checks them, so what is written reads no
    file outside the folder.

    Args:
        path: the engine file.
        folder: where to; made if it is not there.
        namespace: C++ namespace of the header's constants, e.g. "camvid" or "robot::front".

    Raises:
        EngineError: the file or one of its networks cannot be used.
        InputError: `namespace` is no name of one.
        OutputError: the folder cannot be made, or a file in it not be written.
    """
    if not _NAMESPACE.fullmatch(namespace) or any(map(_KEYWORD.fullmatch, namespace.split("::"))):
        raise InputError(
            f"namespace {namespace!r} is no C++ name; letters, digits and _ were expected and no "
            "word of the language, with :: between several, like robot::front"
        )
    root = Path(folder)
    with open_engine(path) as engine:
        if HEADER_NAME in engine.manifest.parts:
            raise EngineError(
                f"{engine.path} has a part {HEADER_NAME!r}, where the header is to be; a name like "
                "onnx/model.onnx was expected, export the engine again"
            )
        _check_networks(engine)
        contents = {name: engine.part(name) for name in engine.manifest.parts}
        make_folder(root)
        header = root / HEADER_NAME
        try:
            header.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(header, error) from error
        for name, content in ((MANIFEST_NAME, engine.manifest_bytes), *contents.items()):
            make_folder((root / name).parent)
            write_atomically(root / name, [content])
        write_atomically(header, [cpp_header(engine.manifest, namespace).encode("ascii")])
        foreign = [
            root / name
            for target in engine.manifest.targets
            if target.requires
            for name in target.parts
            if not trust.built_here(engine.manifest.parts[name].sha256)
        ]
    names = (MANIFEST_NAME, *contents, HEADER_NAME)
    return Unpacked(tuple(root / name for name in names), tuple(foreign))


def cpp_header(manifest: Manifest, namespace: str) -> str:
    """The manifest's constants as C++17: an `edgeseg::EngineInfo` named `info`; ASCII only."""
    size = manifest.input
    mean, std = (", ".join(map(_float, numbers)) for numbers in (size.mean, size.std))
    colours = ("{" + ", ".join(map(str, colour)) + "}" for colour in manifest.palette)
    lines = [
        "// What surrounds the networks in this folder. Written by `edgeseg unpack`; do not edit.",
        "//",
        *(f"//   {', '.join(target.parts)}: {_in_words(target)}" for target in manifest.targets),
        "#pragma once",
        "",
        "#include <cstdint>",
        "",
        '#include "edgeseg/engine.h"',
        "",
        f"namespace {namespace} {{",
        "",
        *_array("const char* class_names[]", map(_string, manifest.classes)),
        "",
        *_array("std::uint8_t palette[][3]", colours),
        "",
        "inline constexpr edgeseg::EngineInfo info = {",
        f"    {_string(manifest.name)},",
        f"    {{{size.height}, {size.width}}},  // input: height, width",
        f"    {{{{{mean}}},  // mean",
        f"     {{{std}}},  // std",
        f"     {_float(size.pad)}}},  // pad",
        f"    edgeseg::Resize::{size.resize},",
        f"    {str(manifest.architecture.align_corners).lower()},  // align_corners",
        f"    {len(manifest.classes)},",
        "    class_names,",
        "    palette,",
        "};",
        "",
        f"}}  // namespace {namespace}",
        "",
    ]
    return "\n".join(lines)


def _array(declared: str, items: Iterable[str]) -> Sequence[str]:
    return [f"inline constexpr {declared} = {{", *(f"    {item}," for item in items), "};"]


def _in_words(target: Target) -> str:
    return f"{target.kind}, {target.weights} weights" + (", native code" if target.requires else "")


def _float(value: float) -> str:
    """The shortest literal of the float32 that the kernels are given."""
    return f"{np.float32(value)!s}F"


def _string(text: str) -> str:
    """A literal of its UTF-8, whatever the compiler takes source files for."""
    # Octal escapes have three digits at most, so that what follows is never taken for one.
    plain = (
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()
    )
    return '"' + "".join(plain) + '"'


def _check_networks(engine: EngineFile) -> None:
    import openvino as ov

    from edgeseg.runtime.openvino import read_model

    core = ov.Core()
    for target in engine.manifest.targets:
        if target.kind not in ("onnx", "openvino"):
            continue
        try:
            read_model(core, engine, target)
        except (RuntimeError, UnicodeDecodeError) as error:  # of a name in its message
            raise EngineError(
                f"OpenVINO {ov.__version__} cannot read the {target.kind} target of {engine.path}: "
                f"{printable(str(error))}; 'pip install -U openvino', or export the engine again"
            ) from error
