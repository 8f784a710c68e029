"""What the card reaches in each library, at a size that suits it and at the package's shapes.

Many calls are queued and the last one awaited, like the kernels of a program; the time of one is
the median over rounds. Data are random: zeros can run faster than real numbers.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Case = dict[str, Any]
_ROUNDS, _CALLS = 7, 20
_SIZES = (32, 165, 40, 64, 256)  # the networks' batch, frames, features, channels, units


def list_cases(dry: bool) -> list[Case]:
    """List what is measured: case, precision, sizes, and the bytes or operations of one call."""
    n_copy, n, clips = (1 << 20, 64, 4) if dry else (1 << 30, 8192, 32 * 165)
    B, T, F, C, H = (2, 8, 8, 4, 8) if dry else _SIZES
    convolution, lstm = 2 * B * T * F * 9 * C * C, 2 * T * B * 4 * H * (F + H)
    fft = int(2.5 * clips * 2048 * np.log2(2048))
    cases = [("copy", "float32", [n_copy], 2 * n_copy, f"{n_copy >> 20} MiB"),
             ("product", "bfloat16", [n], 2 * n**3, f"{n} cubed"),
             ("product", "tf32", [n], 2 * n**3, f"{n} cubed"),
             ("convolution 3 x 3", "bfloat16", [B, T, F, C], convolution,
              f"{B} x {T} x {F} x {C}"),
             ("LSTM", "tf32", [B, T, F, H], lstm, f"{B} x {T} x {F}, {H} units"),
             ("FFT", "float32", [clips, 2048], fft, f"{clips} x 2048")]  # fmt: skip
    names = ("case", "precision", "sizes", "work", "shape")
    calls = (1, 1) if dry else (_ROUNDS, _CALLS)
    return [dict(zip(names, case, strict=True)) | {"calls": calls} for case in cases]


def time_calls(
    call: Callable[[], Any], wait: Callable[[Any], Any], calls: tuple[int, int]
) -> float:
    """Time one call: the median of `calls[0]` rounds of `calls[1]`, after two warm-up rounds."""
    rounds = []
    for _ in range(calls[0] + 2):
        start_s = time.perf_counter()
        for _ in range(calls[1]):
            last = call()
        wait(last)
        rounds.append((time.perf_counter() - start_s) / calls[1])
    return statistics.median(rounds[2:])


def measure_jax(case: Case) -> float:
    """Time one call in JAX, in seconds."""
    import jax

    make = {
        "copy": _copy_jax, "product": _multiply_jax, "FFT": _transform_jax,
        "convolution 3 x 3": _convolve_jax, "LSTM": _run_lstm_jax,
    }[case["case"]]  # fmt: skip
    function, arguments = make(*case["sizes"], case["precision"])
    program = jax.jit(function)
    arguments = jax.block_until_ready(arguments)
    return time_calls(lambda: program(*arguments), jax.block_until_ready, case["calls"])


def _draw_jax(shape: tuple[int, ...], precision: str, seed: int = 0) -> Any:
    import jax
    import jax.numpy as jnp

    x = jax.random.normal(jax.random.key(seed), shape, jnp.float32)
    return x.astype(jnp.bfloat16) if precision == "bfloat16" else x


def _copy_jax(n_bytes: int, precision: str) -> Any:
    # Added to, since a program that gives back what it was given copies nothing.
    return lambda x: x + 1, (_draw_jax((n_bytes // 4,), precision),)


def _multiply_jax(n: int, precision: str) -> Any:
    return lambda a, b: a @ b, tuple(_draw_jax((n, n), precision, seed) for seed in (0, 1))


def _transform_jax(clips: int, n: int, precision: str) -> Any:
    import jax.numpy as jnp

    return jnp.fft.rfft, (_draw_jax((clips, n), precision),)


def _convolve_jax(B: int, T: int, F: int, C: int, precision: str) -> Any:
    import jax

    def convolve(x_BTFC: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x_BTFC, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return convolve, (_draw_jax((B, T, F, C), precision), _draw_jax((3, 3, C, C), precision, 1))


def _run_lstm_jax(B: int, T: int, F: int, H: int, precision: str) -> Any:
    import jax.numpy as jnp

    from ser_jax.models.fast.unrolled_lstm import run_unrolled_lstm

    del precision

    def run(x_BTF: Any, kernel: Any, bias: Any, recurrent: Any) -> Any:
        return run_unrolled_lstm(
            jnp.swapaxes(x_BTF, 0, 1), kernel, bias, recurrent, jnp.ones((T, B), bool)
        )

    shapes = ((B, T, F), (F, 4 * H), (4 * H,), (H, 4 * H))
    return run, tuple(0.1 * _draw_jax(shape, "tf32", i) for i, shape in enumerate(shapes))


def load_torch() -> str:
    """Import PyTorch and open the card, which takes seconds; return its version."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    return torch.__version__


def measure_torch(case: Case) -> float:
    """Time one call in PyTorch, in seconds."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if case["precision"] == "bfloat16" else torch.float32
    sizes = case["sizes"]

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

    calls: dict[str, Callable[[], Callable[[], Any]]] = {
        "copy": lambda: _hold(torch.add, draw(sizes[0] // 4), 1),
        "product": lambda: _hold(torch.matmul, draw(*sizes * 2), draw(*sizes * 2)),
        "FFT": lambda: _hold(torch.fft.rfft, draw(*sizes)),
        "convolution 3 x 3": lambda: _convolve_torch(draw, *sizes),
        "LSTM": lambda: _run_lstm_torch(draw, device, *sizes),
    }
    with torch.no_grad():
        wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        return time_calls(calls[case["case"]](), lambda _: wait(), case["calls"])


def _hold(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _convolve_torch(draw: Callable[..., Any], B: int, T: int, F: int, C: int) -> Any:
    import torch

    last: Any = {"memory_format": torch.channels_last}
    x, kernel = draw(B, C, T, F).to(**last), draw(C, C, 3, 3).to(**last)
    return lambda: torch.nn.functional.conv2d(x, kernel, padding=1)


def _run_lstm_torch(draw: Callable[..., Any], device: str, B: int, T: int, F: int, H: int) -> Any:
    import torch

    return _hold(torch.nn.LSTM(F, H, batch_first=True).to(device), draw(B, T, F))
