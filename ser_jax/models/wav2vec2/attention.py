"""Self-attention by either of two forms: plain products, or cuDNN's fused kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import backend

from ser_jax.models.layers import zero_padding


def has_cudnn() -> bool:
    """Whether this process computes on NVIDIA GPUs that have cuDNN's fused attention: Ampere on."""
    client = backend.get_backend()
    if "cuda" not in client.platform_version:
        return False
    return all(float(device.compute_capability) >= 8 for device in client.local_devices())


def find_obstacle(*, cudnn: bool, dtype: Any, width: int, dropout: float) -> str:
    """Why the fused kernel cannot run, with the remedy; empty: it can.

    Dropout of attention weights is one. The kernel has it, but XLA fixes its seed when it compiles
    and counts its calls inside the executable: runs of all seeds would drop the same weights, a
    resumed run others than one that was never stopped, and a CUDA graph, which records the count
    once, the same ones at every step.

    Args:
      cudnn: see `has_cudnn`.
      dtype: of the computation.
      width: of a head.
      dropout: share of attention weights that are dropped here and now; 0 in evaluation.
    """
    if dropout > 0:
        return (
            f"has no dropout of attention weights, which is {dropout}; "
            "set backbone.attention_dropout=0"
        )
    if not cudnn:
        return "needs an NVIDIA GPU of the Ampere generation or later"
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return f"does not compute in {jnp.dtype(dtype)}; set train.dtype=bfloat16"
    if width % 8 or width > 128:
        return f"needs heads whose width is a multiple of 8 and at most 128, not {width}"
    return ""


def attend_plain(
    q_BTND: jax.Array,
    k_BTND: jax.Array,
    v_BTND: jax.Array,
    mask_BT: jax.Array | None,
    drop: Callable[[jax.Array], jax.Array] = lambda weights: weights,
) -> jax.Array:
    """Softmax attention of N heads of D features, [B, T, N, D]; the softmax is in float32.

    Args:
      q_BTND, k_BTND, v_BTND: queries, keys and values.
      mask_BT: True for frames that may be attended to; None: all are.
      drop: what is done to the weights [B, N, T, T].
    """
    scores = jnp.einsum("bqhd,bkhd->bhqk", q_BTND * q_BTND.shape[-1] ** -0.5, k_BTND)
    scores = scores.astype(jnp.float32)
    if mask_BT is not None:  # finite: a row without a real frame still gives numbers
        scores = jnp.where(mask_BT[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BTND.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", drop(weights), v_BTND)


def attend_fused(
    q_BTND: jax.Array, k_BTND: jax.Array, v_BTND: jax.Array, mask_BT: jax.Array | None
) -> jax.Array:
    """`attend_plain` by cuDNN's kernel, which stores no weights.

    Its gradient needs an even T (see `pad_frames`). In `mask_BT` the frames that may be attended to
    come first; a row without any attends to its first frame.
    """
    length_B = None
    if mask_BT is not None:
        # The kernel may leave the gradient of a masked key undefined; this drops it.
        k_BTND, v_BTND = zero_padding(k_BTND, mask_BT), zero_padding(v_BTND, mask_BT)
        length_B = jnp.maximum(mask_BT.sum(axis=1, dtype=jnp.int32), 1)
    return jax.nn.dot_product_attention(
        q_BTND, k_BTND, v_BTND, key_value_seq_lengths=length_B, implementation="cudnn"
    )


def pad_frames(
    h_BTH: jax.Array, mask_BT: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """One masked frame more where T is odd, as the gradient of the fused kernel needs it."""
    B, T, _ = h_BTH.shape
    if T % 2 == 0:
        return h_BTH, mask_BT
    mask_BT = jnp.ones((B, T), bool) if mask_BT is None else mask_BT
    return jnp.pad(h_BTH, ((0, 0), (0, 1), (0, 0))), jnp.pad(mask_BT, ((0, 0), (0, 1)))
