"""Networks made ready as their users would, without the Runtime, and timed from outside it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from benchmarks.gpu.device import Device
from torch import Tensor, nn

from edgeseg.errors import EngineError
from edgeseg.export.program import fold_batch_norms
from edgeseg.models import STDCSeg
from edgeseg.tensorrt_library import Library


class BareEngine(Protocol):
    """A network over one input of its own."""

    def run(self) -> Tensor:
        """Queue the network on PyTorch's current stream; its logits, of any dtype."""


class TorchEngine:
    """The network in PyTorch, channels-last, batch normalisation folded."""

    def __init__(
        self,
        model: STDCSeg,
        image: Tensor,
        precision: str,
        compile: Callable[[nn.Module], Callable[[Tensor], Tensor]] = lambda module: module,
    ) -> None:
        dtype = getattr(torch, precision)
        network = fold_batch_norms(model).requires_grad_(False)
        text = network.text_embeddings
        network = network.to(image.device, dtype, memory_format=torch.channels_last)
        if text is not None:
            network.text_embeddings = text.to(image.device)  # float32, as our exports have it
        self._image = image.to(dtype, memory_format=torch.channels_last)
        self._network = compile(network)

    def run(self) -> Tensor:
        """See `BareEngine`."""
        with torch.no_grad():
            return self._network(self._image)


class AotiEngine:
    """A package of AOTInductor."""

    def __init__(self, package: bytes, image: Tensor, precision: str) -> None:
        import edgeseg.ops  # noqa: F401  registers the operator that the package calls

        self._image = image.to(getattr(torch, precision))
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "model.pt2"
        path.write_bytes(package)
        # Its locks for several threads are no part of any CUDA graph.
        self._network = torch._inductor.aoti_load_package(str(path), run_single_threaded=True)

    def run(self) -> Tensor:
        """See `BareEngine`."""
        return self._network(self._image)


class PlanEngine:
    """A plan of TensorRT, or of TensorRT-RTX."""

    def __init__(self, library: Library, plan: bytes, image: Tensor, device: Device) -> None:
        """Load the plan.

        Args:
            library: TensorRT or TensorRT-RTX.
            plan: one input, 1×3×h×w, and one output, each float32, float16 or bfloat16.
            image: 1×3×h×w float32.
            device: where.

        Raises:
            EngineError: the library refuses the plan.
        """
        trt = library.module
        dtypes = {
            trt.DataType.FLOAT: torch.float32,
            trt.DataType.HALF: torch.float16,
            trt.DataType.BF16: torch.bfloat16,
        }
        runtime = trt.Runtime(library.messages)
        engine = runtime.deserialize_cuda_engine(plan)
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            reason = library.messages.last_error
            raise EngineError(f"{library.name} refuses the plan: {reason}")
        tensors: dict[Any, Tensor] = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = dtypes[engine.get_tensor_dtype(name)]
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                tensor = image.to(dtype).contiguous()
            else:
                shape = tuple(engine.get_tensor_shape(name))
                tensor = torch.full(shape, torch.nan, dtype=dtype, device=device.memory)
                self._logits = tensor
            tensors[name] = tensor
            context.set_tensor_address(name, tensor.data_ptr())
        self._context, self._tensors, self._stream = context, tensors, device.stream
        self._messages, self._keep = library.messages, (runtime, engine)

    def run(self) -> Tensor:
        """See `BareEngine`.

        Raises:
            EngineError: it cannot be queued.
        """
        if not self._context.execute_async_v3(self._stream()):
            reason = self._messages.last_error
            raise EngineError(f"TensorRT did not queue the plan: {reason}")
        return self._logits
