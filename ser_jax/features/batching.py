"""The corpus on the device, and batches of it as arrays of clip numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ser_jax.audio.samples import to_float
from ser_jax.features.normaliser import Normaliser, normalise

PADDING = -1
"""Clip number of a padding row, which fills up the last batch."""


@struct.dataclass
class Batch:
    """The input of a step.

    Attributes:
      x_BTF: features, float32.
      mask_BT: True for real frames; all False in a padding row.
      label_B: class numbers, int32.
      weight_B: 1 for real rows, 0 for padding rows, float32.
    """

    x_BTF: jax.Array
    mask_BT: jax.Array
    label_B: jax.Array
    weight_B: jax.Array


@struct.dataclass
class Dataset:
    """Every clip of a corpus, on the device.

    Features are stored unnormalised and normalised in each batch, so that runs with other training
    clips, and hence other normalisers, share them.

    Attributes:
      x_BTF: features before normalisation, float32; or samples, int16.
      frames_B: real frames, int32.
      label_B: class numbers, int32.
      normaliser: of this run.
      draw: number of the augmentation's draw for training batches, int32 scalar.
      wave_BN: samples, int16; only for augmentation on the device.
      length_B: real samples, int32; only for augmentation on the device.
      own: statistics of each clip, which normalise `x_BTF` already and are to normalise features of
        augmented samples; None if only training clips give statistics.
      n_frames: frames to which batches are cut, enough for their clips; None keeps all.
    """

    x_BTF: Any  # an array, or a stand-in for one whose rows are elsewhere
    frames_B: jax.Array
    label_B: jax.Array
    normaliser: Normaliser
    draw: jax.Array
    wave_BN: Any = None
    length_B: jax.Array | None = None
    own: Any = None
    n_frames: int | None = struct.field(pytree_node=False, default=None)


TakeTrain = Callable[[Dataset, jax.Array, jax.Array, jax.Array, jax.Array], Batch]
"""(dataset, index_B, key, draw, p) -> Batch: training clips under draw number `draw` of the
augmentation, each augmentation with probability p."""


def take(dataset: Dataset, index_B: jax.Array) -> Batch:
    """The clips numbered `index_B`; `PADDING` gives a row of zeros and weight 0."""
    x_BTF = dataset.x_BTF[jnp.maximum(index_B, 0)]
    return make_batch(dataset, index_B, x_BTF[:, : dataset.n_frames])


def take_plain(
    dataset: Dataset, index_B: jax.Array, key: jax.Array, draw: jax.Array, p: jax.Array
) -> Batch:
    """Training clips without augmentation on the device."""
    del key, draw, p
    return take(dataset, index_B)


def make_batch(dataset: Dataset, index_B: jax.Array, x_BTF: jax.Array) -> Batch:
    """The batch of clips `index_B` from their features before normalisation, `x_BTF`."""
    real_B = index_B >= 0
    row_B = jnp.maximum(index_B, 0)
    T = x_BTF.shape[1]
    frames_B = jnp.where(real_B, dataset.frames_B[row_B], 0)
    x_BTF = normalise(scale_samples(x_BTF), dataset.normaliser)
    return Batch(
        x_BTF=jnp.where(real_B[:, None, None], x_BTF, 0),
        mask_BT=jnp.arange(T)[None, :] < frames_B[:, None],
        label_B=jnp.where(real_B, dataset.label_B[row_B], 0),
        weight_B=real_B.astype(jnp.float32),
    )


def scale_samples(x: Any) -> Any:
    """int16 samples as float32 of full scale 1, exactly; any other array unchanged."""
    return to_float(x) if x.dtype == np.int16 else x


def shuffle(index: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The clip numbers in the order of one epoch, a function of seed and epoch alone."""
    return np.random.default_rng((seed, epoch)).permutation(index)


def order_epoch(
    index: np.ndarray, seed: int, epoch: int, label_B: np.ndarray | None = None
) -> np.ndarray:
    """The training clips of one epoch: each once, or by `draw_balanced` if classes are given."""
    if label_B is None:
        return shuffle(index, seed, epoch)
    return draw_balanced(index, label_B, seed, epoch)


