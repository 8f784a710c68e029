"""Self-attention by plain matrix products or by cuDNN's fused kernel."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.machine.accelerator import on_accelerator
from ser_jax.models import layers
from ser_jax.models.layers import zero_padding


def find_obstacle(*, cudnn: bool, dtype: Any, width: int, dropout: float) -> str:
    """Why the fused kernel cannot run, with a remedy; empty if it can.

    Dropout of attention weights is one obstacle. The kernel supports it, but XLA fixes its seed at
    compile time and counts calls inside the executable. Runs with different seeds would drop the
    same weights, a resumed run would differ from an uninterrupted one, and a CUDA graph, which
    records the count once, would drop the same weights at every step.

    Args:
      cudnn: see `accelerator.has_fused_attention`.
      dtype: type of the computation.
      width: features of a head.
      dropout: share of attention weights dropped in this call; 0 in evaluation.
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


def recompute(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`function` with its intermediate results recomputed in the backward pass, not stored.

    Meant for elementwise functions: on an accelerator memory traffic costs more than arithmetic. On
    CPU the opposite holds, and `function` is returned unchanged.
    """
    return jax.checkpoint(function) if on_accelerator() else function


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend_plain(
    q_BTND: jax.Array,
    k_BTND: jax.Array,
    v_BTND: jax.Array,
    mask_BT: jax.Array | None,
    key: jax.Array | None,
    rate: float,
) -> jax.Array:
    """Softmax attention of N heads of D features, [B, T, N, D]; the softmax is in float32.

    The gradient is that of FlashAttention (Dao et al. 2022, appendix B) without tiling; of the
    arrays of size T x T only the scores are stored.

    Args:
      q_BTND, k_BTND, v_BTND: queries, keys and values.
      mask_BT: True for frames that may be attended to; `None` for all.
      key: random key of the dropout; `None` disables it.
      rate: share of the weights that are dropped.
    """
    return _attend_forward(q_BTND, k_BTND, v_BTND, mask_BT, key, rate)[0]


def _attend_forward(q: Any, k: Any, v: Any, mask: Any, key: Any, rate: float) -> tuple[Any, Any]:
    scores = jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
    exact = _mask_scores(scores, mask)
    most = exact.max(axis=-1, keepdims=True)
    inverse = 1 / jnp.exp(exact - most).sum(axis=-1, keepdims=True)
    weights = maybe_drop_scores((jnp.exp(exact - most) * inverse).astype(v.dtype), rate, key)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    return out, (q, k, v, mask, key, scores, most, inverse, out)


def _attend_backward(rate: float, saved: Any, g_BTND: jax.Array) -> tuple[Any, ...]:
    q, k, v, mask, key, scores, most, inverse, out = saved
    if on_accelerator():
        scores, key = jax.lax.optimization_barrier((scores, key))
    probability = jnp.exp(_mask_scores(scores, mask) - most) * inverse
    weights = maybe_drop_scores(probability.astype(v.dtype), rate, key)
    g_weights = maybe_drop_scores(jnp.einsum("bqhd,bkhd->bhqk", g_BTND, v), rate, key).astype(
        jnp.float32
    )
    mean = (g_BTND.astype(jnp.float32) * out.astype(jnp.float32)).sum(axis=-1)
    g_scores = probability * (g_weights - jnp.swapaxes(mean, 1, 2)[..., None])
    if mask is not None:
        g_scores = jnp.where(mask[:, None, None, :], g_scores, 0)
    g_scores, scale = g_scores.astype(q.dtype), q.shape[-1] ** -0.5
    g_q = jnp.einsum("bhqk,bkhd->bqhd", g_scores, k) * scale
    g_k = jnp.einsum("bhqk,bqhd->bkhd", g_scores, q * scale)
    g_v = jnp.einsum("bhqk,bqhd->bkhd", weights, g_BTND)
    return g_q, g_k, g_v, None, None


attend_plain.defvjp(_attend_forward, _attend_backward)


def maybe_drop_scores(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Apply dropout to `x`; without a key, return `x`."""
    return x if key is None else layers.drop(x, rate, key)


def _mask_scores(scores: jax.Array, mask_BT: jax.Array | None) -> jax.Array:
    scores = scores.astype(jnp.float32)
    if mask_BT is None:
        return scores
    # Finite, so that a row without a real frame does not become NaN.
    return jnp.where(mask_BT[:, None, None, :], scores, jnp.finfo(jnp.float32).min)


def attend_fused(
    q_BTND: jax.Array, k_BTND: jax.Array, v_BTND: jax.Array, mask_BT: jax.Array | None
) -> jax.Array:
    """`attend_plain` with cuDNN's kernel, which stores no weights.

    Its gradient needs an even T (see `pad_frames`). In each row of `mask_BT` the real frames must
    come first; a row without any attends to its first frame.
    """
    length_B = None
    if mask_BT is not None:
        # The kernel may leave the gradient of a masked key undefined; this discards it.
        k_BTND, v_BTND = zero_padding(k_BTND, mask_BT), zero_padding(v_BTND, mask_BT)
        length_B = jnp.maximum(mask_BT.sum(axis=1, dtype=jnp.int32), 1)
    return jax.nn.dot_product_attention(
        q_BTND, k_BTND, v_BTND, key_value_seq_lengths=length_B, implementation="cudnn"
    )


def pad_frames(h_BTH: jax.Array, mask_BT: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """Append masked frames up to a multiple of 8, as a GPU's matrix units require.

    Otherwise XLA would pad, and copy, the operands of each product.
    """
    B, T, _ = h_BTH.shape
    n_more = -T % 8
    if n_more == 0:
        return h_BTH, mask_BT
    mask_BT = jnp.ones((B, T), bool) if mask_BT is None else mask_BT
    return jnp.pad(h_BTH, ((0, 0), (0, n_more), (0, 0))), jnp.pad(mask_BT, ((0, 0), (0, n_more)))
