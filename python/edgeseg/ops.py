"""The native kernels as PyTorch operators, each beside its plain PyTorch twin.

`score_map_concat` and `upsample_argmax` run the kernels of `edgeseg._core` on CPU, and on CUDA
where it was compiled in; other devices and dtypes run the twin. An exported program replaces
them by PyTorch's own (`decomposition_table`), so an engine holds standard operators only.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg import _core
from edgeseg.classes import MAX_CLASSES
from edgeseg.errors import InputError

_KERNEL_DTYPES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
_cuda: Any = getattr(_core, "cuda", None)  # absent from a build without CUDA


def score_map_concat_reference(features: Tensor, text: Tensor) -> Tensor:
    """Cosine of every pixel with every class, beside the features: the twin.

    Every pixel is first scaled by its largest magnitude. Sums of squares then lie in [1, C], so
    neither float16 nor the largest float32 overflows, and no epsilon is needed that a narrow type
    would round to zero: an all-zero pixel gives 0, and a zero gradient, in every precision that
    an engine may choose.

    Args:
        features: N×C×H×W, float, finite.
        text: K×C rows of unit length.

    Returns:
        N×(C+K)×H×W in the dtype of ``features``: the features, then the cosines.
    """
    wide = _at_least_float32(features)
    scaled, norm, peak = _scale_by_peak(wide)
    dot = F.conv2d(scaled, text.to(wide.dtype)[:, :, None, None])
    scores = torch.where(peak > 0, dot / norm, 0.0)
    return torch.cat([features, scores.to(features.dtype)], dim=1)


def score_map_concat_in_engine(features: Tensor, text: Tensor) -> Tensor:
    """The same where the squares of the features stay within float32: one reduction, no peak.

    Scaling by the peak reads F4 twice more, half a percent of an INT8 network's time. Features of a
    network in use have norms around 10; who computes in float16 keeps the norm's sum in float32.

    Args:
        features: N×C×H×W, float, finite; a pixel's squares sum to less than 3e38.
        text: K×C rows of unit length.

    Returns:
        As `score_map_concat_reference`.
    """
    wide = _at_least_float32(features)
    norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    dot = F.conv2d(wide, text.to(wide.dtype)[:, :, None, None])
    scores = torch.where(norm > 0, dot / norm, 0.0)
    return torch.cat([features, scores.to(features.dtype)], dim=1)


def upsample_argmax_reference(
    logits: Tensor, height: int, width: int, align_corners: bool
) -> Tensor:
    """Bilinear interpolation, then argmax over classes: the twin.

    Args:
        logits: N×K×h×w, float.
        height: Rows of the label map.
        width: Columns of the label map.
        align_corners: As in `torch.nn.functional.interpolate`.

    Returns:
        N×height×width uint8 class ids, the lowest on a tie.
    """
    wide = _at_least_float32(logits)
    resized = F.interpolate(wide, (height, width), mode="bilinear", align_corners=align_corners)
    return resized.argmax(dim=1).to(torch.uint8)


@torch.library.custom_op("edgeseg::score_map_concat", mutates_args=())
def score_map_concat(features: Tensor, text: Tensor) -> Tensor:
    """Cosine of every pixel with every class, beside the features.

    ``out[:, :C]`` is ``features``, bit for bit; ``out[:, C + k]`` is ⟨f, text[k]⟩ / ‖f‖,
    accumulated in float32, and 0 where ‖f‖ = 0 (to the kernels also where ‖f‖² underflows).
    Differentiable in both arguments; the gradient of a score at ‖f‖ = 0 is 0. Unaffected by
    autocast.

    Args:
        features: N×C×H×W, float, finite, contiguous or channels-last.
        text: K×C rows of unit length.

    Returns:
        N×(C+K)×H×W in the dtype and memory format of ``features``.

    Raises:
        InputError: Shapes that do not fit each other.
    """
    _check_score_map(features, text)
    # Autocast is still on inside an operator, and would round the float32 products.
    with torch.autocast(features.device.type, enabled=False):
        out = score_map_concat_reference(features, text)
    return out.contiguous(memory_format=_memory_format(features))


@score_map_concat.register_kernel("cpu")
def _score_map_concat_cpu(features: Tensor, text: Tensor) -> Tensor:
    _check_score_map(features, text)
    out = _empty_with_channels(features, features.shape[1] + text.shape[0])
    if features.dtype not in _KERNEL_DTYPES:
        return out.copy_(score_map_concat_reference(features, text))
    _core.score_map_concat(
        _numpy(features),
        _numpy(text.float().contiguous()),
        _numpy(out),
        bfloat16=features.dtype is torch.bfloat16,
        threads=torch.get_num_threads(),
    )
    return out


if _cuda is not None:

    @score_map_concat.register_kernel("cuda")
    def _score_map_concat_cuda(features: Tensor, text: Tensor) -> Tensor:
        _check_score_map(features, text)
        out = _empty_with_channels(features, features.shape[1] + text.shape[0])
        if features.dtype not in _KERNEL_DTYPES:
            return out.copy_(score_map_concat_reference(features, text))
        rows = text.float().contiguous()
        with torch.cuda.device(features.device):
            _cuda.score_map_concat(
                features.data_ptr(),
                features.shape,
                features.stride(),
                rows.data_ptr(),
                rows.shape[0],
                out.data_ptr(),
                out.stride(),
                _KERNEL_DTYPES[features.dtype],
                stream=torch.cuda.current_stream().cuda_stream,
            )
        return out


@score_map_concat.register_fake
def _score_map_concat_fake(features: Tensor, text: Tensor) -> Tensor:
    _check_score_map(features, text)
    return _empty_with_channels(features, features.shape[1] + text.shape[0])


def _score_map_concat_setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _score_map_concat_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    features, text = ctx.saved_tensors
    channels = features.shape[1]
    with torch.autocast(features.device.type, enabled=False):
        wide = _at_least_float32(features)
        weight = text.to(wide.dtype)
        scaled, norm, peak = _scale_by_peak(wide)
        unit = scaled / norm
        # A pixel without direction has no gradient.
        grad_scores = torch.where(peak > 0, grad[:, channels:].to(wide.dtype), 0.0)
        grad_features = grad_text = None
        if ctx.needs_input_grad[0]:
            scores = F.conv2d(unit, weight[:, :, None, None])
            along = (grad_scores * scores).sum(dim=1, keepdim=True)
            toward = F.conv2d(grad_scores, weight.t()[:, :, None, None])
            length = norm * torch.where(peak > 0, peak, 1.0)
            from_scores = (toward - unit * along) / length
            grad_features = grad[:, :channels] + from_scores.to(features.dtype)
        if ctx.needs_input_grad[1]:
            grad_text = torch.einsum("nkhw,nchw->kc", grad_scores, unit).to(text.dtype)
    return grad_features, grad_text


score_map_concat.register_autograd(
    _score_map_concat_backward, setup_context=_score_map_concat_setup
)


@torch.library.custom_op("edgeseg::upsample_argmax", mutates_args=())
def upsample_argmax(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Labels of logits at another size, without the K×height×width tensor in between.

    Equals bilinear interpolation followed by argmax; where the two best classes differ by a few
    float32 ulps, either may be given. Not differentiable.

    Args:
        logits: N×K×h×w, float, finite, 1 ≤ K ≤ 254, any strides.
        height: Rows of the label map, at least 1.
        width: Columns of the label map, at least 1.
        align_corners: As in `torch.nn.functional.interpolate`.

    Returns:
        N×height×width uint8 class ids.

    Raises:
        InputError: Sizes outside the above.
    """
    _check_upsample_argmax(logits, height, width)
    return upsample_argmax_reference(logits, height, width, align_corners)


