"""Which clips a run has heard, by what they hold: kept beside it, so that a test can be told of
them whatever their names and their corpus are."""

from pathlib import Path

import numpy as np

from ser_jax.data.corpus import Corpus
from ser_jax.data.splits import Split
from ser_jax.files.atomic import write_atomic

KNOWN_FILE = "known_clips.txt"


def write_known(run_dir: Path, corpus: Corpus, split: Split) -> None:
    """Keep a digest of each training and validation clip, one a line.

    Clips whose samples other processes hold have none.

    Raises:
      UserError: the file cannot be written.
    """
    heard = np.concatenate([split.train, split.val])
    digests = sorted({corpus.digest_B[clip] for clip in heard} - {""})
    write_atomic(run_dir / KNOWN_FILE, "".join(f"{digest}\n" for digest in digests))


def count_known(run_dir: Path, corpus: Corpus) -> int:
    """How many clips of a corpus, cut as the run's were, it was trained or validated on; 0 where
    it does not say, as runs of earlier versions."""
    try:
        known = set((run_dir / KNOWN_FILE).read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return 0
    return sum(digest in known for digest in corpus.digest_B)
