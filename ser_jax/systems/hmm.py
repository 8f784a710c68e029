"""A hidden Markov model of the frames of each emotion, fitted by hmmlearn.

A clip is of the emotion whose model makes its frames most likely.
Sources: B. Schuller, G. Rigoll, M. Lang, Hidden Markov Model-based Speech Emotion Recognition,
ICASSP 2003 (continuous models, several states); T. L. Nwe, S. W. Foo, L. C. De Silva, Speech
Emotion Recognition Using Hidden Markov Models, Speech Communication 41(4), 2003 (cepstral
features, ergodic).
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ser_jax.config import ClassicalConfig, Config
from ser_jax.data.splits import Split
from ser_jax.errors import UserError, check
from ser_jax.features.batching import Dataset
from ser_jax.systems.frames import Arrays, list_frames
from ser_jax.systems.hmm_start import init_hmm, name_covariance
from ser_jax.systems.method import Method, read_shapes
from ser_jax.training.loop import OnEvent


class Fit(NamedTuple):
    """One emotion's model.

    Attributes:
      arrays: start_K, transition_KK, weight_KM, mean_KMF, covariance_KMF (or covariance_KMFF).
      iterations: of expectation maximisation.
      converged: it ended by the tolerance.
      log_likelihood: of the training frames, per frame.
    """

    arrays: Arrays
    iterations: int
    converged: bool
    log_likelihood: float


def fit_hmm(clips: Sequence[np.ndarray], settings: ClassicalConfig, seed: int, label: str) -> Fit:
    """Fit the model of one emotion.

    Args:
      clips: frames [T, F] of its training clips.
      settings: sizes.
      seed: of the clusters that initial Gaussians are made of.
      label: the emotion, for errors.

    Raises:
      UserError: too few frames; hmmlearn is not installed, or cannot fit.
    """
    _check_size(clips, settings, label)
    x_TF, lengths = np.concatenate(clips), [len(clip) for clip in clips]
    n_gaussians = settings.states * settings.mixtures
    # As many frames as a Gaussian has on average, of this variance, are seen besides.
    floor_F = settings.variance_floor * x_TF.var(axis=0)
    model = make_hmm(
        init_hmm(clips, settings, seed, floor_F), settings, floor_F * len(x_TF) / n_gaussians
    )
    model.monitor_.tol = settings.tolerance * len(x_TF)
    model.random_state = seed  # of clusters that are not used
    try:
        with _muted():
            model.fit(x_TF, lengths)
            total = model.score(x_TF, lengths)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise _degenerate(settings, label) from error
    check(np.isfinite(total), str(_degenerate(settings, label)))
    monitor = model.monitor_
    return Fit(_read(model, settings), monitor.iter, _has_converged(monitor), total / len(x_TF))


def _has_converged(monitor: Any) -> bool:
    """hmmlearn's own property is also true when the iterations are used up."""
    history = list(monitor.history)
    return len(history) > 1 and history[-1] - history[-2] < monitor.tol


def make_hmm(arrays: Arrays, settings: ClassicalConfig, prior_F: Any = 0.0) -> Any:
    """hmmlearn's model of `arrays`, as `Fit` names them.

    Args:
      arrays: of one emotion.
      settings: sizes.
      prior_F: what a fit adds to each Gaussian's sum of squares.

    Raises:
      UserError: hmmlearn is not installed.
    """
    check_hmmlearn()
    from hmmlearn.hmm import GMMHMM, GaussianHMM

    sizes: dict[str, Any] = {
        "n_components": settings.states, "covariance_type": settings.covariance,
        "n_iter": settings.iterations, "init_params": "",
    }  # fmt: skip
    n_features = arrays["mean_KMF"].shape[-1]
    prior: Any = np.broadcast_to(prior_F, n_features)
    prior = np.diag(prior) if settings.covariance == "full" else prior
    if settings.mixtures > 1:
        # For diagonals hmmlearn calls weight what others call the prior's scale, and doubles it.
        own = {"diag": {"covars_weight": prior / 2}, "full": {"covars_prior": prior}}
        model: Any = GMMHMM(n_mix=settings.mixtures, **own[settings.covariance], **sizes)
        model.weights_ = arrays["weight_KM"]
        model.means_, model.covars_ = arrays["mean_KMF"], arrays[name_covariance(settings)]
    else:
        model = GaussianHMM(covars_prior=prior, **sizes)
        model.n_features = n_features
        model.means_ = arrays["mean_KMF"][:, 0]
        model.covars_ = arrays[name_covariance(settings)][:, 0]
    model.startprob_, model.transmat_ = arrays["start_K"], arrays["transition_KK"]
    return model


