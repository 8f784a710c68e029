"""The feature encoder: from samples to features, with the names of transformers' Flax modules."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from transformers.modeling_flax_utils import ACT2FN

from ser_jax.wav2vec2.architecture import Architecture
from ser_jax.wav2vec2.convolutions import convolve_frames
from ser_jax.wav2vec2.norms import LayerNorm, match_last


class _Kernel(nn.Module):
    """The parameters of an `nn.Conv`, with its names."""

    shape: tuple[int, int, int]
    use_bias: bool

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        kernel = self.param("kernel", nn.initializers.he_normal(), self.shape)
        if not self.use_bias:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, self.shape[-1:])


class _Scale(nn.Module):
    """The parameters of a norm, with Flax's names."""

    features: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        return scale, self.param("bias", nn.initializers.zeros, (self.features,))


class ConvLayer(nn.Module):
    """One layer of the feature encoder: convolution, optional norm, activation."""

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
        """A convolution of few channels, then a norm of each channel over all frames and padding.

        The norm subtracts the mean and so cancels any bias. Centred patches give outputs of zero
        mean, so one pass over the outputs suffices for their variance.
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
    """The stack of convolutions."""

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
    """Map samples [B, N] to features [B, T, C] by a stack of strided convolutions."""

    config: Architecture
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.conv_layers = ConvLayers(self.config, self.dtype)

    def __call__(self, x_BN: jax.Array) -> jax.Array:
        return self.conv_layers(x_BN[:, :, None])
