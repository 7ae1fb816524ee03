"""`build_engine`: a plan for GPUs from an engine file's ONNX part, on the device, without torch.

TensorRT and TensorRT-RTX share this builder; only the library differs. TensorRT times its kernels
on the GPU that is present, and its plan is for that GPU. TensorRT-RTX chooses kernels where the
plan runs, so it builds without a GPU, for several compute capabilities at once.

The network is strongly typed in both: every layer computes in the type that its tensors have
(`edgeseg.export.float16`), which is also all that TensorRT 11 knows.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from edgeseg import trust
from edgeseg.arguments import check_choice
from edgeseg.engine_file import (
    Agreement,
    EngineFile,
    Manifest,
    Target,
    add_target,
    open_engine,
    write_engine,
)
from edgeseg.errors import EngineError, InputError, MissingDependencyError, OutputError, printable
from edgeseg.files import write_atomically
from edgeseg.machine import Gpu, driver_installed, gpus, outdated_driver, this_platform
from edgeseg.runtime.gpu_targets import find_gpu
from edgeseg.runtime.verification import verify
from edgeseg.tensorrt_library import Library, PlanKind, load_library

PlanPrecision = Literal["auto", "float16", "float32", "int8"]
Progress = Callable[[int, int | None], None]
_Binding = tuple[str, tuple[int, ...]]  # name and shape

logger = logging.getLogger("edgeseg.tensorrt")

# -------------------------------------------------------------------------------- engine files


def build_engine(
    path: str | os.PathLike[str],
    target: PlanKind = "tensorrt",
    *,
    precision: PlanPrecision = "auto",
    capabilities: Sequence[str] = (),
    timing_cache: str | os.PathLike[str] | None = None,
    optimization_level: int = 3,
    progress: Progress | None = None,
) -> Manifest:
    """Add a plan to an engine file in place, instead of an earlier one for the same GPUs.

    With a GPU that can run it, the plan then labels the golden sample through the Runtime; if too
    few labels are as trained, the file stays as it was. Without one (TensorRT-RTX only) the plan
    is stored unmeasured: its target has no agreement.

    Args:
        path: the engine file; it stays as it was on any error.
        target: "tensorrt" for the GPU that is present, "tensorrt-rtx" with or without one.
        precision: what it computes in. "auto" is INT8 where the file has a Q/DQ form that was
            measured to be harmless, else float16.
        capabilities: of the GPUs that a "tensorrt-rtx" plan is for, e.g. ("8.6", "8.9"); empty is
            the present GPU's, or without a GPU all that the library knows.
        timing_cache: file with TensorRT's measurements of earlier builds, read and written; None
            is one for this version and GPU in $XDG_CACHE_HOME/edgeseg.
        optimization_level: 0..5, how long TensorRT searches; 3 is its own default.
        progress: called with the steps that are done and their number.

    Returns:
        The manifest; its last target is the new one.

    Raises:
        MissingDependencyError: the library, or onnx, is not installed.
        InputError: an argument is out of range, or is not for this target.
        EngineError: there is no GPU to build for, the library refuses the network, or the plan
            does not compute the trained network.
        OutputError: the file cannot be written.
    """
    check_choice("target", target, get_args(PlanKind))
    check_choice("precision", precision, get_args(PlanPrecision))
    if not 0 <= optimization_level <= 5:
        raise InputError(f"optimization level {optimization_level} is not in 0..5; 3 is usual")
    gpu = _gpu(target)
    library = load_library(target)
    wanted = _capabilities(library, gpu, capabilities)
    cache = _timing_cache(library, gpu, timing_cache)
    checker = gpu if gpu is not None and gpu.compute_capability in wanted else None
    if checker is not None:
        find_gpu(checker.index)  # refused now, if the Runtime could not use it after the build

    with open_engine(path) as engine:
        manifest = engine.manifest
        source, precision = _source(engine, precision)
        plan = build_plan(
            library,
            bytes(engine.part(source.parts[0])),
            manifest,
            float16=precision != "float32",
            capabilities=wanted,
            timing_cache=cache,
            optimization_level=optimization_level,
            progress=progress,
        )
        golden = {
            name: bytes(engine.part(name))
            for name in (manifest.golden.frame, manifest.golden.labels)
        }
    made = _target(library, precision, wanted, len(manifest.classes), source)
    part = {made.parts[0]: plan}
    trust.remember(hashlib.sha256(plan).hexdigest())
    if checker is not None:
        measured = _measure(Path(path), manifest, made, part | golden, checker)
        made = made.model_copy(update={"agreement": (measured,)})
    return add_target(path, made, part)


def _gpu(kind: PlanKind) -> Gpu | None:
    """The GPU that TensorRT would take, the first one.

    Raises:
        MissingDependencyError, EngineError: there is none, and one is needed.
    """
    if present := gpus():
        return present[0]
    if kind == "tensorrt-rtx":
        return None
    instead = (
        "'edgeseg build FILE --target tensorrt-rtx' builds a plan without a GPU, and the engine "
        "file as it is runs on CPUs"
    )
    if not driver_installed():
        raise EngineError(
            "no NVIDIA driver is on this machine (no libcuda.so.1), TensorRT builds a plan on the "
            f"GPU that runs it; install the driver, or build on the device. {instead}"
        )
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        raise MissingDependencyError(
            "cuda-bindings is not installed, it finds the GPU; pip install 'edgeseg[gpu]', in the "
            "source folder pip install '.[gpu]'"
        )
    if reason := outdated_driver():
        raise EngineError(f"{reason}. {instead}")
    raise EngineError(
        "the NVIDIA driver finds no GPU here that CUDA can use, TensorRT builds a plan on the GPU "
        f"that runs it; see 'edgeseg doctor'. {instead}"
    )


def _capabilities(library: Library, gpu: Gpu | None, asked: Sequence[str]) -> tuple[str, ...]:
    """Compute capabilities to build for, in the library's order."""
    if library.kind == "tensorrt":
        assert gpu is not None
        if asked and tuple(asked) != (gpu.compute_capability,):
            raise InputError(
                f"compute capabilities {', '.join(asked)} were given, a TensorRT plan is for the "
                f"GPU that builds it ({gpu.name}, {gpu.compute_capability}); leave them out, or "
                "take --target tensorrt-rtx"
            )
        return (gpu.compute_capability,)
    known = tuple(_listed(library.module))
    wanted = tuple(asked) or ((gpu.compute_capability,) if gpu is not None else known)
    if unknown := [capability for capability in wanted if capability not in known]:
        present = f" ({gpu.name} has {gpu.compute_capability})" if gpu is not None else ""
        raise EngineError(
            f"{library.name} builds for compute capability {', '.join(known)}, not for "
            f"{', '.join(unknown)}{present}; on that GPU take --target tensorrt"
        )
    return tuple(capability for capability in known if capability in wanted)