def check_hmmlearn() -> None:
    """Raise a UserError where hmmlearn is not installed."""
    try:
        import hmmlearn.hmm  # noqa: F401
    except ImportError as error:
        raise UserError(
            "model.name=hmm: needs hmmlearn; install it by: pip install 'ser-jax[classical]'"
        ) from error


def _read(model: Any, settings: ClassicalConfig) -> Arrays:
    if settings.mixtures > 1:
        weight_KM, mean_KMF, covariance = model.weights_, model.means_, model.covars_
    else:
        weight_KM, mean_KMF = np.ones((settings.states, 1)), model.means_[:, None]
        covariance = model.covars_[:, None]  # as matrices, whatever the type
        if settings.covariance == "diag":
            covariance = np.diagonal(covariance, axis1=-2, axis2=-1)
    return {
        "start_K": model.startprob_, "transition_KK": model.transmat_, "weight_KM": weight_KM,
        "mean_KMF": mean_KMF, name_covariance(settings): np.array(covariance),
    }  # fmt: skip


def _check_size(clips: Sequence[np.ndarray], settings: ClassicalConfig, label: str) -> None:
    states, n_gaussians = settings.states, settings.states * settings.mixtures
    shortest = min(len(clip) for clip in clips)
    check(
        settings.topology == "ergodic" or shortest >= states,
        f"classical.states={states}: a clip of {label} has {shortest} frames, and a left_to_right "
        "model needs one for each state; take fewer states or a shorter features.hop_length",
    )
    n_frames = sum(map(len, clips))
    check(
        n_frames >= 2 * n_gaussians,
        f"classical.states={states}: {label} has {n_frames} training frames, too few for "
        f"{n_gaussians} Gaussians; take fewer states or mixtures, or more clips",
    )


def _degenerate(settings: ClassicalConfig, label: str) -> UserError:
    return UserError(
        f"classical.states={settings.states}: the training frames of {label} do not fill "
        f"{settings.states} states of {settings.mixtures} Gaussians; take fewer states or mixtures"
    )


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Silence hmmlearn's log of a fit that has not converged: the run's own log says so."""
    logger = logging.getLogger("hmmlearn")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        logger.setLevel(before)


def score_hmm(arrays: Arrays, clips: Sequence[np.ndarray], settings: ClassicalConfig) -> np.ndarray:
    """Log-likelihood per frame of each clip under each emotion's model, float64 [B, C].

    Args:
      arrays: as `Fit` names them, with a leading axis of emotions.
      clips: frames [T, F] of each clip.
      settings: sizes.
    """
    score_BC = np.zeros((len(clips), len(arrays["start_CK"])))
    for number in range(score_BC.shape[1]):
        own = {name.replace("_C", "_", 1): array[number] for name, array in arrays.items()}
        model = make_hmm(own, settings)
        with _muted():
            score_BC[:, number] = [model.score(x_TF) / len(x_TF) for x_TF in clips]
    return score_BC


def fit_hmms(
    config: Config, dataset: Dataset, split: Split, labels: Sequence[str], on_event: OnEvent
) -> Arrays:
    """Fit the model of each emotion; arrays as of `Fit`, with a leading axis C."""
    label_B = np.asarray(dataset.label_B)
    models = []
    for number, label in enumerate(labels):
        own = split.train[label_B[split.train] == number]
        clips = list_frames(dataset, own, config.classical, config.features)
        fitted = fit_hmm(clips, config.classical, config.seed, label)
        models.append(fitted.arrays)
        on_event({
            "event": "fit", "number": number + 1, "of": len(labels), "emotion": label,
            "iterations": fitted.iterations, "converged": fitted.converged,
            "train_log_likelihood": fitted.log_likelihood,
        })  # fmt: skip
    return {
        name.replace("_", "_C", 1): np.stack([arrays[name] for arrays in models])
        for name in models[0]
    }


def _list_shapes(
    arrays: Arrays, settings: ClassicalConfig, C: int, frame: int
) -> dict[str, tuple[int, ...]]:
    del arrays
    covariance = "covariance_CKMFF" if settings.covariance == "full" else "covariance_CKMF"
    names = f"start_CK transition_CKK weight_CKM mean_CKMF {covariance}"
    sizes = {"C": C, "K": settings.states, "M": settings.mixtures, "F": frame}
    return read_shapes(names, sizes)


HMM = Method(fit_hmms, score_hmm, check_hmmlearn, _list_shapes)
