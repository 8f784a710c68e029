"""Work in threads, with results in order and few at a time."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int | None
) -> Iterator[_Result]:
    """`map` in threads, at most two items per thread ahead of the consumer.

    Args:
      function: of an item.
      items: consumed as results are.
      workers: threads; `None`: one per core.
    """
    n_threads = workers or os.cpu_count() or 1
    pool = ThreadPoolExecutor(n_threads)
    pending: collections.deque[Future[_Result]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
