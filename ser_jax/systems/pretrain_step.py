"""One step of pre-training wav2vec 2.0: the network, its start, its losses; a pure function."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ser_jax.config import PretrainConfig
from ser_jax.config.pretraining import PretrainTrainConfig
from ser_jax.training.state import TrainState
from ser_jax.wav2vec2.architecture import Architecture


@struct.dataclass
class Crops:
    """A batch of recordings: samples [B, N], and how many of each are real, int32 [B]."""

    x_BN: jax.Array
    length_B: jax.Array


@struct.dataclass
class Figures:
    """Sums over steps; `perplexity`, `gradient_norm` and `temperature` are of each step."""

    contrastive: jax.Array
    diversity: jax.Array
    correct: jax.Array
    count: jax.Array
    perplexity: jax.Array
    gradient_norm: jax.Array
    temperature: jax.Array
    steps: jax.Array

    @classmethod
    def zeros(cls) -> "Figures":
        return cls(*(jnp.zeros(()) for _ in dataclasses.fields(cls)))

    def summarise(self, config: PretrainConfig) -> dict[str, float]:
        """Means per masked frame, and per step."""
        f = {field.name: float(getattr(self, field.name)) for field in dataclasses.fields(self)}
        count, steps = max(f["count"], 1.0), max(f["steps"], 1.0)
        contrastive, diversity = f["contrastive"] / count, f["diversity"] / count
        return {
            "loss": contrastive + config.train.diversity_weight * diversity,
            "contrastive_loss": contrastive, "diversity_loss": diversity,
            "accuracy": f["correct"] / count, "perplexity": f["perplexity"] / steps,
            "gradient_norm": f["gradient_norm"] / steps, "temperature": f["temperature"] / steps,
        }  # fmt: skip


def make_architecture(config: PretrainConfig) -> Architecture:
    """The network that a configuration describes, or that `init` names, with its rates."""
    sizes, train = config.architecture, config.train
    if config.init is not None:
        from ser_jax.wav2vec2.published import load_architecture

        base = load_architecture(config.init)
    else:
        large = sizes.layout == "large"
        base = Architecture(
            hidden_size=sizes.hidden, num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads, intermediate_size=sizes.feed_forward,
            conv_dim=(sizes.channels,) * 7, conv_bias=large,
            feat_extract_norm="layer" if large else "group", do_stable_layer_norm=large,
            num_conv_pos_embeddings=sizes.position_kernel,
            num_conv_pos_embedding_groups=sizes.position_groups,
            num_codevectors_per_group=sizes.codes, num_codevector_groups=sizes.code_groups,
            codevector_dim=sizes.code_dim, proj_codevector_dim=sizes.target_dim,
        )  # fmt: skip
    return dataclasses.replace(
        base, hidden_dropout=train.dropout, attention_dropout=train.dropout,
        activation_dropout=train.dropout, feat_quantizer_dropout=train.dropout,
        feat_proj_dropout=train.dropout, layerdrop=train.layer_drop,
        contrastive_logits_temperature=train.similarity_temperature,
        num_negatives=train.negatives, diversity_loss_weight=train.diversity_weight,
    )  # fmt: skip


def make_pretrain_step(
    config: PretrainConfig, architecture: Architecture, tx: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, Figures]]:
    """A pure function ((state, figures), crops, row_B) -> (state, figures).

    The loss is summed over the masked frames of the whole batch and divided once by their number.
    """
    from ser_jax.wav2vec2.contrastive import PretrainNetwork, compute_pretraining_losses
    from ser_jax.wav2vec2.masks import make_frame_mask, normalise_wave

    train = config.train
    model: Any = PretrainNetwork(architecture, jnp.dtype(train.dtype), train.remat)

    def step(
        carry: tuple[TrainState, Figures], crops: Crops, row_B: jax.Array
    ) -> tuple[TrainState, Figures]:
        state, total = carry
        x_BN, length_B = crops.x_BN[row_B], crops.length_B[row_B]
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        mask_BN = jnp.arange(x_BN.shape[1])[None, :] < length_B[:, None]
        if architecture.do_normalize:
            x_BN = normalise_wave(x_BN, mask_BN)
        T = architecture.count_frames(x_BN.shape[1])
        real_BT = make_frame_mask(architecture, mask_BN, T)
        masked_BT, negative_BTK, noise_BTGV = _draw_task(train, architecture, keys, real_BT)
        decayed = train.gumbel_start * train.gumbel_decay ** state.step.astype(jnp.float32)
        temperature = jnp.maximum(decayed, train.gumbel_end)

        def compute_loss(params: Any) -> tuple[jax.Array, Any]:
            context, target, quantised = model.apply(
                {"params": params}, x_BN, real_BT, masked_BT, train=True,
                temperature=temperature, noise_BTGV=noise_BTGV, rngs={"dropout": keys[3]},
            )  # fmt: skip
            losses = compute_pretraining_losses(
                context, target, quantised, masked_BT, negative_BTK, train.similarity_temperature
            )
            loss = losses.contrastive + train.diversity_weight * losses.diversity
            return loss / jnp.maximum(losses.count, 1), losses

        gradients, losses = jax.grad(compute_loss, has_aux=True)(state.params)
        backbone = gradients["backbone"]
        slow = jax.tree.map(lambda g: g * train.encoder_gradient, backbone["feature_extractor"])
        gradients["backbone"] = backbone | {"feature_extractor": slow}
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = state.replace(step=state.step + 1, params=params, opt_state=opt_state)  # pyright: ignore
        figures = Figures(
            losses.contrastive, losses.diversity, losses.correct, losses.count, losses.perplexity,
            optax.tree.norm(gradients), temperature, jnp.ones(()),
        )  # fmt: skip
        return new, jax.tree.map(jnp.add, total, figures)

    return step


def _draw_task(
    train: PretrainTrainConfig, architecture: Architecture, keys: jax.Array, real_BT: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a step draws: masked frames [B, T], the distractors of each [B, T, K], and the noise of
    the quantiser's choice [B, T, G, V]."""
    from ser_jax.wav2vec2.contrastive import draw_negatives
    from ser_jax.wav2vec2.masks import draw_spans

    B, T = real_BT.shape
    frames_B = real_BT.sum(axis=1, dtype=jnp.int32)
    masked_BT = draw_spans(keys[0], frames_B, T, train.mask_prob, train.mask_length, least=2)
    # A clip with a single masked frame has no distractors.
    masked_BT &= masked_BT.sum(axis=1, keepdims=True) > 1
    negative_BTK = draw_negatives(keys[1], masked_BT, train.negatives)
    shape = (B, T, architecture.num_codevector_groups, architecture.num_codevectors_per_group)
    return masked_BT, negative_BTK, jax.random.gumbel(keys[2], shape)


def init_pretraining(
    config: PretrainConfig, architecture: Architecture, tx: optax.GradientTransformation
) -> TrainState:
    """The state before the first step: random parameters, or those of `config.init`."""
    from ser_jax.wav2vec2.contrastive import PretrainNetwork

    model = PretrainNetwork(architecture)
    init_key, run_key = jax.random.split(jax.random.key(config.seed))

    @jax.jit
    def init(key: jax.Array) -> Any:
        x_BN = jnp.zeros((1, architecture.receptive_field))
        return model.init(key, x_BN, None, jnp.zeros((1, 1), bool), train=False)["params"]

    params = dict(init(init_key))
    if config.init is not None:
        from ser_jax.wav2vec2.published import load_heads, load_params

        params["backbone"] = jax.tree.map(jnp.asarray, load_params(config.init))
        for name, head in load_heads(config.init).items():
            same = jax.tree.map(jnp.shape, head) == jax.tree.map(jnp.shape, params[name])
            params[name] = jax.tree.map(jnp.asarray, head) if same else params[name]
    return TrainState(jnp.zeros((), jnp.int32), params, {}, tx.init(params), run_key, {})
