"""The transformer blocks of wav2vec 2.0, built from transformers' Flax modules.

Each class has the same parameters as its base class, and adds what the base class lacks: LoRA,
cheap dropout inside a jitted step, two implementations of attention, statistics in float32.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from transformers.models.wav2vec2 import modeling_flax_wav2vec2 as hf

from ser_jax.machine.accelerator import has_fused_attention, on_accelerator
from ser_jax.wav2vec2.architecture import Architecture
from ser_jax.wav2vec2.norms import LayerNorm, match_last
from ser_jax.wav2vec2.self_attention import (
    attend_fused,
    attend_plain,
    find_obstacle,
    maybe_drop_scores,
    pad_frames,
    recompute,
)


class Lora(NamedTuple):
    """Low-rank adaptation of the attention kernels (Hu et al. 2021).

    Attributes:
      rank: r in kernel + a [in, r] @ b [r, out] * alpha / r.
      alpha: the scale in the same formula.
      targets: which of q_proj, k_proj, v_proj and out_proj are adapted.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = ("q_proj", "v_proj")


def maybe_key(module: nn.Module, rate: float, train: bool) -> jax.Array | None:
    """A key from the 'dropout' stream for `layers.drop`; None if nothing is dropped."""
    return module.make_rng("dropout") if train and rate > 0 else None


def maybe_drop(module: nn.Module, x: jax.Array, rate: float, train: bool) -> jax.Array:
    """Apply dropout to `x` in training."""
    return maybe_drop_scores(x, rate, maybe_key(module, rate, train))


class LoraDense(nn.Dense):
    """A dense layer with a low-rank addition, initially zero."""

    lora: Lora | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        # The parameters of nn.Dense, with its names and in its order.
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape[1:], self.param_dtype)
        x = inputs.astype(self.dtype)
        y = x @ kernel.astype(self.dtype)
        y = y + match_last(bias, y)
        if self.lora is None:
            return y
        rank = self.lora.rank
        a = self.param("lora_a", nn.initializers.he_uniform(), (shape[0], rank))
        b = self.param("lora_b", nn.initializers.zeros, (rank, shape[1]))
        return y + (x @ a.astype(self.dtype)) @ (b * (self.lora.alpha / rank)).astype(self.dtype)


class Attention(hf.FlaxWav2Vec2Attention):
    """transformers' self-attention, with plain products or the fused kernel."""

    lora: Lora | None = None

    def setup(self) -> None:
        self.head_dim = self.embed_dim // self.num_heads

        def dense(name: str) -> LoraDense:
            lora = self.lora if self.lora and name in self.lora.targets else None
            init = nn.initializers.normal(self.config.initializer_range)
            return LoraDense(self.embed_dim, dtype=self.dtype, kernel_init=init, lora=lora)

        self.q_proj, self.k_proj = dense("q_proj"), dense("k_proj")
        self.v_proj, self.out_proj = dense("v_proj"), dense("out_proj")

    def __call__(  # pyright: ignore
        self, h_BTH: jax.Array, mask_BT: jax.Array | None, *, train: bool, fused: bool
    ) -> jax.Array:
        q, k, v = (self._split_heads(f(h_BTH)) for f in (self.q_proj, self.k_proj, self.v_proj))
        if fused:
            h = attend_fused(q, k, v, mask_BT)
        else:
            key = maybe_key(self, self.dropout, train)
            h = attend_plain(q, k, v, mask_BT, key, self.dropout)
        return self.out_proj(self._merge_heads(h))


class FeedForward(hf.FlaxWav2Vec2FeedForward):
    """transformers' two dense layers."""

    def __call__(self, h_BTH: jax.Array, *, train: bool) -> jax.Array:  # pyright: ignore
        rate = self.config.activation_dropout
        key = maybe_key(self, rate, train)
        activate = recompute(lambda h: maybe_drop_scores(self.intermediate_act_fn(h), rate, key))
        h = activate(self.intermediate_dense(h_BTH))
        return maybe_drop(self, self.output_dense(h), self.config.hidden_dropout, train)


