"""Networks as somebody outside the package writes them; see test_own_network.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Averages(nn.Module):
    """The mean over real frames, and one hidden layer."""

    n_classes: int
    units: tuple[int, ...] = (8,)

    @nn.compact
    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        del train, dropout
        h_BH = (x_BTF * mask_BT[..., None]).sum(axis=1)
        h_BH = h_BH / jnp.maximum(mask_BT.sum(axis=1, keepdims=True), 1)
        for width in self.units:
            h_BH = nn.elu(nn.Dense(width)(h_BH))
        return nn.Dense(self.n_classes)(h_BH)


class Frames(nn.Module):
    """Forgets to average: logits of every frame."""

    n_classes: int

    @nn.compact
    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        del mask_BT, train, dropout
        return nn.Dense(self.n_classes)(x_BTF)


NUMBER = 3
