"""Several networks of one kind, trained side by side and used as one."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def combine_logits(logits_MBC: jax.Array) -> jax.Array:
    """Logarithm of the members' mean probabilities, [M, B, C] to [B, C]."""
    log_p_MBC = jax.nn.log_softmax(logits_MBC)
    return jax.nn.logsumexp(log_p_MBC, axis=0) - jnp.log(logits_MBC.shape[0])


class Ensemble(nn.Module):
    """Members with their own initial values and dropout, under `vmap`.

    In training each also gets a batch of its own: the same clips, but warped, shifted, masked and
    mixed anew by `training.step`.

    Source: Lakshminarayanan, Pritzel and Blundell 2017, 'Simple and scalable predictive uncertainty
    estimation using deep ensembles'. There each member also has an order of the clips of its own.

    Attributes:
      member: the network; its parameters and statistics get a leading axis of members, M.
      size: number of members.
    """

    member: nn.Module
    size: int

    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to the logits of the members' mean probabilities,
        [B, C]; in training, each member's features [M, B, T, F] and mask [M, B, T] to its logits,
        [M, B, C], since each learns from its own loss."""

        def run(member: nn.Module, x_BTF: jax.Array, mask_BT: jax.Array) -> jax.Array:
            return member(x_BTF, mask_BT, train=train, dropout=dropout)  # pyright: ignore[reportCallIssue]

        run_members = nn.vmap(
            run, in_axes=0 if train else None, axis_size=self.size,  # pyright: ignore[reportArgumentType]
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
        )  # fmt: skip
        logits_MBC = run_members(self.member, x_BTF, mask_BT)
        return logits_MBC if train else combine_logits(logits_MBC)
