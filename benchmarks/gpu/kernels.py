"""The kernels: checked against double precision, then timed beside PyTorch's way of doing it.

The PyTorch form is what one would write without the kernel; it runs under CUDA graphs like ours,
and once more as Inductor fuses it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from benchmarks.gpu import counts
from benchmarks.gpu.clocks import Launch
from benchmarks.gpu.counts import Ceilings, Work, floor_us
from benchmarks.gpu.device import Device
from benchmarks.gpu.results import KernelRow, Ratio, one_line
from tests.kernels.cases import MEAN, STD
from torch import Tensor

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
HALF_ULP = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
DType = Literal["float32", "float16", "bfloat16"]
Tensors = dict[str, Tensor]


class KernelBench(Protocol):
    """One kernel on one case."""

    kernel: str
    fused_by_inductor: bool  # whether to compile the PyTorch form as well; it takes seconds

    @property
    def case(self) -> str:
        """Shapes, dtypes, layouts."""

    def work(self) -> Work:
        """Counted."""

    def make(self, device: Device, seed: int) -> Tensors:
        """Fresh random inputs, and poisoned outputs."""

    def ours(self, device: Device, tensors: Tensors) -> Tensor:
        """Launch the kernel; what it writes."""

    def torch_form(self, tensors: Tensors) -> Tensor:
        """The same by PyTorch."""

    def wrong(self, tensors: Tensors, found: Tensor, *, strict: bool) -> str | None:
        """What is wrong with an output, if anything; `strict` for the kernel's own contract."""


@dataclass(frozen=True)
class ScoreMap:
    """Features N×C×H×W beside their cosines with K vectors."""

    shape: tuple[int, int, int, int]
    classes: int
    dtype: DType
    channels_last: bool = False
    fused_by_inductor: bool = True
    kernel: str = "score_map_concat"

    @property
    def case(self) -> str:
        layout = "channels-last" if self.channels_last else "NCHW"
        return f"{_times(self.shape)}, K = {self.classes}, {self.dtype}, {layout}"

    def work(self) -> Work:
        return counts.score_map_concat(*self.shape, self.classes, DTYPES[self.dtype].itemsize)

    def make(self, device: Device, seed: int) -> Tensors:
        n, c, h, w = self.shape
        random = _generator(device, seed)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        features = _normal(self.shape, random).to(DTYPES[self.dtype], memory_format=layout)
        out = torch.empty(
            (n, c + self.classes, h, w),
            dtype=features.dtype,
            device=device.memory,
            memory_format=layout,
        ).fill_(torch.nan)
        text = F.normalize(_normal((self.classes, c), random), dim=1)
        # PyTorch's convolution wants its weights in the features' dtype.
        weight = text[:, :, None, None].to(features.dtype)
        return {"features": features, "text": text, "weight": weight, "out": out}

    def ours(self, device: Device, tensors: Tensors) -> Tensor:
        device.score_map_concat(tensors["features"], tensors["text"], tensors["out"])
        return tensors["out"]

    def torch_form(self, tensors: Tensors) -> Tensor:
        features = tensors["features"]
        scores = F.conv2d(F.normalize(features, dim=1), tensors["weight"])
        return torch.cat([features, scores], dim=1)

    def wrong(self, tensors: Tensors, found: Tensor, *, strict: bool) -> str | None:
        features, text = tensors["features"].double(), tensors["text"].double()
        channels = features.shape[1]
        if not torch.equal(found[:, :channels], tensors["features"]):
            return "the features are not copied bit for bit"
        exact = torch.einsum("nchw,kc->nkhw", F.normalize(features, dim=1), text)
        error = (found[:, channels:].double() - exact).abs()
        allowed = (
            1e-6 + HALF_ULP[self.dtype] * exact.abs() * 1.001
            if strict
            else torch.full_like(exact, 2e-2)
        )
        return _beyond(error, allowed)


