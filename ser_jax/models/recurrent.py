"""The LSTM: a scan over a cell, and faster implementations with the same parameters."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.fast.lstm_gradient import run_lstm
from ser_jax.models.fast.unrolled_lstm import run_unrolled_lstm
from ser_jax.models.forms import Forms
from ser_jax.models.layers import KERNEL_INITS, Initializer


class LSTMCell(nn.Module):
    """One LSTM step on projected inputs; gates in Keras' order i, f, g, o."""

    recurrent_init: Initializer
    dtype: Any = jnp.float32
    return_sequence: bool = False

    @nn.compact
    def __call__(
        self, carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array | None]:
        c_BH, h_BH = carry
        z_B4H, mask_B = inputs
        recurrent = nn.Dense(
            z_B4H.shape[-1], use_bias=False, kernel_init=self.recurrent_init,
            dtype=self.dtype, name="recurrent",
        )  # fmt: skip
        i, f, g, o = jnp.split((z_B4H + recurrent(h_BH)).astype(jnp.float32), 4, axis=-1)
        new_c_BH = nn.sigmoid(f) * c_BH + nn.sigmoid(i) * jnp.tanh(g)
        new_h_BH = (nn.sigmoid(o) * jnp.tanh(new_c_BH)).astype(h_BH.dtype)
        # Padding leaves the state unchanged, so the last state is that of the last real frame.
        keep_B1 = mask_B[:, None]
        h_BH = jnp.where(keep_B1, new_h_BH, h_BH)
        carry = (jnp.where(keep_B1, new_c_BH, c_BH), h_BH)
        return carry, h_BH if self.return_sequence else None


class LSTM(nn.Module):
    """LSTM that returns its last state, or all of them.

    The input projection is one matrix product before the scan.

    Attributes:
      hidden: units.
      kernel_init: initial values of the input kernel.
      recurrent_init: initial values of the recurrent kernel.
      forget_bias: initial bias of the forget gate.
      dtype: type of the products; gates and cell are float32.
      form: 'plain' (nn.scan over the cell, automatic differentiation: the reference), 'fast' or
        'unrolled' (for GPUs: steps unrolled in blocks); numbers and parameters are the same.
    """

    hidden: int
    kernel_init: Initializer
    recurrent_init: Initializer
    forget_bias: float = 1.0
    dtype: Any = jnp.float32
    form: str = "fast"

    @nn.compact
    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, return_sequence: bool = False
    ) -> jax.Array:
        """[B, T, F] to the state [B, H] after the last real frame, or to the states [B, T, H]."""
        x_BTF = x_BTF.astype(self.dtype)
        if self.form == "plain" or self.is_initializing():
            return self._scan(x_BTF, mask_BT, return_sequence)
        # The other forms use the parameters that the plain one creates.
        params = self.variables["params"]
        weights = (
            params["input"]["kernel"],
            params["input"]["bias"],
            params["cell"]["recurrent"]["kernel"],
        )
        cast = (weight.astype(self.dtype) for weight in weights)
        arguments: Any = (x_BTF.swapaxes(0, 1), *cast, mask_BT.T)
        run: Any = run_unrolled_lstm if self.form == "unrolled" else run_lstm
        found = run(*arguments, return_sequence)
        return found.swapaxes(0, 1) if return_sequence else found

    def _scan(self, x_BTF: jax.Array, mask_BT: jax.Array, return_sequence: bool) -> jax.Array:
        B, H = x_BTF.shape[0], self.hidden

        def init_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return jnp.zeros(shape, dtype).at[H : 2 * H].set(self.forget_bias)

        z_BT4H = nn.Dense(
            4 * H, kernel_init=self.kernel_init, bias_init=init_bias, dtype=self.dtype, name="input"
        )(x_BTF)
        scan = nn.scan(LSTMCell, variable_broadcast="params", split_rngs={"params": False})
        cell = scan(self.recurrent_init, self.dtype, return_sequence, name="cell")
        carry = (jnp.zeros((B, H), jnp.float32), jnp.zeros((B, H), self.dtype))
        (_, h_BH), h_TBH = cell(carry, (z_BT4H.swapaxes(0, 1), mask_BT.T))
        return h_BH if h_TBH is None else h_TBH.swapaxes(0, 1)


def make_lstm(config: ModelConfig, dtype: jnp.dtype, forms: Forms) -> LSTM:
    """The study's LSTM, as the network's settings describe it."""
    return LSTM(
        config.hidden, KERNEL_INITS[config.kernel_init], KERNEL_INITS[config.recurrent_init],
        config.forget_bias, dtype, forms.lstm,
    )  # fmt: skip
