"""What of the text guidance is learned, and how embeddings are prepared before they guide.

The prompts are modules that hold what is learned and nothing else; calling one gives the K unit
rows that the network is guided by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import ConfigError
from edgeseg.text_encoder import TextEncoder

Preparation = Literal["none", "centred", "whitened"]

_CONTEXT_STD = 0.02  # CoOp's
_NEARLY_ZERO = 1e-4  # of unit rows: below, what is left of a class is float32's rounding


class LearnedEmbeddings(nn.Module):
    """The class embeddings themselves are learned; no text encoder takes part.

    Args:
        vectors: K×1024, where learning starts.
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().float().clone())

    def forward(self) -> Tensor:
        """K×1024 float32 unit rows."""
        return F.normalize(self.vectors, dim=1)


class LearnedContexts(nn.Module):
    """Vectors before the class names are learned, through a frozen text encoder.

    CoOp (Zhou et al., IJCV 2022). The encoder moves with the module from device to device but is
    no part of its state: it is loaded by name.

    Args:
        encoder: The frozen text encoder.
        names: K class names.
        contexts: M, the number of context vectors before each name.
        unified: One set of M for all classes, instead of one for each.
        seed: Of the contexts' starting values, N(0, 0.02²).

    Raises:
        ConfigError: Fewer than one context.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        names: Sequence[str],
        contexts: int = 11,
        unified: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if contexts < 1:
            raise ConfigError(f"contexts is {contexts}; at least one vector is learned")
        self.names = tuple(names)
        shape = (1 if unified else len(self.names), contexts, encoder.width)
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.contexts = nn.Parameter(_CONTEXT_STD * values)
        # In a tuple, since a module that is an attribute joins parameters and state.
        self._encoder = (encoder,)

    def forward(self) -> Tensor:
        """K×1024 float32 unit rows."""
        (encoder,) = self._encoder
        rows: Tensor = encoder(self.names, self.contexts.expand(len(self.names), -1, -1))
        return rows

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LearnedContexts:
        self._encoder[0]._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def prepare(vectors: Tensor, how: Preparation) -> Tensor:
    """Spread class embeddings that lie close together; differentiable.

    Embeddings of different classes share most of their direction: CLIP RN50's of CamVid's classes
    have cosines of 0.75 to 0.91.

    Args:
        vectors: K×C float, of any length.
        how: "none": as they are. "centred": minus their mean. "whitened": symmetrically
            orthogonalised, (TTᵀ)^(-1/2) T, the orthonormal rows nearest to the given ones.

    Returns:
        K×C float32 unit rows.

    Raises:
        ConfigError: An embedding is the mean of all, or depends linearly on the others, so that
            nothing is left of it.
    """
    rows = F.normalize(vectors.float(), dim=1)
    match how:
        case "none":
            return rows
        case "centred":
            rows = rows - rows.mean(dim=0)
            lengths = rows.norm(dim=1)
            if lengths.min() < _NEARLY_ZERO:
                raise ConfigError(
                    f"text embedding {int(lengths.argmin())} is the mean of all {len(rows)}, so "
                    'centring leaves nothing of it; use the preparation "none" or other class names'
                )
            return F.normalize(rows, dim=1)
        case "whitened":
            orthonormal: Tensor = _NearestOrthonormal.apply(rows.double())
            return orthonormal.float()


class _NearestOrthonormal(torch.autograd.Function):
    """Q of the polar decomposition T = PQ, P = (TTᵀ)^(1/2), for K×C rows of rank K.

    Its own backward, since that of an eigendecomposition is infinite where eigenvalues are equal
    (for orthonormal rows all are); Q depends on them smoothly.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        squares, axes = torch.linalg.eigh(rows @ rows.T)
        if squares[0] < _NEARLY_ZERO**2 * squares[-1]:
            first, second = _closest_pair(rows)
            raise ConfigError(
                "text embeddings depend linearly on each other and cannot be whitened; the closest "
                f'are {first} and {second}. Use the preparation "none" or other class names'
            )
        stretch = squares.sqrt()
        nearest: Tensor = (axes / stretch) @ axes.T @ rows
        ctx.save_for_backward(axes, stretch, nearest)
        return nearest

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        axes, stretch, nearest = ctx.saved_tensors
        # Where T changes inside the span of Q's rows, Q turns; dP is symmetric and drops out.
        within = axes.T @ grad @ nearest.T
        turn = within @ axes
        turn = (turn - turn.T) / (stretch[:, None] + stretch)
        outside = (axes.T @ grad - within @ nearest) / stretch[:, None]
        result: Tensor = axes @ (turn @ axes.T @ nearest + outside)
        return result


def _closest_pair(rows: Tensor) -> tuple[int, int]:
    cosines = (rows @ rows.T).fill_diagonal_(-1)
    first, second = divmod(int(cosines.argmax()), len(rows))
    return first, second
