"""Which clips a run has heard, by what they hold: kept beside it, so that a test can be told of
them whatever their names and their corpus are."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ser_jax.corpora import Corpus
from ser_jax.files import write_atomic
from ser_jax.splits import Split

KNOWN_FILE = "known_clips.txt"
_DIGEST_BYTES = 8  # of a million clips two are alike once in 37 million runs


def write_known(run_dir: Path, corpus: Corpus, split: Split) -> None:
    """Keep a digest of each training and validation clip, one a line.

    Clips whose samples other processes hold have none.

    Raises:
      UserError: the file cannot be written.
    """
    heard = np.concatenate([split.train, split.val])
    digests = sorted(set(_compute_digests(corpus, heard.tolist())) - {""})
    write_atomic(run_dir / KNOWN_FILE, "".join(f"{digest}\n" for digest in digests))


def count_known(run_dir: Path, corpus: Corpus) -> int:
    """How many clips of a corpus, cut as the run's were, it was trained or validated on; 0 where
    it does not say, as runs of earlier versions."""
    try:
        known = set((run_dir / KNOWN_FILE).read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return 0
    return sum(digest in known for digest in _compute_digests(corpus, range(len(corpus.wave_BN))))


def _compute_digests(corpus: Corpus, index: Iterable[int]) -> list[str]:
    """Of each clip 16 hexadecimal digits; none of silent ones, which all sound the same."""
    digests = []
    for clip in index:
        wave_N = corpus.wave_BN[clip, : corpus.length_B[clip]]
        digest = hashlib.blake2b(wave_N.tobytes(), digest_size=_DIGEST_BYTES).hexdigest()
        digests.append(digest if wave_N.any() else "")
    return digests
