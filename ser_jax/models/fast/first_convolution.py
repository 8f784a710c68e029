"""The first convolution, pooled: it has one input channel, so its output is never worth keeping.

Its moments, which batch norm asks for, follow from those of its inputs.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.models.fast.cell_pooling import Cells, choose, maximise, store
from ser_jax.models.fast.channel_scaling import MOST_ROWS, along_last


def cut_pool_windows(x_BTF: jax.Array) -> list[list[jax.Array]]:
    """The 4 x 4 inputs under each 2 x 2 cell of outputs: 16 arrays [B, T // 2, F // 2]."""
    T, F = (size // 2 * 2 for size in x_BTF.shape[1:])
    padded = jnp.pad(x_BTF, ((0, 0), (1, 1), (1, 1)))
    return [[padded[:, i : i + T : 2, j : j + F : 2] for j in range(4)] for i in range(4)]


def convolve_cells(x_BTF: jax.Array, kernel_33C: jax.Array) -> Cells:
    """Cells of the 'same' convolution: sums of products that XLA merges into what uses them."""
    window = cut_pool_windows(x_BTF)

    def convolve(row: int, column: int) -> jax.Array:
        return sum(
            window[row + i][column + j][..., None] * along_last(kernel_33C[i, j])
            for i in range(3)
            for j in range(3)
        )  # pyright: ignore[reportReturnType]

    return convolve(0, 0), convolve(0, 1), convolve(1, 0), convolve(1, 1)


@jax.custom_vjp
def convolve_and_pool(x_BTF: jax.Array, kernel_33C: jax.Array, sign_C: jax.Array) -> jax.Array:
    """`pool_by_sign` of the 'same' convolution of one input channel, which is never stored.

    Args:
      x_BTF: [B, T, F].
      kernel_33C: [3, 3, C].
      sign_C: 1 or -1; its gradient is 0.

    Returns:
      [B, T // 2, F // 2, C].
    """
    kernel_33C = kernel_33C * sign_C[None, None]
    best = store(maximise(convolve_cells(x_BTF, kernel_33C)), kernel_33C[0, 0, 0])
    return best * along_last(sign_C)


def _convolve_forward(
    x_BTF: jax.Array, kernel_33C: jax.Array, sign_C: jax.Array
) -> tuple[jax.Array, Any]:
    return convolve_and_pool(x_BTF, kernel_33C, sign_C), (x_BTF, kernel_33C, sign_C)


def _convolve_backward(residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_BTF, kernel_33C, sign_C = residuals
    cells = convolve_cells(x_BTF, kernel_33C * sign_C[None, None])
    index = store(choose(cells), kernel_33C[0, 0, 0])
    kernel_gradient = jax.lax.platform_dependent(
        cut_pool_windows(x_BTF), index, g, cpu=correlate_by_products, default=correlate_by_sums
    )
    # Features need no gradient, so XLA drops this; it is here to be right for whoever asks.
    _, pull_back = jax.vjp(lambda x: convolve_cells(x, kernel_33C), x_BTF)
    (x_gradient,) = pull_back(tuple(_spread(index, g)))
    return x_gradient, kernel_gradient.astype(kernel_33C.dtype), jnp.zeros_like(sign_C)


def _spread(index: jax.Array, g: jax.Array) -> list[jax.Array]:
    """A gradient of maxima as that of the four members of each cell."""
    return [jnp.where(index == number, g, 0) for number in range(4)]


def correlate_by_products(
    window: list[list[jax.Array]], index: jax.Array, g: jax.Array
) -> jax.Array:
    """The kernel's gradient [3, 3, C]: a product of matrices for each member of the cells."""
    C = g.shape[-1]
    total_9C = jnp.zeros((9, C), g.dtype)
    for number, spread in enumerate(_spread(index, g)):
        row, column = divmod(number, 2)
        patches = [window[row + i][column + j].ravel() for i in range(3) for j in range(3)]
        total_9C += jnp.stack(patches) @ spread.reshape(-1, C)
    return total_9C.reshape(3, 3, C)


def correlate_by_sums(window: list[list[jax.Array]], index: jax.Array, g: jax.Array) -> jax.Array:
    """The same as nine sums, in which each cell picks the input that its member saw.

    XLA on GPU merges all of it into the sums, and so stores nothing of the size of `g`.
    """
    index = jax.lax.optimization_barrier(index)  # or else each sum would convolve anew
    lower, right = index >= 2, (index & 1) == 1

    def correlate(i: int, j: int) -> jax.Array:
        (a, b), (c, d) = ([row[j][..., None], row[j + 1][..., None]] for row in window[i : i + 2])
        seen = jnp.where(lower, jnp.where(right, d, c), jnp.where(right, b, a))
        return (seen * g).sum(axis=(0, 1, 2))

    return jnp.stack([jnp.stack([correlate(i, j) for j in range(3)]) for i in range(3)])


convolve_and_pool.defvjp(_convolve_forward, _convolve_backward)


def _multiply_rows(a_9N: jax.Array, b_9N: jax.Array) -> jax.Array:
    return jnp.matmul(a_9N, b_9N.T, precision="highest")


def multiply_rows_in_parts(a_9N: jax.Array, b_9N: jax.Array) -> jax.Array:
    """`a @ b.T` [9, 9] of long rows as a batch of products that are added up, which gives work to
    all of a GPU; as one product it is a single block of threads there."""
    n = a_9N.shape[1]
    parts = -(-n // MOST_ROWS)
    wide = ((0, 0), (0, parts * MOST_ROWS - n))
    a, b = (jnp.pad(x, wide).reshape(-1, parts, MOST_ROWS) for x in (a_9N, b_9N))
    return jnp.einsum("ipn,jpn->pij", a, b, precision="highest").sum(axis=0)


def compute_convolution_moments(
    x_BTF: jax.Array, kernel_33C: jax.Array, mask_BT: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the convolution's output over real frames, without that output.

    An output is a product of nine inputs with a kernel, so its moments follow from those of the
    nine: the mean is `mean_9 @ kernel`, the variance `kernel' @ covariance_99 @ kernel`. The
    inputs' own mean is taken off first, since raw features may lie far from zero.

    Args:
      x_BTF: [B, T, F], zero outside of `mask_BT`.
      kernel_33C: [3, 3, C].
      mask_BT: True for real frames.
      axis_name: mapped axis over devices to add over; None: one program.

    Returns:
      float32 [C] and [C].
    """

    def add_up(*sums: jax.Array) -> Any:
        return sums if axis_name is None else jax.lax.psum(sums, axis_name)

    T, F = x_BTF.shape[1:]
    weight_BT = mask_BT.astype(jnp.float32)
    total, count = add_up(x_BTF.sum(), weight_BT.sum() * F)
    count = jnp.maximum(count, 1.0)
    centre = total / count
    padded = jnp.pad(x_BTF, ((0, 0), (1, 1), (1, 1))) - centre
    shifted = [padded[:, i : i + T, j : j + F] for i in range(3) for j in range(3)]
    patch_9N = jnp.stack(shifted).reshape(9, -1)
    weight_N = jnp.broadcast_to(weight_BT[..., None], x_BTF.shape).ravel()
    weighted_9N = patch_9N * weight_N[None]
    gram_99 = jax.lax.platform_dependent(
        weighted_9N, patch_9N, cpu=_multiply_rows, default=multiply_rows_in_parts
    )
    sum_9, gram_99 = add_up(weighted_9N.sum(axis=1), gram_99)
    mean_9 = sum_9 / count
    covariance_99 = gram_99 / count - mean_9[:, None] * mean_9[None]
    kernel_9C = kernel_33C.reshape(9, -1)
    mean_C = jnp.matmul(mean_9 + centre, kernel_9C, precision="highest")
    spread_9C = jnp.matmul(covariance_99, kernel_9C, precision="highest")
    return mean_C, jnp.maximum((spread_9C * kernel_9C).sum(axis=0), 0.0)
