"""Convolutions as products of matrices: patches of the input by the kernel."""

import jax
import jax.numpy as jnp


def convolve_by_product(x_BTFC: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 'same' convolution with a kernel [3, 3, C_in, C_out] as one product of im2col patches.

    Takes nine times the memory. Mapped over runs it is a batched product, where XLA would make a
    convolution of as many groups, which is slow on GPU (jax issue #13800).
    """
    B, T, F, C = x_BTFC.shape
    padded = jnp.pad(x_BTFC, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + T, j : j + F] for i in range(3) for j in range(3)]
    patches = jnp.concatenate(shifted, axis=-1).reshape(-1, 9 * C)
    return (patches @ kernel.reshape(9 * C, -1)).reshape(B, T, F, -1)


def convolve_by_rows(x_BTFC: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same with patches of one row: one product for all three rows, added where they meet.

    Three times the memory before the product and three times after it, and a third of what
    `convolve_by_product` keeps for the gradient.
    """
    B, T, F, C = x_BTFC.shape
    padded = jnp.pad(x_BTFC, ((0, 0), (0, 0), (1, 1), (0, 0)))
    patches = jnp.concatenate([padded[:, :, j : j + F] for j in range(3)], axis=-1)
    # XLA on GPU may merge this into a product for which it then finds no kernel.
    patches = jax.lax.optimization_barrier(patches.reshape(-1, 3 * C))
    y = patches @ kernel.transpose(1, 2, 0, 3).reshape(3 * C, -1)
    y = jnp.pad(y.reshape(B, T, F, 3, -1), ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    return y[:, :T, :, 0] + y[:, 1 : T + 1, :, 1] + y[:, 2:, :, 2]
