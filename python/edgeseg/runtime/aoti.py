"""AOTInductor packages: the only part of the runtime that imports torch."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast, get_args

from edgeseg.engine_file import EngineFile, FloatType, Target
from edgeseg.errors import EngineError, MissingDependencyError
from edgeseg.runtime.cuda import capturing

try:
    import torch

    import edgeseg.ops  # noqa: F401  (registers the operators that packages call)
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingDependencyError(
        "PyTorch is not installed, it runs aoti targets; pip install 'edgeseg[train]'"
    ) from error

VERSION = torch.__version__


class AotiNetwork:
    """A `CudaNetwork` from a package; attributes as there.

    Each context has its own copy of the weights: packages share nothing in the form that torch's
    CUDA graphs can hold. Memory that torch allocates within a graph must be torch's own, so every
    context has a graph inside and may not become part of another one.
    """

    name = "aoti"
    capturable = False

    def __init__(self, engine: EngineFile, target: Target, device: str) -> None:
        """Load a package. It is code: see `gpu_targets` first.

        Args:
            engine: the open engine file.
            target: of kind "aoti", compiled for that device.
            device: "cuda:0" or the like; "cpu" takes host addresses and ignores streams.

        Raises:
            EngineError: torch refuses the package, or it is not what the manifest describes.
        """
        if target.precision not in get_args(FloatType):
            raise EngineError(
                f"the aoti target of {engine.path} computes in {target.precision}, one of "
                f"{', '.join(get_args(FloatType))} was expected; export it again"
            )
        self.precision: str = target.precision or ""
        self.input_dtype = self.logits_dtype = cast(FloatType, target.precision)
        self._dtype: torch.dtype = getattr(torch, self.precision)
        self._device = torch.device(device)
        self._what = f"the package {target.parts[0]} of {engine.path}"
        self._package = bytes(engine.part(target.parts[0]))
        size, classes = engine.manifest.input, len(engine.manifest.classes)
        self._input_shape = (1, 3, size.height, size.width)
        try:
            image = torch.zeros(self._input_shape, dtype=self._dtype, device=self._device)
        except RuntimeError as error:
            raise self._error("cannot be run", error) from error
        logits = self.run(self.load(), image)
        shape = tuple(logits.shape)
        if (
            len(shape) != 4
            or shape[:2] != (1, classes)
            or shape[2] > size.height
            or shape[3] > size.width
            or logits.dtype != self._dtype
        ):
            raise EngineError(
                f"{self._what} gives {logits.dtype} {shape}, the manifest's {classes} classes need "
                f"{self._dtype} (1, {classes}, h, w), no larger than the input's "
                f"{size.height}×{size.width}; export it again"
            )
        self.logits = (classes, shape[2], shape[3])

    def context(self) -> AotiContext:
        """A context with its own copy of the network.

        Raises:
            EngineError: there is too little memory for it.
        """
        return AotiContext(self, self.load())

    def load(self) -> Callable[..., Any]:
        """The package's network, loaded once more."""
        index = -1 if self._device.index is None else self._device.index
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt2"
            path.write_bytes(self._package)
            try:
                network: Callable[..., Any] = torch._inductor.aoti_load_package(
                    str(path), run_single_threaded=True, device_index=index
                )
            except RuntimeError as error:
                raise self._error("cannot be loaded", error) from error
        return network

    def run(self, network: Callable[..., Any], image: torch.Tensor) -> torch.Tensor:
        """Logits of one image, on torch's current stream.

        Raises:
            EngineError: the network fails, or there is too little memory.
        """
        try:
            logits = network(image)
        except RuntimeError as error:
            raise self._error("cannot be run", error) from error
        return cast(torch.Tensor, logits[0] if isinstance(logits, (list, tuple)) else logits)

    def views(self, image: int, logits: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Input and output as tensors in the memory at two addresses."""
        return self._view(image, self._input_shape), self._view(logits, (1, *self.logits))

    def on(self, stream: int) -> AbstractContextManager[Any]:
        """Makes a cudaStream_t torch's current stream."""
        if self._device.type == "cpu":
            return nullcontext()
        return torch.cuda.stream(self.external(stream))

    def external(self, stream: int) -> torch.cuda.Stream:
        """A cudaStream_t as torch knows it."""
        return torch.cuda.ExternalStream(stream, self._device)  # type: ignore[no-untyped-call]

    @property
    def has_graphs(self) -> bool:
        """Whether the device runs CUDA graphs."""
        return self._device.type == "cuda"

    def _view(self, address: int, shape: tuple[int, ...]) -> torch.Tensor:
        size = self._dtype.itemsize
        for extent in shape:
            size *= extent
        if self._device.type == "cpu":
            memory = (ctypes.c_uint8 * size).from_address(address)
            return torch.frombuffer(memory, dtype=self._dtype).view(shape)
        flat = torch.as_tensor(_Bytes(address, size), device=self._device)
        return flat.view(self._dtype).view(shape)

    def _error(self, what: str, error: RuntimeError) -> EngineError:
        lines = str(error).strip().splitlines()
        return EngineError(
            f"{self._what} {what}: {lines[0] if lines else type(error).__name__}; free GPU memory "
            "if that is the reason, or export it again on this machine: "
            "edgeseg export CHECKPOINT FILE --target aoti"
        )


class AotiContext:
    """A `CudaContext` of AOTInductor; after the first `enqueue` the network is a graph."""

    def __init__(self, network: AotiNetwork, loaded: Callable[..., Any]) -> None:
        self._network = network
        self._loaded = loaded
        self._addresses = (0, 0)
        self._graph: torch.cuda.CUDAGraph | None = None

    def enqueue(self, image: int, logits: int, stream: int) -> None:
        """See `CudaContext.enqueue`."""
        network = self._network
        with network.on(stream):
            if self._addresses != (image, logits):
                self._addresses, self._graph = (image, logits), None
                self._image, self._logits = network.views(image, logits)
                self._run()
            elif self._graph is not None:
                self._graph.replay()
            elif network.has_graphs:
                self._capture(stream)
            else:
                self._run()

    def _run(self) -> None:
        self._logits.copy_(self._network.run(self._loaded, self._image))

    def _capture(self, stream: int) -> None:
        graph = torch.cuda.CUDAGraph()
        external = self._network.external(stream)
        # Other threads may use the device meanwhile, but not begin a graph.
        with (
            capturing,
            torch.cuda.graph(graph, stream=external, capture_error_mode="thread_local"),
        ):
            self._run()
        self._graph = graph
        graph.replay()


class _Bytes:
    """Memory on the device, as torch takes it."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": (size,),
            "strides": None,
            "typestr": "|u1",
            "stream": None,
        }
