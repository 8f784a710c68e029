"""The strided and grouped convolutions of wav2vec 2.0 as functions.

The forward passes are `lax.conv_general_dilated`; gradients are written out where XLA's are slow on
CPU, which for the grouped convolution means a factor of twenty.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

_NAMES = ("NWC", "WIO", "NWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_frames(x_BTC: jax.Array, kernel_KCD: jax.Array, stride: int) -> jax.Array:
    """A strided convolution without padding, [B, T, C] to [B, T', D]."""
    return jax.lax.conv_general_dilated(
        x_BTC, kernel_KCD, (stride,), "VALID", dimension_numbers=_NAMES
    )


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, Any]:
    return convolve_frames(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: Any, g_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BTC, kernel_KCD = saved
    # Without the barrier XLA recomputes the incoming gradient for each of its uses.
    g_BTD = jax.lax.optimization_barrier(g_BTD)
    g_x = _compute_input_gradient(g_BTD, kernel_KCD, stride, x_BTC.shape[1])
    make = functools.partial(
        jax.lax.conv_general_dilated, x_BTC, window_strides=(stride,), padding="VALID",
        dimension_numbers=_NAMES,
    )  # fmt: skip
    return g_x, jax.vjp(lambda kernel: make(kernel), kernel_KCD)[1](g_BTD)[0]


def _compute_input_gradient(
    g_BTD: jax.Array, kernel_KCD: jax.Array, stride: int, T: int
) -> jax.Array:
    """A stride-1 convolution that yields `stride` frames at once, stacked as channels."""
    K, C, D = kernel_KCD.shape
    B, n_out, _ = g_BTD.shape
    n_blocks, parts = -(-T // stride), -(-K // stride)
    kernel = jnp.pad(kernel_KCD, ((0, parts * stride - K), (0, 0), (0, 0)))
    kernel = jnp.flip(kernel.reshape(parts, stride * C, D), 0)
    g_BTD = jnp.pad(g_BTD, ((0, 0), (parts - 1, n_blocks - n_out), (0, 0)))
    blocks = jax.lax.conv_general_dilated(
        g_BTD, jnp.swapaxes(kernel, 1, 2), (1,), "VALID", dimension_numbers=_NAMES
    )
    return blocks.reshape(B, n_blocks * stride, C)[:, :T]


convolve_frames.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_same(x_BTC: jax.Array, kernel_KCD: jax.Array, groups: int) -> jax.Array:
    """A grouped convolution of stride 1 with K // 2 zeros on both sides, [B, T, C] to [B, T', D].

    The kernel's C counts the channels of one group; T' is T, or T + 1 for an even K.
    """
    return _convolve_padded(x_BTC, kernel_KCD, groups, kernel_KCD.shape[0] // 2)


def _convolve_padded(x: jax.Array, kernel: jax.Array, groups: int, padding: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), ((padding, padding),), dimension_numbers=_NAMES, feature_group_count=groups
    )


def _forward_same(x: jax.Array, kernel: jax.Array, groups: int) -> tuple[jax.Array, Any]:
    return convolve_same(x, kernel, groups), (x, kernel)


def _backward_same(groups: int, saved: Any, g_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BTC, kernel_KCD = saved
    g_BTD = jax.lax.optimization_barrier(g_BTD)
    K, c, D = kernel_KCD.shape
    turned = jnp.flip(kernel_KCD, 0).reshape(K, c, groups, D // groups)
    turned = jnp.transpose(turned, (0, 3, 2, 1)).reshape(K, D // groups, groups * c)
    g_x = _convolve_padded(g_BTD, turned, groups, K - 1 - K // 2)
    return g_x, _compute_kernel_gradient(x_BTC, g_BTD, K, groups)


def _compute_kernel_gradient(x_BTC: jax.Array, g_BTD: jax.Array, K: int, groups: int) -> jax.Array:
    """One product per group: patches of some taps times the gradient shifted for the other taps.

    Patches of all K taps would take K times the memory of x, and K shifted gradients likewise.
    """
    split = next(n for n in range(int(K**0.5 * 1.5), 0, -1) if K % n == 0)
    B, _, C = x_BTC.shape
    n_out, D = g_BTD.shape[1:]
    c, d, parts = C // groups, D // groups, K // split
    n_patches = n_out + K - split
    x_BTC = jnp.pad(x_BTC, ((0, 0), (K // 2, K // 2), (0, 0)))
    x_GBTc = jnp.moveaxis(x_BTC.reshape(B, -1, groups, c), 2, 0)
    patches = jnp.stack([x_GBTc[:, :, tap : tap + n_patches] for tap in range(split)], axis=3)
    g_GBTd = jnp.moveaxis(g_BTD.reshape(B, n_out, groups, d), 2, 0)
    shifted = jnp.stack(
        [
            jnp.pad(g_GBTd, ((0, 0), (0, 0), (part * split, K - split - part * split), (0, 0)))
            for part in range(parts)
        ],
        axis=3,
    )
    products = jnp.einsum(
        "gnx,gny->gxy",
        patches.reshape(groups, B * n_patches, split * c),
        shifted.reshape(groups, B * n_patches, parts * d),
    )
    kernel = products.reshape(groups, split, c, parts, d)
    return jnp.transpose(kernel, (3, 1, 2, 0, 4)).reshape(K, c, D)


convolve_same.defvjp(_forward_same, _backward_same)
