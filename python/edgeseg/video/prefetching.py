"""Reading ahead in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from edgeseg.arguments import check_integer

T = TypeVar("T")


@contextmanager
def prefetch(
    items: Iterable[T],
    depth: int,
    *,
    newest: bool = False,
    stop: Callable[[], None] | None = None,
    patience: float | None = None,
) -> Iterator[Iterator[T]]:
    """Iterate over `items` in a thread of its own, at most `depth` items ahead.

    Order is kept. An exception of `items` is raised after everything before it was taken. Leaving
    the block stops the thread.

    Args:
        items: what to iterate over.
        depth: how many items may wait, at least 1.
        newest: read on while that many wait, and drop the oldest: what a live source shows now
            counts, not what it showed.
        stop: called on leaving: ends `items` where they wait for something that may never come.
        patience: seconds to wait, on leaving, for the item that is being read, so that what `items`
            reads from can be closed; None waits as long as it takes.
    """
    check_integer("depth", depth, 1)
    changed = threading.Condition()  # guards what follows
    waiting: deque[T] = deque(maxlen=depth)
    ending: BaseException | None = None
    over = stopped = False

    def read() -> None:
        nonlocal ending, over
        raised: BaseException | None = None
        try:
            iterator = iter(items)
            while True:
                with changed:
                    changed.wait_for(lambda: stopped or newest or len(waiting) < depth)
                    if stopped:
                        break
                item = next(iterator)
                with changed:
                    waiting.append(item)
                    changed.notify_all()
        except StopIteration:
            pass
        except BaseException as error:  # whatever it is, the consumer waits for it
            raised = error
        with changed:
            ending, over = raised, True
            changed.notify_all()

    def take() -> Iterator[T]:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or over)
                if not waiting:
                    break
                item = waiting.popleft()
                changed.notify_all()
            yield item
        if ending is not None:
            raise ending

    reader = threading.Thread(target=read, name="edgeseg-prefetch", daemon=True)
    reader.start()
    try:
        yield take()
    finally:
        with changed:
            stopped = True
            changed.notify_all()
        if stop is not None:
            stop()
        reader.join(patience)
