"""A corpus as features, the networks' input."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from ser_jax.config import DataConfig, FeaturesConfig
from ser_jax.data.corpus import Corpus
from ser_jax.data.store import load_corpus, load_shard
from ser_jax.features.batching import Dataset, compute_features, scale_samples
from ser_jax.features.cmvn import Statistics, apply_statistics, compute_statistics
from ser_jax.features.frontend import count_feature_frames, make_front_end
from ser_jax.features.normaliser import Normaliser, fit_normaliser
from ser_jax.machine.accelerator import jit
from ser_jax.multihost.sharing import add_up, find_rows, shard
from ser_jax.progress import progress

FrontEnd = Callable[[jax.Array], jax.Array]


class Inputs(NamedTuple):
    """A corpus and its features before normalisation by training clips.

    Attributes:
      corpus: the clips.
      front_end: compiled function from waves [B, N], int16 or float32, to features [B, T, F].
      x_BTF: features of every clip, float32, on the host; samples stay int16.
      frames_B: real frames of every clip.
      clips: how several processes share the clips; each has the features and samples of its own
        clips, and zeros for the others. None if one process has all.
      own: statistics by which each clip's features are normalised already, if `features.is_own`.
      kind: clip, speaker or corpus, whose statistics `own` holds.
      masked: whether these leave out padding.
    """

    corpus: Corpus
    front_end: FrontEnd
    x_BTF: np.ndarray
    frames_B: np.ndarray
    clips: NamedSharding | None = None
    own: Statistics | None = None
    kind: str = ""
    masked: bool = False

    @property
    def rows(self) -> np.ndarray:
        """Numbers of this process's clips, sorted."""
        n_clips = len(self.frames_B)
        return np.arange(n_clips) if self.clips is None else find_rows(n_clips, self.clips)


@functools.cache
def make_fast_front_end(features: FeaturesConfig, rate_hz: int) -> FrontEnd:
    """The front end, compiled once per process for each shape and type of its input.

    Samples may be int16, which halves the transfer to the device.
    """
    front_end = make_front_end(features, rate_hz)

    def extract(wave_BN: jax.Array) -> jax.Array:
        return front_end(scale_samples(wave_BN))

    return jit(extract)


def load_inputs(
    data: DataConfig,
    features: FeaturesConfig,
    clips: NamedSharding | None = None,
    *,
    masked: bool = False,
) -> Inputs:
    """The corpus of `data` and its features; the last result is cached in memory, so that the
    splits of a grid share one computation.

    Args:
      data, features: settings.
      clips: how several processes share the clips; None if one process loads all.
      masked: leave padding out of the statistics, if `features.is_own`.
    """
    if not features.is_own:
        features, masked = dataclasses.replace(features, normalise="none"), False
    return _load_inputs(data.without_split(), features, clips, masked)


def load_clips(data: DataConfig, clips: NamedSharding | None = None) -> Corpus:
    """The corpus of `load_inputs`, without its features."""
    return _load_clips(data.without_split(), clips)


@functools.lru_cache(maxsize=1)
def _load_inputs(
    data: DataConfig, features: FeaturesConfig, clips: NamedSharding | None, masked: bool
) -> Inputs:
    return compute_inputs(_load_clips(data, clips), features, clips, masked=masked)


@functools.lru_cache(maxsize=1)
def _load_clips(data: DataConfig, clips: NamedSharding | None) -> Corpus:
    if clips is None:
        return load_corpus(data)
    return load_shard(data, functools.partial(find_rows, sharding=clips))


def compute_inputs(
    corpus: Corpus,
    features: FeaturesConfig,
    clips: NamedSharding | None = None,
    *,
    masked: bool = False,
) -> Inputs:
    """The features of a corpus in memory, with a progress bar; arguments as in `load_inputs`."""
    front_end = make_fast_front_end(features, corpus.rate_hz)
    frames_B = count_feature_frames(features, corpus.length_B).astype(np.int32)
    if features.kind == "wave":
        return Inputs(corpus, front_end, corpus.wave_BN[:, :, None], frames_B, clips)
    rows = slice(None) if clips is None else find_rows(len(frames_B), clips)
    wave_BN = corpus.wave_BN[rows]
    with progress("features", len(wave_BN), "clips") as advance:
        x_BTF = compute_features(front_end, wave_BN, on_chunk=advance)
    if clips is not None:
        own_BTF, x_BTF = x_BTF, np.zeros((len(frames_B), *x_BTF.shape[1:]), np.float32)
        x_BTF[rows] = own_BTF
    inputs = Inputs(corpus, front_end, x_BTF, frames_B, clips)
    return _normalise_own(inputs, features.normalise, masked) if features.is_own else inputs


