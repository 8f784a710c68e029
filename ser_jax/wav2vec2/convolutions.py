"""The convolutions of wav2vec 2.0, under the names of transformers' Flax modules.

Forwards they are `lax.conv`; gradients are written out where XLA's own are slow on CPU: that of the
grouped convolution by twenty times.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from transformers.modeling_flax_utils import ACT2FN
from transformers.models.wav2vec2 import modeling_flax_wav2vec2 as hf

from ser_jax.wav2vec2.architecture import Architecture
from ser_jax.wav2vec2.norms import LayerNorm, match_last

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
    # What made the gradient would otherwise be computed again for each use of it.
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
    """A convolution of stride 1 that gives `stride` frames at once, side by side as channels."""
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

    The kernel's C is one group's; T' is T, and one more for an even K.
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
    """One product a group: patches of some taps by the output's gradient, shifted for the others.

    Patches of all K taps would take K times the memory of x, and gradients shifted K times as much.
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


class _Kernel(nn.Module):
    """The parameters of an `nn.Conv`, under its names."""

    shape: tuple[int, int, int]
    use_bias: bool

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        kernel = self.param("kernel", nn.initializers.he_normal(), self.shape)
        if not self.use_bias:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, self.shape[-1:])


class _Scale(nn.Module):
    """The parameters of a norm, under their names."""

    features: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        return scale, self.param("bias", nn.initializers.zeros, (self.features,))


class ConvLayer(nn.Module):
    """One layer of the feature encoder: convolution, norm if it has one, activation."""

    config: Architecture
    layer_id: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        config, number = self.config, self.layer_id
        n_in = config.conv_dim[number - 1] if number else 1
        shape = (config.conv_kernel[number], n_in, config.conv_dim[number])
        self.conv: Any = _Kernel(shape, config.conv_bias)
        self.norm = config.feat_extract_norm if number == 0 else ""
        if config.feat_extract_norm == "layer":
            self.norm = "layer"
            self.layer_norm: Any = LayerNorm(config.layer_norm_eps, self.dtype)
        elif number == 0:
            self.layer_norm = _Scale(config.conv_dim[0])
        self.activation = ACT2FN[config.feat_extract_activation]

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        kernel, bias = self.conv()
        x_BTC = x_BTC.astype(self.dtype)
        stride = self.config.conv_stride[self.layer_id]
        if self.norm == "group":
            return self.activation(self._convolve_and_norm(x_BTC, kernel, stride))
        h_BTD: Any = convolve_frames(x_BTC, kernel.astype(self.dtype), stride)
        if bias is not None:
            h_BTD = h_BTD + match_last(bias, h_BTD)
        if self.norm == "layer":
            h_BTD = self.layer_norm(h_BTD)
        return self.activation(h_BTD)

    def _convolve_and_norm(self, x_BTC: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
        """The convolution of few channels, then a norm of each over all frames, padding too.

        A bias would be subtracted again with the mean. Patches less their mean give outputs without
        one, so that these are gone through once for their variance.
        """
        K, C, D = kernel.shape
        n_out = (x_BTC.shape[1] - K) // stride + 1
        taps = [x_BTC[:, k : k + (n_out - 1) * stride + 1 : stride] for k in range(K)]
        patches = jnp.concatenate(taps, axis=-1).astype(jnp.float32)
        patches = patches - patches.mean(axis=1, keepdims=True)
        h_BTD = patches @ kernel.reshape(K * C, D).astype(jnp.float32)
        variance = jnp.square(h_BTD).mean(axis=1, keepdims=True)
        scale, bias = self.layer_norm()
        factor = jax.lax.rsqrt(variance + self.config.layer_norm_eps)
        h_BTD = h_BTD * (factor * match_last(scale, factor)) + match_last(bias, h_BTD)
        return h_BTD.astype(self.dtype)


class ConvLayers(nn.Module):
    config: Architecture
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.layers = [
            ConvLayer(self.config, number, self.dtype, name=str(number))
            for number in range(self.config.num_feat_extract_layers)
        ]

    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        for layer in self.layers:
            x_BTC = layer(x_BTC)
        return x_BTC


class FeatureEncoder(nn.Module):
    """Samples [B, N] to features [B, T, C]: the stack of strided convolutions."""

    config: Architecture
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.conv_layers = ConvLayers(self.config, self.dtype)

    def __call__(self, x_BN: jax.Array) -> jax.Array:
        return self.conv_layers(x_BN[:, :, None])


class PositionalConvEmbedding(hf.FlaxWav2Vec2PositionalConvEmbedding):
    """transformers' positional convolution and activation, computed by `convolve_same`."""

    def setup(self) -> None:
        self.conv = _WeightNormKernel(self.config, dtype=self.dtype)
        self.activation = ACT2FN[self.config.feat_extract_activation]
        self.num_pad_remove = 1 if self.config.num_conv_pos_embeddings % 2 == 0 else 0

    def __call__(self, hidden_states: jax.Array) -> jax.Array:
        kernel, bias = self.conv()
        groups = self.config.num_conv_pos_embedding_groups
        h: Any = convolve_same(hidden_states.astype(self.dtype), kernel, groups)
        h = h + match_last(bias, h)
        if self.num_pad_remove > 0:
            h = h[:, : -self.num_pad_remove]
        return self.activation(h)


class _WeightNormKernel(hf.FlaxConvWithWeightNorm):
    """The kernel that the weight norm makes of its parameters, and the bias."""

    def __call__(self) -> tuple[jax.Array, jax.Array]:  # pyright: ignore
        return self._get_normed_weights().T.astype(self.dtype), self.bias.astype(self.dtype)
