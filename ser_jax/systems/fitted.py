"""SVM and HMM as systems: fitted at once, on the same features and splits as the networks."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.augment.epochs import Memo
from ser_jax.config import Config
from ser_jax.data.splits import Split, draw_split
from ser_jax.errors import check
from ser_jax.features.batching import Dataset
from ser_jax.features.corpus_features import fit_to_training, load_inputs, make_dataset
from ser_jax.systems.fitted_file import load_fitted, save_fitted
from ser_jax.systems.frames import Arrays, list_frames
from ser_jax.systems.method import Method
from ser_jax.systems.system import Fitted, Loaded, Ready, RunFacts, classify_parts, read_facts
from ser_jax.training.loop import OnEvent
from ser_jax.training.state import count_parameters


@dataclass(frozen=True)
class ReadyClips(Ready):
    """The features of all clips, on the host."""

    dataset: Dataset


class FittedSystem:
    """A classifier that is not a network; a fit that was killed starts over."""

    is_network = False
    shares_frozen = False

    def __init__(self, method: Method):
        self._method = method

    def can_share(self, config: Config) -> bool:
        """See `System.can_share`."""
        del config
        return False

    def check(self, config: Config) -> None:
        """See `System.check`."""
        del config
        self._method.check()

    @contextlib.contextmanager
    def prepare(self, config: Config, memo: Memo | None) -> Iterator[ReadyClips]:
        """See `System.prepare`."""
        del memo
        inputs = load_inputs(config.data, config.features, masked=True)
        split = draw_split(config.data, config.seed, inputs.corpus)
        normaliser = fit_to_training(inputs, split.train, config.features, masked=True)
        dataset = make_dataset(inputs, normaliser, on_host=True)
        yield ReadyClips(inputs.corpus, split, normaliser, inputs.rows, dataset)

    def fit(
        self, config: Config, ready: ReadyClips, run_dir: Path, facts: RunFacts, on_event: OnEvent
    ) -> Fitted:
        """See `System.fit`."""
        split, labels = ready.split, ready.corpus.labels
        on_event({"event": "start", "anew": True})
        arrays = fit_classical(self._method, config, ready.dataset, split, labels, on_event)
        predict = self._make_predict(config, arrays)
        predicted = classify_parts(predict, ready.dataset, split)
        save_fitted(run_dir, config, arrays, facts)
        n_parameters = count_parameters(arrays)
        return Fitted(predicted, 0, 0, 0, n_parameters, n_parameters)

    def load(self, run_dir: Path, config: Config, check: Callable[[RunFacts], None]) -> Loaded:
        """See `System.load`."""
        arrays, facts = load_fitted(run_dir, config, self._method)
        check(facts)
        known = read_facts(run_dir, {"best_epoch": 0} | facts)
        return Loaded(known, self._make_predict(config, arrays), arrays)

    def _make_predict(
        self, config: Config, arrays: Arrays
    ) -> Callable[[Dataset, np.ndarray], np.ndarray]:
        def predict(dataset: Dataset, index_B: np.ndarray) -> np.ndarray:
            score_BC = _score(self._method, config, arrays, dataset, index_B)
            return (score_BC / arrays["temperature"]).astype(np.float32)

        return predict


def fit_classical(
    method: Method,
    config: Config,
    dataset: Dataset,
    split: Split,
    labels: Sequence[str],
    on_event: OnEvent,
) -> Arrays:
    """Fit a classifier to the training clips, and its temperature to the validation clips.

    Args:
      method: which one.
      config: all settings.
      dataset: the corpus, and the normaliser of the training clips.
      split: its parts.
      labels: the emotions.
      on_event: called after each fit: of the svm for each penalty, of the hmm for each emotion.

    Returns:
      The arrays of the method, and the temperature.

    Raises:
      UserError: an emotion has no training clips, or too few frames.
    """
    from threadpoolctl import threadpool_limits

    label_B = np.asarray(dataset.label_B)
    for number, label in enumerate(labels):
        check(
            bool((label_B[split.train] == number).any()),
            f"model.name={config.model.name}: no training clip of {label}; take another split, or "
            "recordings of it",
        )
    with threadpool_limits(1):  # the order of sums changes their last digits
        arrays = method.fit(config, dataset, split, labels, on_event)
        score_BC = _score(method, config, arrays, dataset, split.val)
    return arrays | {"temperature": _fit_temperature(score_BC, label_B[split.val])}


def _score(
    method: Method, config: Config, arrays: Arrays, dataset: Dataset, index_B: np.ndarray
) -> np.ndarray:
    """How well each emotion fits the clips numbered `index_B`, [B, C]."""
    clips = list_frames(dataset, index_B, config.classical, config.features)
    own = {name: array for name, array in arrays.items() if name != "temperature"}
    return method.score(own, clips, config.classical)


def _fit_temperature(score_BC: np.ndarray, label_B: np.ndarray) -> np.ndarray:
    """What scores are divided by so that their softmax predicts validation best, a scalar.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if len(score_BC) == 0:
        return np.array(1.0)
    rows = np.arange(len(score_BC))

    def compute_loss(log_temperature: float) -> float:
        return -float(log_softmax(score_BC / np.exp(log_temperature), axis=1)[rows, label_B].mean())

    found: Any = minimize_scalar(compute_loss, bounds=(-7.0, 7.0), method="bounded")
    return np.array(np.exp(found.x))