def _listed(module: Any) -> dict[str, Any]:
    """The library's names of compute capabilities: {"8.6": ComputeCapability.SM86, ...}."""
    members = module.ComputeCapability.__members__
    found = {
        (int(match[1]), int(match[2])): member
        for name, member in members.items()
        if (match := re.fullmatch(r"SM(\d+)(\d)", name))
    }
    return {f"{major}.{minor}": found[major, minor] for major, minor in sorted(found)}


def _source(engine: EngineFile, precision: PlanPrecision) -> tuple[Target, PlanPrecision]:
    """The ONNX target to build from, and what "auto" is."""
    portable = engine.manifest.target("onnx")
    quantized = engine.manifest.target("onnx", quantized=True)
    if precision == "auto":
        made = None if quantized is None else quantized.quantization
        precision = "int8" if made is not None and made.harmless else "float16"
    if precision == "int8":
        if quantized is None:
            raise EngineError(
                f"{engine.path} has no INT8 form for TensorRT; make one with 'edgeseg quantize "
                f"{engine.path} --data MINE --target onnx', or build in float16"
            )
        return quantized, precision
    if portable is None:
        raise EngineError(
            f"{engine.path} has no ONNX target to build from; export the engine again"
        )
    return portable, precision


def _target(
    library: Library,
    precision: PlanPrecision,
    capabilities: Sequence[str],
    classes: int,
    source: Target,
) -> Target:
    devices = "-".join(f"sm{capability.replace('.', '')}" for capability in capabilities)
    return Target.model_validate(
        {
            "kind": library.kind,
            "parts": (f"{library.kind}/{devices}-{precision}.plan",),
            "weights": precision,
            "precision": precision,
            "requires": {
                "library": library.kind,
                "version": library.version,
                "compute_capability": " ".join(capabilities),
                "platform": this_platform(),
                "classes": str(classes),
            },
            "quantization": source.quantization,
        }
    )


