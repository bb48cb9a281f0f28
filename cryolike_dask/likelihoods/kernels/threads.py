"""Threads that share the work of compiled loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import torch


@contextmanager
def threads() -> Iterator[Callable[..., None]]:
    """As many threads as torch may use; give what calls a function there for shares of n."""
    n_threads = torch.get_num_threads()
    with ThreadPoolExecutor(n_threads) as pool:

        def in_threads(function: Callable[..., None], n: int, *rest: object) -> None:
            cuts = [n * k // n_threads for k in range(n_threads + 1)]
            # compiled loops let go of Python's lock; one share needs no thread of its own
            each = map if n_threads == 1 else pool.map
            list(each(lambda share: function(share, *rest), pairwise(cuts)))

        yield in_threads