def draw_balanced(index: np.ndarray, label_B: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many clip numbers as `index` has, with classes equally often to within one clip.

    A clip is repeated only once all clips of its class have been drawn equally often. The draw is a
    function of seed and epoch alone.

    Args:
      index: clip numbers.
      label_B: classes of all clips, by clip number.
      seed, epoch: of the run.
    """
    rng = np.random.default_rng((seed, epoch))
    classes = rng.permutation(np.unique(label_B[index]))
    drawn = []
    for share, label in zip(np.array_split(index, len(classes)), classes, strict=True):
        members = index[label_B[index] == label]
        rounds = [rng.permutation(members) for _ in range(-(-len(share) // len(members)))]
        drawn.append(np.concatenate([*rounds, members[:0]])[: len(share)])
    return rng.permutation(np.concatenate(drawn))


def cut_batches(index: np.ndarray, batch_size: int, n_shards: int = 1) -> np.ndarray:
    """Clip numbers as batches, int32 [S, B], filled up with `PADDING`.

    Args:
      index: clip numbers.
      batch_size: clips per batch; the last batch may have fewer.
      n_shards: B is `batch_size` rounded up to a multiple of this.
    """
    n_steps = -(-len(index) // batch_size)
    index_SB = np.full(n_steps * batch_size, PADDING, np.int32)
    index_SB[: len(index)] = index
    fill = -batch_size % n_shards
    return np.pad(index_SB.reshape(n_steps, batch_size), ((0, 0), (0, fill)),
                  constant_values=PADDING)  # fmt: skip


def cut_buckets(
    order: np.ndarray, frames_B: np.ndarray, n_buckets: int, cut: Callable[[np.ndarray], np.ndarray]
) -> list[tuple[int, np.ndarray]]:
    """Batches of clips of similar length.

    Args:
      order: clip numbers in the order of the epoch.
      frames_B: frames of every clip of the corpus.
      n_buckets: number of sets of clips of similar length; sets have equal sizes to within one.
      cut: from clip numbers to batches [S, B].

    Returns:
      For each batch the frames of its set's longest clip, and its clip numbers [1, B]; set by set.
    """
    # Places in the order, since a clip may be drawn twice.
    ranked = np.lexsort((order, frames_B[order]))
    batches: list[tuple[int, np.ndarray]] = []
    for places in np.array_split(ranked, min(n_buckets, len(ranked))):
        members = order[np.sort(places)]
        n_frames = int(frames_B[members].max())
        batches += [(n_frames, row[None]) for row in cut(members)]
    return batches


def count_steps(n_clips: int, batch_size: int, n_buckets: int = 1) -> int:
    """Number of batches of `n_clips`; each bucket may end with a partial batch."""
    buckets = np.array_split(np.arange(n_clips), min(n_buckets, n_clips))
    return sum(-(-len(members) // batch_size) for members in buckets)


def compute_features(
    front_end: Callable[[Any], jax.Array],
    wave_BN: np.ndarray,
    *,
    chunk: int = 64,
    on_chunk: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """Features of many clips, computed in chunks to bound memory.

    Args:
      front_end: jitted function from waves [B, N], of the type of `wave_BN`, to features [B, T, F].
      wave_BN: samples.
      chunk: clips at a time; the last chunk is padded, so that one shape is compiled.
      on_chunk: called with the number of clips of each chunk.

    Returns:
      float32 [clips, T, F] on the host: a corpus may be larger than the device's memory.
    """
    parts: list[Any] = []
    for start in range(0, len(wave_BN), chunk):
        part_BN = wave_BN[start : start + chunk]
        n = len(part_BN)
        part_BN = np.pad(part_BN, ((0, chunk - n), (0, 0)))
        parts.append(front_end(part_BN))
        if len(parts) > 1:  # copy the previous chunk to the host while the device computes this one
            parts[-2] = np.asarray(parts[-2])
        on_chunk(n)
    return np.concatenate(parts)[: len(wave_BN)]