def _measure(
    path: Path, manifest: Manifest, target: Target, parts: dict[str, bytes], gpu: Gpu
) -> Agreement:
    """Label the golden sample with the plan alone, so that the Runtime has no choice."""
    alone = manifest.model_copy(update={"targets": (target,)})
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        write_engine(draft, alone, parts)
        verification = verify(draft, precision="int8" if target.quantized else "auto")
    if not verification.ok:
        raise EngineError(
            f"the plan labels only {verification.agreement:.2%} of the golden sample's pixels as "
            f"trained, on {gpu.name} in {target.precision}; {path} stays as it was, try "
            "--precision float32"
        )
    assert target.precision is not None
    return Agreement(
        precision=target.precision, device=gpu.name, frames=1, pixels=verification.agreement
    )


# --------------------------------------------------------------------------------------- plans


def build_plan(
    library: Library,
    network: bytes,
    manifest: Manifest,
    *,
    float16: bool,
    capabilities: Sequence[str],
    timing_cache: Path | None = None,
    optimization_level: int = 3,
    progress: Progress | None = None,
) -> bytes:
    """Build a plan: "image" 1×3×h×w -> "logits" 1×K×⌈h/8⌉×⌈w/8⌉, linear, both of one type.

    Args:
        library: what builds it.
        network: ONNX in float32, or with 8-bit quantizers (Q/DQ) in it.
        manifest: says how many pixels and classes there are.
        float16: take the float16 form of the network.
        capabilities: for "tensorrt-rtx": compute capabilities of the GPUs that it is for.
        timing_cache: read and written if given; one that does not fit is started anew.
        optimization_level: 0..5.
        progress: called with the steps that are done and their number.

    Raises:
        MissingDependencyError: onnx is not installed.
        EngineError: the network is not the manifest's, or the library refuses it.
    """
    trt = library.module
    messages = library.messages
    messages.last_error = ""
    builder = trt.Builder(messages)
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, messages)
    if not parser.parse(_onnx(network, float16=float16)):
        raise EngineError(
            f"{library.name} cannot take {_parser_error(parser)}; install another version of it, "
            "or leave the engine to the CPU"
        )
    _check_network(definition, manifest)

    config = builder.create_builder_config()
    config.builder_optimization_level = optimization_level
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32, not 10 bits of it
    # TensorRT-RTX builds in about a second; a cancelled build of it is suspected of a crash later.
    monitor = _monitor(trt, progress, cancels=library.kind == "tensorrt")
    config.progress_monitor = monitor
    if library.kind == "tensorrt-rtx":
        listed = _listed(trt)
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(listed[capability], index)
    cache = None if timing_cache is None else _read_timings(config, timing_cache)
    with _ctrl_c_ends(monitor):
        plan = builder.build_serialized_network(definition, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        reason = printable(messages.last_error, replacement=" ") or "it gives no reason"
        raise EngineError(
            f"{library.name} could not build the network: {reason}; is there GPU memory left? "
            "Close what else uses it, and try again"
        )
    if cache is not None and timing_cache is not None:
        _write_timings(config, timing_cache)
    return bytes(plan)


def _onnx(network: bytes, *, float16: bool) -> bytes:
    """The network that is handed to the parser, with all of its weights in it."""
    onnx = _onnx_package()

    from edgeseg.export.float16 import to_float16

    try:
        model = onnx.load_from_string(network)
    except Exception as error:  # protobuf's DecodeError
        raise EngineError("the ONNX part is no ONNX; export the engine again") from error
    # The parser would follow it to any file of this machine.
    attributes = (attribute.t for node in model.graph.node for attribute in node.attribute)
    tensors = (*model.graph.initializer, *attributes)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise EngineError(
            "the ONNX part keeps weights in another file, which is never read; export the engine "
            "again, with its weights inside"
        )
    return bytes((to_float16(model) if float16 else model).SerializeToString())


def _onnx_package() -> ModuleType:
    if find_spec("onnx") is None:
        raise MissingDependencyError(
            "onnx is not installed, it reads the network that a plan is built from; "
            "pip install 'edgeseg[gpu]', in the source folder pip install '.[gpu]'"
        )
    return import_module("onnx")


def _parser_error(parser: Any) -> str:
    """The first error, in one sentence; it quotes the file."""
    if parser.num_errors == 0:
        return "the ONNX part (it gives no reason)"
    error = parser.get_error(0)
    sentence = (
        f"node {error.node_name() or '(no name)'} ({error.node_operator()}) of the ONNX part: "
        f"{error.desc()}"
    )
    return printable(sentence, replacement=" ")


def _check_network(definition: Any, manifest: Manifest) -> None:
    """Refuse a network that is not the manifest's, before minutes go into building it."""
    size, classes = manifest.input, len(manifest.classes)
    expected: tuple[list[_Binding], list[_Binding]] = (
        [("image", (1, 3, size.height, size.width))],
        [("logits", (1, classes, -(-size.height // 8), -(-size.width // 8)))],
    )
    found = (
        [_binding(definition.get_input(i)) for i in range(definition.num_inputs)],
        [_binding(definition.get_output(i)) for i in range(definition.num_outputs)],
    )
    if found != expected:
        raise EngineError(
            f"the network takes {_spell(found[0])} and gives {_spell(found[1])}, the manifest's "
            f"{classes} classes and {size.height}×{size.width} input need {_spell(expected[0])} "
            f"and {_spell(expected[1])}; export the engine again"
        )


def _binding(tensor: Any) -> _Binding:
    return tensor.name, tuple(tensor.shape)


def _spell(bindings: list[_Binding]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in bindings) or "nothing"


# -------------------------------------------------------------- what the library calls back into


def _monitor(trt: Any, progress: Progress | None, *, cancels: bool) -> Any:
    """Tells of the outermost phase; `cancels` ends the build once `interrupted` is set."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._outermost: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._outermost[phase] = steps
                self._tell(0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in self._outermost:
                self._tell(step + 1, self._outermost[phase])
            return not (cancels and self.interrupted)

        def phase_finish(self, phase: str) -> None:
            if steps := self._outermost.pop(phase, None):
                self._tell(steps, steps)

        def _tell(self, done: int, steps: int) -> None:
            if progress is not None:
                progress(done, steps)

    return Monitor()


@contextmanager
def _ctrl_c_ends(monitor: Any) -> Iterator[None]:
    """Ctrl-C ends the build at its next step; no exception may pass through the library."""
    if threading.current_thread() is not threading.main_thread():  # signals go to that one
        yield
        return

    def interrupt(*_: object) -> None:
        monitor.interrupted = True

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -------------------------------------------------------------------------------- timing cache


def _timing_cache(
    library: Library, gpu: Gpu | None, asked: str | os.PathLike[str] | None
) -> Path | None:
    """The file to keep timings in; None for TensorRT-RTX, which times nothing when it builds."""
    if library.kind == "tensorrt-rtx":
        if asked is not None:
            raise InputError(
                f"a timing cache ({os.fspath(asked)}) was given, TensorRT-RTX times nothing when "
                "it builds; leave it out"
            )
        return None
    assert gpu is not None
    if asked is not None:
        return Path(asked)
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not folder.is_absolute():  # as the XDG specification wants it
        folder = Path.home() / ".cache"
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{library.version}-{gpu.name}-{gpu.compute_capability}")
    return folder / "edgeseg" / f"tensorrt-{name}.timings"


def _read_timings(config: Any, path: Path) -> Any:
    """Attach the timings in a file, or none; the result must outlive the build."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        logger.warning("cannot read the timing cache %s: %s; timing anew", path, error)
        content = b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        logger.warning("the timing cache %s is of another GPU or version; timing anew", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _write_timings(config: Any, path: Path) -> None:
    """Keep the timings; a build that took minutes is not lost over a cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, [bytes(config.get_timing_cache().serialize())])
    except (OSError, OutputError) as error:
        logger.warning("cannot write the timing cache: %s", error)
