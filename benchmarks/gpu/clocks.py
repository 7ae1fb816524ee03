"""Clocks. Contenders take turns in all of them, so that whatever disturbs the GPU meets all alike.

A contender is called with the number of the launch, by which it chooses among its inputs: more of
them than the L2 cache holds, or one that stays in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from benchmarks.timing import Times, interleaved

Launch = Callable[[int], object]


class Clock(Protocol):
    """Times contenders; `Times` are of one launch."""

    def time(
        self, contenders: Mapping[str, Launch], *, rounds: int, launches: int
    ) -> dict[str, Times]:
        """Each contender's time of one launch, once a round, in which it launches `launches`."""


@dataclass(frozen=True)
class HostClock:
    """The caller's clock, stopped when the device has finished: latency as a user feels it."""

    finish: Callable[[], object]

    def time(
        self, contenders: Mapping[str, Launch], *, rounds: int, launches: int
    ) -> dict[str, Times]:
        """See `Clock`."""

        def repeated(launch: Launch) -> Callable[[], None]:
            def run() -> None:
                for number in range(launches):
                    launch(number)
                self.finish()

            return run

        actions = {name: repeated(launch) for name, launch in contenders.items()}
        return _per_launch(interleaved(actions, rounds), launches)


@dataclass(frozen=True)
class GraphClock:
    """Device time of CUDA graph replays: no cost of Python, none of the driver's launches."""

    device: str

    def time(
        self, contenders: Mapping[str, Launch], *, rounds: int, launches: int
    ) -> dict[str, Times]:
        """See `Clock`."""
        import torch

        with torch.cuda.device(self.device):
            stream = torch.cuda.Stream()
            replays = {
                name: capture(launch, launches, stream) for name, launch in contenders.items()
            }
            times: dict[str, list[float]] = {name: [] for name in contenders}
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            with torch.cuda.stream(stream):
                for number in range(_WARM_UP + rounds):
                    for name, replay in replays.items():
                        begin.record()
                        replay()
                        end.record()
                        end.synchronize()
                        if number >= _WARM_UP:
                            times[name].append(begin.elapsed_time(end))
        return _per_launch({name: Times(tuple(ms)) for name, ms in times.items()}, launches)


_WARM_UP = 3


def capture(launch: Launch, launches: int, stream: object) -> Callable[[], None]:
    """A CUDA graph of `launches` launches; what these compile or allocate once lies behind them.

    Args:
        launch: what to capture; it launches on PyTorch's current stream.
        launches: how often.
        stream: the `torch.cuda.Stream` to capture on.
    """
    import torch

    torch.cuda.synchronize()  # inputs were made on another stream
    with torch.cuda.stream(stream):
        for number in range(launches):
            launch(number)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for number in range(launches):
            launch(number)
    return graph.replay


def _per_launch(times: Mapping[str, Times], launches: int) -> dict[str, Times]:
    return {name: Times(tuple(ms / launches for ms in of_one.ms)) for name, of_one in times.items()}
