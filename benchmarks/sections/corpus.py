"""The corpus of the call, decoded once on the CPU while other sections run."""

import os
import time

from benchmarks.sections.context import Context
from benchmarks.sections.racing import choose_corpus
from ser_jax.config import Config, override
from ser_jax.data.store import prepare


def measure(context: Context) -> None:
    """Build the store, and write a row of its size and time."""
    start_s = time.monotonic()
    keys = choose_corpus(context) | {"data.workers": max(1, (os.cpu_count() or 1) // 2)}
    clips = prepare(override(Config(), keys).data).clips
    seconds = round(time.monotonic() - start_s, 1)
    note = {"clips": clips, "seconds": seconds, "corpus": keys["data.corpus"]}
    context.put({"benchmark": "facts", "case": "corpus", "note": note})
