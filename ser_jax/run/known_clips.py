"""Digests of the clips a run was trained on, kept beside it, so that an evaluation recognises them
whatever their names and their corpus."""

from pathlib import Path

import numpy as np

from ser_jax.data.corpus import Corpus
from ser_jax.data.splits import Split
from ser_jax.files.atomic import write_atomic

KNOWN_FILE = "known_clips.txt"


def write_known(run_dir: Path, corpus: Corpus, split: Split) -> None:
    """Write a digest of each training and validation clip, one per line.

    Clips whose samples other processes hold are left out.

    Raises:
      UserError: the file cannot be written.
    """
    heard = np.concatenate([split.train, split.val])
    digests = sorted({corpus.digest_B[clip] for clip in heard} - {""})
    write_atomic(run_dir / KNOWN_FILE, "".join(f"{digest}\n" for digest in digests))


def count_known(run_dir: Path, corpus: Corpus) -> int:
    """How many clips of a corpus, cut as the run's were, it was trained or validated on; 0 where
    that is unknown, as for runs of earlier versions."""
    try:
        known = set((run_dir / KNOWN_FILE).read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return 0
    return sum(digest in known for digest in corpus.digest_B)