@dataclass(frozen=True)
class Preprocess:
    """A frame of (H, W) pixels to a normalised 3×h×w tensor."""

    frame: tuple[int, int]
    size: tuple[int, int]
    pixel_format: Literal["bgr", "rgb", "nv12"] = "bgr"
    dtype: DType = "float16"
    fused_by_inductor: bool = True
    kernel: str = "preprocess"

    @property
    def case(self) -> str:
        return f"{self.pixel_format} {_wide(self.frame)} → {_wide(self.size)}, {self.dtype}"

    def work(self) -> Work:
        return counts.preprocess(
            self.frame, self.size, self.pixel_format, DTYPES[self.dtype].itemsize
        )

    def make(self, device: Device, seed: int) -> Tensors:
        h, w = self.frame
        shape = (h * 3 // 2, w) if self.pixel_format == "nv12" else (h, w, 3)
        frame = torch.randint(
            0, 256, shape, generator=_generator(device, seed), dtype=torch.uint8,
            device=device.memory,
        )  # fmt: skip
        out = torch.full((3, *self.size), torch.nan, dtype=DTYPES[self.dtype], device=device.memory)
        mean, std = (
            torch.tensor(values, device=device.memory).reshape(3, 1, 1) for values in (MEAN, STD)
        )
        return {"frame": frame, "mean": mean, "std": std, "out": out}

    def ours(self, device: Device, tensors: Tensors) -> Tensor:
        device.preprocess(
            tensors["frame"], self.frame, self.pixel_format, tensors["out"], mean=MEAN, std=STD
        )
        return tensors["out"]

    def torch_form(self, tensors: Tensors) -> Tensor:
        return self._resized(tensors, torch.float32).to(DTYPES[self.dtype])

    def wrong(self, tensors: Tensors, found: Tensor, *, strict: bool) -> str | None:
        exact = self._resized(tensors, torch.float64)
        error = (found.double() - exact).abs()
        # PyTorch's positions are float32.
        grey_levels = 2.0**-21 * 255 if strict else 0.1
        allowed = grey_levels / min(STD) + HALF_ULP[self.dtype] * exact.abs() * 1.001
        return _beyond(error, allowed)

    def _resized(self, tensors: Tensors, dtype: torch.dtype) -> Tensor:
        planes = _rgb(tensors["frame"], self.pixel_format).to(dtype)
        if self.size != self.frame:
            planes = F.interpolate(planes[None], self.size, mode="bilinear")[0]
        return (planes - tensors["mean"].to(dtype)) / tensors["std"].to(dtype)


@dataclass(frozen=True)
class Upsample:
    """Logits N×K×h×w to labels N×H×W, and with `confidence` their probabilities.

    `smooth` logits have one winner in most cells, like a network's; the others are noise, in which
    hardly any has.
    """

    shape: tuple[int, int, int, int]
    size: tuple[int, int]
    dtype: DType = "float16"
    smooth: bool = True
    confidence: bool = False
    align_corners: bool = True
    fused_by_inductor: bool = True
    kernel: str = "upsample_argmax"

    @property
    def case(self) -> str:
        kind = "smooth" if self.smooth else "random"
        confidence = ", confidence" if self.confidence else ""
        return f"{_times(self.shape)} → {_wide(self.size)}, {self.dtype}, {kind}{confidence}"

    def work(self) -> Work:
        return counts.upsample_argmax(
            *self.shape, self.size, DTYPES[self.dtype].itemsize, confidence=self.confidence
        )

    def make(self, device: Device, seed: int) -> Tensors:
        n, k, h, w = self.shape
        random = _generator(device, seed)
        if self.smooth:
            coarse = _normal((n, k, -(-h // 16) + 1, -(-w // 16) + 1), random)
            logits = 4 * F.interpolate(coarse, (h, w), mode="bicubic")
        else:
            logits = _normal(self.shape, random)
        tensors = {
            "logits": logits.to(DTYPES[self.dtype]),
            "labels": torch.full((n, *self.size), 255, dtype=torch.uint8, device=device.memory),
        }
        if self.confidence:
            tensors["confidence"] = torch.full((n, *self.size), torch.nan, device=device.memory)
        return tensors

    def ours(self, device: Device, tensors: Tensors) -> Tensor:
        device.upsample_argmax(
            tensors["logits"],
            tensors["labels"],
            tensors.get("confidence"),
            align_corners=self.align_corners,
        )
        return tensors["labels"]

    def torch_form(self, tensors: Tensors) -> Tensor:
        logits = F.interpolate(
            tensors["logits"], self.size, mode="bilinear", align_corners=self.align_corners
        )
        if not self.confidence:
            return logits.argmax(dim=1).to(torch.uint8)
        probability, labels = logits.softmax(dim=1).max(dim=1)
        tensors["torch_confidence"] = probability
        return labels.to(torch.uint8)

    def wrong(self, tensors: Tensors, found: Tensor, *, strict: bool) -> str | None:
        if int(found.max()) >= self.shape[1]:
            return f"label {int(found.max())} of {self.shape[1]} classes"
        exact = F.interpolate(
            tensors["logits"].double(), self.size, mode="bilinear", align_corners=self.align_corners
        )
        peak = float(tensors["logits"].abs().max())
        chosen = exact.gather(1, found[:, None].long())[:, 0]
        # The contract: sixteen ulps. PyTorch interpolates and compares in the logits' dtype.
        ulps = 16 * 2.0**-23 if strict else 8 * HALF_ULP[self.dtype]
        error = exact.amax(dim=1) - chosen
        if problem := _beyond(error, torch.full_like(error, ulps * peak)):
            return problem
        if not (self.confidence and strict):
            return None
        probability = exact.softmax(dim=1).gather(1, found[:, None].long())[:, 0]
        error = (tensors["confidence"].double() - probability).abs()
        return _beyond(error, 4e-6 * probability + 1e-7)


@dataclass(frozen=True)
class Overlay:
    """Class colours over a frame of (H, W) pixels."""

    size: tuple[int, int]
    alpha: int = 128
    fused_by_inductor: bool = True
    kernel: str = "overlay"

    @property
    def case(self) -> str:
        return f"{_wide(self.size)}, alpha {self.alpha}"

    def work(self) -> Work:
        return counts.overlay(self.size)

    def make(self, device: Device, seed: int) -> Tensors:
        random = _generator(device, seed)

        def bytes_of(*shape: int) -> Tensor:
            return torch.randint(
                0, 256, shape, generator=random, dtype=torch.uint8, device=device.memory
            )

        frame = bytes_of(*self.size, 3)
        # The output begins as anything but the frame, so that a pixel left out shows.
        return {
            "frame": frame,
            "labels": bytes_of(*self.size),
            "palette": bytes_of(256, 3),
            "out": frame.bitwise_xor(255),
        }

    def ours(self, device: Device, tensors: Tensors) -> Tensor:
        device.overlay(
            tensors["frame"], tensors["labels"], tensors["palette"], tensors["out"], self.alpha
        )
        return tensors["out"]

    def torch_form(self, tensors: Tensors) -> Tensor:
        frame, labels = tensors["frame"], tensors["labels"]
        colours = tensors["palette"][labels.int()].int()
        blended = (frame.int() * (256 - self.alpha) + colours * self.alpha + 128) >> 8
        return torch.where(labels[..., None] == 255, frame, blended.to(torch.uint8))

    def wrong(self, tensors: Tensors, found: Tensor, *, strict: bool) -> str | None:
        exact = self.torch_form(tensors).double()  # integers: PyTorch's are exact
        return _beyond((found.double() - exact).abs(), torch.zeros_like(exact))


SCORE_MAP_SHAPES = ((1, 1024, 16, 32), (1, 1024, 23, 30), (1, 1024, 32, 64), (8, 1024, 16, 32))
FRAMES = ((480, 640), (720, 1280), (1080, 1920), (1024, 2048), (2160, 3840))
NETWORKS = ((512, 1024), (720, 960))


def all_benches() -> Iterator[KernelBench]:
    """Every kernel in every case that is timed."""
    for shape, classes, dtype, last in itertools.product(
        SCORE_MAP_SHAPES, (1, 11, 19, 150), DTYPES, (False, True)
    ):
        yield ScoreMap(shape, classes, dtype, last, fused_by_inductor=classes == 19)
    for frame, size, pixels in itertools.product(FRAMES, NETWORKS, ("bgr", "rgb", "nv12")):
        yield Preprocess(frame, size, pixels, fused_by_inductor=pixels != "rgb")
    for dtype in ("float32", "bfloat16"):
        yield Preprocess((1024, 2048), (512, 1024), "bgr", dtype)
    for dtype, smooth, confidence in itertools.product(DTYPES, (True, False), (False, True)):
        yield Upsample((1, 19, 64, 128), (1024, 2048), dtype, smooth, confidence)
    for smooth in (True, False):
        yield Upsample((1, 19, 64, 128), (512, 1024), "float16", smooth)
        yield Upsample((1, 11, 90, 120), (720, 960), "float16", smooth)
        yield Upsample((1, 150, 64, 128), (1024, 2048), "float16", smooth)
    yield Overlay((720, 960))
    yield Overlay((1024, 2048))
    yield Overlay((2160, 3840))


def measure(
    benches: Iterable[KernelBench],
    device: Device,
    ceilings: Ceilings,
    *,
    rounds: int,
    progress: Callable[[str], object],
) -> tuple[tuple[KernelRow, ...], tuple[str, ...]]:
    """Rows, and what was not measured and why. A kernel whose output is wrong is not timed."""
    rows: list[KernelRow] = []
    missing: list[str] = []
    for bench in benches:
        progress(f"{bench.kernel}: {bench.case}")
        name = f"{bench.kernel}, {bench.case}"
        torch.compiler.reset()  # every case is compiled for itself
        try:
            forms = _checked_forms(bench, device, name, missing)
            if "ours" not in forms:
                continue
            for cache in ("cold", "warm"):
                rows.append(_timed(bench, device, ceilings, forms, cache, rounds))
        except Exception as error:  # whatever CUDA, PyTorch or its compiler raise
            missing.append(f"{name}: {one_line(error)}")
    return tuple(rows), tuple(missing)


Form = Callable[[Tensors], Tensor]


def _checked_forms(
    bench: KernelBench, device: Device, name: str, missing: list[str]
) -> Mapping[str, Form]:
    """The contenders that give the right output on fresh inputs."""
    forms: dict[str, Form] = {
        "ours": lambda tensors: bench.ours(device, tensors),
        "torch": bench.torch_form,
    }
    if bench.fused_by_inductor:
        forms["inductor"] = device.compile(bench.torch_form)
    right: dict[str, Form] = {}
    for form, run in forms.items():
        tensors = bench.make(device, seed=1000)
        try:
            problem = bench.wrong(tensors, run(tensors), strict=form == "ours")
        except Exception as error:
            problem = one_line(error)
        if problem is None:
            right[form] = run
        else:
            missing.append(f"{name}, {form}: {problem}")
    return right


def _timed(
    bench: KernelBench,
    device: Device,
    ceilings: Ceilings,
    forms: Mapping[str, Form],
    cache: Literal["cold", "warm"],
    rounds: int,
) -> KernelRow:
    work = bench.work()
    sets = 1 if cache == "warm" else 2 + 2 * device.cache_bytes // work.bytes
    tensors = [bench.make(device, seed) for seed in range(sets)]
    contenders = {form: _rotating(run, tensors) for form, run in forms.items()}
    times = device.kernel_clock.time(contenders, rounds=rounds, launches=max(sets, 20))
    ours = times["ours"]
    return KernelRow(
        kernel=bench.kernel,
        case=bench.case,
        cache=cache,
        bytes=work.bytes,
        operations=work.operations,
        floor_us=floor_us(work, ceilings),
        us={form: 1e3 * of_form.p50 for form, of_form in times.items()},
        ratios=tuple(
            Ratio.of(form, of_form, ours) for form, of_form in times.items() if form != "ours"
        ),
    )


def _rotating(run: Form, tensors: list[Tensors]) -> Launch:
    """The form on one set after another; its outputs live until their set's next turn, so that
    PyTorch writes to as much memory as our kernels do."""
    outputs: dict[int, Tensor] = {}

    def launch(number: int) -> None:
        turn = number % len(tensors)
        outputs[turn] = run(tensors[turn])

    return launch


def _rgb(frame: Tensor, pixel_format: str) -> Tensor:
    """Planes R, G, B as 3×H×W grey levels; NV12 in the kernels' fixed point."""
    if pixel_format != "nv12":
        planes = frame.permute(2, 0, 1)
        return planes.flip(0) if pixel_format == "bgr" else planes
    height = frame.shape[0] * 2 // 3
    luma = (frame[:height].int() - 16).clamp_min(0)
    chroma = frame[height:].reshape(height // 2, -1, 2).int() - 128
    u, v = (chroma[..., i].repeat_interleave(2, dim=0).repeat_interleave(2, dim=1) for i in (0, 1))
    grey = 1220542 * luma + (1 << 19)
    planes = torch.stack([grey + 1673527 * v, grey - 852492 * v - 409993 * u, grey + 2116026 * u])
    return (planes >> 20).clamp(0, 255)


def _beyond(error: Tensor, allowed: Tensor) -> str | None:
    """A sentence where an error is beyond what is allowed; NaN is."""
    bad = ~(error <= allowed)
    if not bool(bad.any()):
        return None
    return (
        f"{int(bad.sum())} of {bad.numel()} values are wrong, by up to {float(error.max()):.3g} "
        f"where {float(allowed.max()):.3g} is allowed"
    )


def _generator(device: Device, seed: int) -> torch.Generator:
    return torch.Generator(device.memory).manual_seed(seed)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _wide(size: tuple[int, int]) -> str:
    """(H, W) as people say it."""
    return f"{size[1]}×{size[0]}"
