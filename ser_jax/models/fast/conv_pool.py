"""Convolution and pooling in one piece, for speed: what normalising needs of it, and its gradient.

Batch norm is affine per channel and its gain has a sign. So pooling may come before it: a maximum
where the gain is positive, a minimum where it is negative. Everything after it works on a quarter
of the numbers, and automatic differentiation of it too.
"""

from typing import Any

import jax
import jax.numpy as jnp

_MOST_ROWS = 512  # that a block of threads of a GPU adds up

Cells = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
"""The four members of each 2 x 2 cell, row by row."""


@jax.custom_jvp
def elu(x: jax.Array) -> jax.Array:
    """`nn.elu`, whose derivative needs `x` alone and so no further array to be kept."""
    return jnp.where(x > 0, x, jnp.expm1(jnp.minimum(x, 0)))


elu.defjvps(lambda tangent, _, x: tangent * jnp.exp(jnp.minimum(x, 0)))


@jax.custom_vjp
def store(x: jax.Array, number: jax.Array) -> jax.Array:
    """`x` itself, as an array that XLA on CPU stores before anything uses it.

    Else it would be computed anew for each use, and element by element where the use is a
    transposition: ten times the work. XLA on CPU drops optimisation barriers, but keeps a
    conditional whose outcome it cannot know. Elsewhere this is nothing.

    Args:
      x: any array.
      number: any scalar that is not constant; a parameter is the same on all devices.
    """

    def pass_through(x: jax.Array, number: jax.Array) -> jax.Array:
        never = number * number < -1
        return jax.lax.cond(never, jnp.zeros_like, lambda x: x, x)

    return jax.lax.platform_dependent(x, number, cpu=pass_through, default=lambda x, _: x)


def _store_backward(number: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    # XLA on GPU would merge what made the gradient into the sums over it, which then take ten times
    # as long: their kernel is cut for adding up.
    stored = jax.lax.platform_dependent(
        g, cpu=lambda g: g, default=lambda g: jax.lax.optimization_barrier(g)
    )
    return stored, jnp.zeros_like(number)


store.defvjp(lambda x, number: (store(x, number), number), _store_backward)


def along_last(c_C: jax.Array) -> jax.Array:
    """One number per channel, as [1, 1, 1, C]."""
    return c_C[None, None, None]


@jax.custom_vjp
def scale_channels(x_BTFC: jax.Array, gain_C: jax.Array, shift_C: jax.Array) -> jax.Array:
    """`gain * x + shift` for each channel, whose gradients of gain and shift are quick on GPU."""
    return x_BTFC * along_last(gain_C) + along_last(shift_C)


def _scale_backward(residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_BTFC, gain_C = residuals
    return g * along_last(gain_C), _add_up(g * x_BTFC), _add_up(g)


scale_channels.defvjp(
    lambda x_BTFC, gain_C, shift_C: (scale_channels(x_BTFC, gain_C, shift_C), (x_BTFC, gain_C)),
    _scale_backward,
)


def _add_up(x_BTFC: jax.Array) -> jax.Array:
    """The sum over all axes but the last."""
    return jax.lax.platform_dependent(
        x_BTFC, cpu=lambda x_BTFC: x_BTFC.sum(axis=(0, 1, 2)), default=add_up_in_parts
    )


def add_up_in_parts(x_BTFC: jax.Array) -> jax.Array:
    """The sum over all axes but the last in two steps, of which the first has work for all of a
    GPU: where there are few channels, XLA's one step is a few blocks of threads."""
    B, T, F, C = x_BTFC.shape
    rows, parts = T * F, B
    while rows % 2 == 0 and rows > _MOST_ROWS:
        rows, parts = rows // 2, parts * 2
    parts_PC = x_BTFC.reshape(parts, rows, C).sum(axis=1)
    return jax.lax.optimization_barrier(parts_PC).sum(axis=0)


def _multiply_rows(a_9N: jax.Array, b_9N: jax.Array) -> jax.Array:
    return jnp.matmul(a_9N, b_9N.T, precision="highest")


def multiply_rows_in_parts(a_9N: jax.Array, b_9N: jax.Array) -> jax.Array:
    """`a @ b.T` [9, 9] of long rows as a batch of products that are added up, which gives work to
    all of a GPU; as one product it is a single block of threads there."""
    n = a_9N.shape[1]
    parts = -(-n // _MOST_ROWS)
    wide = ((0, 0), (0, parts * _MOST_ROWS - n))
    a, b = (jnp.pad(x, wide).reshape(-1, parts, _MOST_ROWS) for x in (a_9N, b_9N))
    return jnp.einsum("ipn,jpn->pij", a, b, precision="highest").sum(axis=0)


def choose(cells: Cells) -> jax.Array:
    """Number of the largest member of each cell, int8; the first one of equals."""
    best, index = cells[0], jnp.zeros(cells[0].shape, jnp.int8)
    for number, member in enumerate(cells[1:], start=1):
        index = jnp.where(member > best, jnp.int8(number), index)
        best = jnp.maximum(best, member)
    return index


def maximise(cells: Cells) -> jax.Array:
    """The largest member of each cell."""
    return jnp.maximum(jnp.maximum(cells[0], cells[1]), jnp.maximum(cells[2], cells[3]))


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


# Pooling of what a convolution gave


def cut_cells(y_BTFC: jax.Array, sign_C: jax.Array) -> Cells:
    """Cells of `sign * y`; an odd last row or column is dropped."""
    B, T, F, C = y_BTFC.shape
    y = y_BTFC[:, : T // 2 * 2, : F // 2 * 2].reshape(B, T // 2, 2, F // 2, 2, C)
    a, b, c, d = (y[:, :, i, :, j] * along_last(sign_C) for i in range(2) for j in range(2))
    return a, b, c, d


@jax.custom_vjp
def pool_by_sign(y_BTFC: jax.Array, sign_C: jax.Array) -> jax.Array:
    """Over 2 x 2 cells the maximum where `sign` is 1, the minimum where it is -1.

    Args:
      y_BTFC: [B, T, F, C].
      sign_C: 1 or -1, of the type of `y_BTFC`; its gradient is 0.

    Returns:
      [B, T // 2, F // 2, C].
    """
    return maximise(cut_cells(y_BTFC, sign_C)) * along_last(sign_C)


def _pool_forward(y_BTFC: jax.Array, sign_C: jax.Array) -> tuple[jax.Array, Any]:
    return pool_by_sign(y_BTFC, sign_C), (y_BTFC, sign_C)


def _pool_backward(residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    y_BTFC, sign_C = residuals
    B, T, F, C = y_BTFC.shape
    index = store(choose(cut_cells(y_BTFC, sign_C)), sign_C[0])
    number = jnp.arange(4, dtype=jnp.int8).reshape(1, 1, 2, 1, 2, 1)
    spread = jnp.where(index[:, :, None, :, None] == number, g[:, :, None, :, None], 0)
    spread = spread.reshape(B, T // 2 * 2, F // 2 * 2, C)
    return jnp.pad(spread, ((0, 0), (0, T % 2), (0, F % 2), (0, 0))), jnp.zeros_like(sign_C)


pool_by_sign.defvjp(_pool_forward, _pool_backward)


# The first convolution: one input channel, so its output is never worth keeping


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