class FeatureProjection(hf.FlaxWav2Vec2FeatureProjection):
    """transformers' normalisation and projection of the convolutions' output."""

    def setup(self) -> None:
        config = self.config
        self.layer_norm = LayerNorm(config.layer_norm_eps, self.dtype)
        init = nn.initializers.normal(config.initializer_range)
        self.projection = nn.Dense(config.hidden_size, kernel_init=init, dtype=self.dtype)

    def __call__(  # pyright: ignore
        self, z_BTC: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Map [B, T, C] to hidden states [B, T, H] and normalised features [B, T, C]."""
        normed_BTC = self.layer_norm(z_BTC)
        h_BTH = self.projection(normed_BTC)
        return maybe_drop(self, h_BTH, self.config.feat_proj_dropout, train), normed_BTC


class Layer(hf.FlaxWav2Vec2EncoderLayerStableLayerNorm):
    """A transformer layer of either layout: pre-norm (stable) or post-norm."""

    config: Any  # an Architecture
    lora: Lora | None = None

    def setup(self) -> None:
        config = self.config
        self.attention = Attention(
            config, config.hidden_size, config.num_attention_heads, config.attention_dropout,
            dtype=self.dtype, lora=self.lora,
        )  # fmt: skip
        self.layer_norm = LayerNorm(config.layer_norm_eps, self.dtype)
        self.feed_forward = FeedForward(config, dtype=self.dtype)
        self.final_layer_norm = LayerNorm(config.layer_norm_eps, self.dtype)

    def __call__(  # pyright: ignore
        self, h_BTH: jax.Array, mask_BT: jax.Array | None, train: bool, fused: bool
    ) -> jax.Array:
        stable = self.config.do_stable_layer_norm
        h = self.layer_norm(h_BTH) if stable else h_BTH
        h = self.attention(h, mask_BT, train=train, fused=fused)
        h_BTH = h_BTH + maybe_drop(self, h, self.config.hidden_dropout, train)
        if stable:
            return h_BTH + self.feed_forward(self.final_layer_norm(h_BTH), train=train)
        h_BTH = self.layer_norm(h_BTH)
        return self.final_layer_norm(h_BTH + self.feed_forward(h_BTH, train=train))


def choose_skipping(keep: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether to compute a layer, and whether to use its output.

    On CPU a skipped layer is not computed. On a GPU the host would wait for each predicate before
    launching more work, so the layer is computed and its output discarded. On either platform one
    of the two results is a constant, which XLA folds together with the selection or branch.
    """
    yes = jnp.ones_like(keep)
    return jax.lax.platform_dependent(keep, cpu=lambda k: (k, yes), default=lambda k: (yes, k))


class Layers(nn.Module):
    """All layers; returns the input of the first and the output of each."""

    config: Architecture
    dtype: Any = jnp.float32
    lora: Lora | None = None
    attention: str = "auto"
    remat: bool = False

    def setup(self) -> None:
        layer: Any = nn.remat(Layer, static_argnums=(3, 4)) if self.remat else Layer
        self.layers = [
            layer(self.config, dtype=self.dtype, lora=self.lora, name=str(number))
            for number in range(self.config.num_hidden_layers)
        ]

    def __call__(
        self, h_BTH: jax.Array, mask_BT: jax.Array | None, *, train: bool
    ) -> list[jax.Array]:
        fused, T = self._is_fused(train), h_BTH.shape[1]
        if on_accelerator():
            h_BTH, mask_BT = pad_frames(h_BTH, mask_BT)
        states = [h_BTH]
        for layer in self.layers:
            states.append(self._run_or_skip(layer, states[-1], mask_BT, train, fused))
        return [h_BTH[:, :T] for h_BTH in states]

    def _is_fused(self, train: bool) -> bool:
        return self.attention != "plain" and not find_obstacle(
            cudnn=has_fused_attention(),
            dtype=self.dtype,
            width=self.config.head_width,
            dropout=self.config.attention_dropout if train else 0.0,
        )

    def _run_or_skip(
        self, layer: nn.Module, h_BTH: jax.Array, mask_BT: jax.Array | None, train: bool,
        fused: bool,
    ) -> jax.Array:  # fmt: skip
        """LayerDrop (Fan et al. 2020): in training, layers are skipped at random."""
        if not train or self.config.layerdrop == 0 or self.is_initializing():
            return layer(h_BTH, mask_BT, train, fused)
        keep = jax.random.uniform(self.make_rng("dropout")) >= self.config.layerdrop
        run, take = choose_skipping(keep)
        out_BTH = nn.cond(
            run,
            lambda layer, h: layer(h, mask_BT, train, fused),
            lambda layer, h: h,
            layer,
            h_BTH,
        )
        return jnp.where(take, out_BTH, h_BTH)