@upsample_argmax.register_kernel("cpu")
def _upsample_argmax_cpu(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    _check_upsample_argmax(logits, height, width)
    if logits.dtype not in _KERNEL_DTYPES:
        return upsample_argmax_reference(logits, height, width, align_corners)
    labels = logits.new_empty((logits.shape[0], height, width), dtype=torch.uint8)
    _core.upsample_argmax(
        _numpy(logits),
        _numpy(labels),
        align_corners=align_corners,
        bfloat16=logits.dtype is torch.bfloat16,
        threads=torch.get_num_threads(),
    )
    return labels


if _cuda is not None:

    @upsample_argmax.register_kernel("cuda")
    def _upsample_argmax_cuda(
        logits: Tensor, height: int, width: int, align_corners: bool
    ) -> Tensor:
        _check_upsample_argmax(logits, height, width)
        if logits.dtype not in _KERNEL_DTYPES:
            return upsample_argmax_reference(logits, height, width, align_corners)
        labels = logits.new_empty((logits.shape[0], height, width), dtype=torch.uint8)
        with torch.cuda.device(logits.device):
            _cuda.upsample_argmax(
                logits.data_ptr(),
                logits.shape,
                logits.stride(),
                _KERNEL_DTYPES[logits.dtype],
                labels.data_ptr(),
                labels.shape,
                labels.stride(),
                align_corners=align_corners,
                stream=torch.cuda.current_stream().cuda_stream,
            )
        return labels


@upsample_argmax.register_fake
def _upsample_argmax_fake(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    _check_upsample_argmax(logits, height, width)
    return logits.new_empty((logits.shape[0], height, width), dtype=torch.uint8)


def decomposition_table() -> dict[torch._ops.OperatorBase, Callable[..., Any]]:
    """The operators of this module in PyTorch's, for `ExportedProgram.run_decompositions`."""
    return {
        torch.ops.edgeseg.score_map_concat.default: score_map_concat_in_engine,
        torch.ops.edgeseg.upsample_argmax.default: upsample_argmax_reference,
    }


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scale_by_peak(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each pixel over its largest magnitude, the norm of that (at least 1), and the magnitude.

    The peak is a constant to autograd: a cosine does not depend on it, so neither does its slope.
    A pixel of zeros has norm 1, which keeps the slope of the root finite.
    """
    peak = x.detach().abs().amax(dim=1, keepdim=True)
    scaled = x / torch.where(peak > 0, peak, 1.0)
    square = scaled.square().sum(dim=1, keepdim=True)
    return scaled, torch.where(peak > 0, square, 1.0).sqrt(), peak


def _memory_format(x: Tensor) -> torch.memory_format:
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def _empty_with_channels(x: Tensor, channels: int) -> Tensor:
    return torch.empty(
        (x.shape[0], channels, *x.shape[2:]),
        dtype=x.dtype,
        device=x.device,
        memory_format=_memory_format(x),
    )


def _numpy(x: Tensor) -> Any:
    """The tensor's memory as an array; bfloat16, which NumPy lacks, as uint16."""
    return (x.view(torch.uint16) if x.dtype is torch.bfloat16 else x).detach().numpy()


def _check_score_map(features: Tensor, text: Tensor) -> None:
    if features.dim() != 4 or text.dim() != 2 or text.shape[1] != features.shape[1]:
        raise InputError(
            f"features have shape {tuple(features.shape)} and text {tuple(text.shape)}; expected "
            "N×C×H×W and K×C with the same C."
        )


def _check_upsample_argmax(logits: Tensor, height: int, width: int) -> None:
    if logits.dim() != 4 or not 1 <= logits.shape[1] <= MAX_CLASSES:
        raise InputError(
            f"logits have shape {tuple(logits.shape)}; expected N×K×h×w with K from 1 to "
            f"{MAX_CLASSES}."
        )
    if height < 1 or width < 1:
        raise InputError(f"The label map is {height}×{width}; both must be at least 1.")