def _normalise_own(inputs: Inputs, kind: str, masked: bool) -> Inputs:
    """Normalise the features in place by the statistics of their own clip, speaker or corpus."""
    frames_B = inputs.frames_B
    if not masked:
        frames_B = np.full_like(frames_B, inputs.x_BTF.shape[1])
    own = compute_statistics(
        inputs.x_BTF, frames_B, _group_clips(kind, inputs.corpus), rows=inputs.rows,
        total=add_up if inputs.clips is not None else lambda part: part,
    )  # fmt: skip
    apply_statistics(inputs.x_BTF, own, inputs.rows)
    return inputs._replace(own=own, kind=kind, masked=masked)


def _group_clips(kind: str, corpus: Corpus) -> np.ndarray:
    """Number of each clip's group, whose statistics it shares, from 0, [B].

    Args:
      kind: clip, speaker or corpus (each part of a joined one); see `FeaturesConfig.normalise`.
      corpus: the clips.
    """
    n_clips = len(corpus.file_names)
    if kind == "clip":
        return np.arange(n_clips)
    names = corpus.actor_B if kind == "speaker" else corpus.attributes.get("corpus")
    if names is None:
        return np.zeros(n_clips, int)
    return np.unique(names, return_inverse=True)[1]


def fit_to_training(
    inputs: Inputs, train_index: np.ndarray, features: FeaturesConfig, masked: bool
) -> Normaliser:
    """Statistics of the training clips, over real frames only if `masked`."""
    if features.kind == "wave":  # the network normalises each clip itself
        return Normaliser(*map(jax.device_put, (np.zeros(1, np.float32), np.ones(1, np.float32))))
    total = add_up if inputs.clips is not None else lambda part: part
    if inputs.clips is not None:
        train_index = train_index[np.isin(train_index, inputs.rows)]
    x_BTF = inputs.x_BTF[train_index]
    mask_BT = np.arange(x_BTF.shape[1])[None, :] < inputs.frames_B[train_index][:, None]
    mask = mask_BT if masked else None
    kind = "none" if features.is_own else features.normalise
    return fit_normaliser(x_BTF, mask, kind, total=total)  # pyright: ignore[reportArgumentType]


def make_dataset(
    inputs: Inputs, normaliser: Normaliser, *, with_waves: bool = False, on_host: bool = False
) -> Dataset:
    """The corpus on the device.

    Args:
      inputs: the corpus and its features.
      normaliser: of the training clips.
      with_waves: include its samples, for augmentation there.
      on_host: keep samples and features on the host, for `streaming.StreamedCorpus`.
    """
    corpus = inputs.corpus
    # Samples and features, with a row per clip, are sharded; the rest is small.
    place: Callable[..., Any] = np.asarray if on_host else jax.device_put
    if inputs.clips is not None:
        place = functools.partial(shard, sharding=inputs.clips)
    return Dataset(
        x_BTF=place(inputs.x_BTF),
        frames_B=_put(inputs.frames_B),
        label_B=_put(corpus.emotion_B),
        normaliser=normaliser,
        draw=_put(1),
        wave_BN=place(corpus.wave_BN) if with_waves else None,
        length_B=_put(corpus.length_B) if with_waves else None,
        own=inputs.own and jax.device_put(inputs.own) if with_waves or on_host else None,
    )


def describe_dataset(
    x_BTF: jax.ShapeDtypeStruct,
    n_samples: int | None = None,
    *,
    has_own: bool = False,
    are_waves: bool = False,
) -> Dataset:
    """Shapes and types of the result of `make_dataset` in one process.

    Args:
      x_BTF: of the features.
      n_samples: of each clip, if samples are included.
      has_own: whether statistics of each clip are included with the samples.
      are_waves: whether the features are samples, or made of them by frozen layers.
    """
    n_clips, _, n_features = x_BTF.shape
    n_normalised = 1 if are_waves else n_features  # see `fit_to_training`
    shape: Any = jax.ShapeDtypeStruct
    number_B, feature_F = shape((n_clips,), np.int32), shape((n_normalised,), np.float32)
    with_waves = n_samples is not None
    own = Statistics(*(shape((n_clips, n_features), np.float32),) * 2)  # pyright: ignore
    return Dataset(
        x_BTF=x_BTF,
        frames_B=number_B,
        label_B=number_B,
        normaliser=Normaliser(feature_F, feature_F),
        draw=shape((), np.int32),
        wave_BN=shape((n_clips, n_samples), np.int16) if with_waves else None,
        length_B=number_B if with_waves else None,
        own=own if with_waves and has_own else None,
    )


def _put(numbers: Any) -> jax.Array:
    """Integers on the device, converted on the host, where that compiles no program."""
    return jax.device_put(np.asarray(numbers, np.int32))
