"""What a system provides to a run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ser_jax.augment.epochs import Memo
from ser_jax.config import Config
from ser_jax.data.corpus import Corpus
from ser_jax.data.splits import Split
from ser_jax.errors import UserError
from ser_jax.features.batching import Dataset
from ser_jax.features.normaliser import Normaliser
from ser_jax.training.loop import OnEvent
from ser_jax.wav2vec2.architecture import BackboneSpec

RunFacts = dict[str, Any]
"""What is kept beside the parameters, as JSON: labels, mean and deviation, length of clips, ..."""


@dataclass(frozen=True)
class Ready:
    """The data of a run in place, so that training can begin; systems add what they need.

    Attributes:
      corpus: all clips.
      split: its parts.
      normaliser: of the training clips.
      rows: numbers of the clips whose samples this process has.
    """

    corpus: Corpus
    split: Split
    normaliser: Normaliser
    rows: np.ndarray


class Fitted(NamedTuple):
    """How training ended.

    Attributes:
      predicted: class of each clip of 'val' and of 'test', [B] each.
      step: optimiser steps taken.
      epochs: epochs trained; 0 of what is fitted at once.
      best_epoch: the epoch that was kept, from 1.
      parameters: numbers in the model, those that training leaves alone among them.
      trained_parameters: those that training changes.
    """

    predicted: dict[str, np.ndarray]
    step: int
    epochs: int
    best_epoch: int
    parameters: int
    trained_parameters: int


class Known(NamedTuple):
    """What of a run's facts its use needs; `best_epoch` is 0 where it was fitted at once."""

    labels: tuple[str, ...]
    mean_F: np.ndarray
    std_F: np.ndarray
    n_samples: int
    checksum: str
    best_epoch: int


class Loaded(NamedTuple):
    """The best epoch of a run.

    Attributes:
      known: of the facts kept with it.
      predict: (dataset, clip numbers [B]) -> logits [B, C].
      variables: what it predicts by.
      spec: the backbone of a wav2vec 2.0.
    """

    known: Known
    predict: Callable[[Dataset, np.ndarray], np.ndarray]
    variables: Any
    spec: BackboneSpec | None = None


class System(Protocol):
    """A kind of classifier that `model.name` names.

    Attributes:
      is_network: trained epoch by epoch, where others are fitted at once.
      shares_frozen: runs that are trained together share what a frozen network computes once.
    """

    is_network: bool
    shares_frozen: bool

    def can_share(self, config: Config) -> bool:
        """Whether runs of such settings may be trained together in one program."""
        ...

    def check(self, config: Config) -> None:
        """Raise a UserError for what it cannot do here, before anything is read."""
        ...

    def prepare(self, config: Config, memo: Memo | None) -> AbstractContextManager[Any]:
        """Read the corpus and make its features, and what must be there before training.

        Args:
          config: of the run.
          memo: augmented features to share between runs; see `augment.epochs`.

        Returns:
          A context that gives a `Ready`, and ends what serves the training.

        Raises:
          UserError: the recordings or the weights cannot be used as the settings say.
        """
        ...

    def fit(
        self, config: Config, ready: Any, run_dir: Path, facts: RunFacts, on_event: OnEvent
    ) -> Fitted:
        """Train or resume, keep the best epoch in `run_dir`, and classify.

        Args:
          config: of the run.
          ready: what `prepare` gives.
          run_dir: the directory, which is there, and this run's.
          facts: saved beside the parameters.
          on_event: called at the start ('anew' or not), and with epochs or fits.

        Raises:
          UserError: it holds another run; a write failed; the loss is NaN or infinite.
        """
        ...

    def load(self, run_dir: Path, config: Config, check: Callable[[RunFacts], None]) -> Loaded:
        """The best epoch so far of a run, whose directory is only read.

        Args:
          run_dir: the directory.
          config: of the run.
          check: called with the facts before the parameters are read; may raise.

        Raises:
          UserError: there is nothing yet, or it is damaged.
        """
        ...


def classify_parts(
    predict: Callable[[Any, np.ndarray], np.ndarray], dataset: Any, split: Split
) -> dict[str, np.ndarray]:
    """Class of each clip of 'val' and of 'test', by the logits that `predict` gives of them."""
    parts = {"val": split.val, "test": split.test}
    return {name: predict(dataset, index_B).argmax(axis=-1) for name, index_B in parts.items()}


def read_facts(place: Path, facts: RunFacts) -> Known:
    """What the use of a run needs of its facts.

    Raises:
      UserError: something is not there; names `place`.
    """
    try:
        mean_F, std_F = (np.array(facts[key], np.float32) for key in ("mean_F", "std_F"))
        return Known(
            tuple(facts["labels"]), mean_F, std_F, int(facts["n_samples"]),
            str(facts["checksum"]), int(facts["best_epoch"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{place}: its facts lack {error}, as another version of ser-jax wrote them; use that "
            "version"
        ) from error
