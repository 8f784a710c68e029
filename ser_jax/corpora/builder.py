"""The tensorflow-datasets builder: FLAC clips and their labels in array_record, no TensorFlow."""

import contextlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ser_jax.corpora.names import EMOTIONS, INTENSITIES, STATEMENTS
from ser_jax.errors import UserError

ATTRIBUTES = ("gender", "intensity", "statement", "repetition")
_SPLIT = "clips"  # one split: the protocols are index arrays, see ser_jax/splits.py


class Clips(tfds.core.GeneratorBasedBuilder):
    """Clips in the order in which they are given."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, folder: Path, examples: Iterable[dict[str, Any]] = ()) -> None:
        self._examples = examples
        super().__init__(data_dir=folder, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel
        return tfds.core.DatasetInfo(
            builder=self,
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "file_name": tfds.features.Text(),
                    # features.Audio would need TensorFlow; one string is a tensor of objects.
                    "flac": tfds.features.Tensor(shape=(), dtype=np.object_),
                    "emotion": label(names=list(EMOTIONS)),
                    "gender": label(names=["female", "male"]),
                    "intensity": label(names=list(INTENSITIES)),
                    "statement": label(names=list(STATEMENTS)),
                    "repetition": label(names=["1", "2"]),
                    "actor": tfds.features.Scalar(np.int32),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self._examples)


def write_clips(folder: Path, examples: Iterable[dict[str, Any]]) -> None:
    """Write examples, dictionaries with the features' keys, into `folder`.

    Raises:
      UserError: the folder cannot be written, for instance because the disk is full.
    """
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(
        try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what concerns downloads alone
            Clips(folder, examples).download_and_prepare(
                download_dir=folder / "downloads", download_config=config
            )
    except RuntimeError as error:  # array_record's own, with the system's reason inside
        reason = re.search(r"\w+\(\) failed: ([^;]+)", str(error))
        if reason is None:
            raise
        raise UserError(
            f"{folder.parent}: cannot write: {reason[1]}; free some space or change data.store_dir"
        ) from error


def read_clips(folder: Path, rows: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Examples of `folder`, all or some: emotion and actor as int, flac as bytes, the rest str."""
    builder: Any = Clips(folder)
    source: Any = builder.as_data_source(_SPLIT)
    examples = source.__getitems__(range(len(source)) if rows is None else rows)
    for example in examples:
        example["file_name"] = example["file_name"].decode()
        for key in ATTRIBUTES:
            example[key] = builder.info.features[key].int2str(int(example[key]))
    return examples
