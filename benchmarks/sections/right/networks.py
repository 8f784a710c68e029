"""Loss and gradients of the networks, in every form and precision, against plain ones on CPU."""

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.sections.right.checks import Check, Places, run_on
from ser_jax.config import ModelConfig, override
from ser_jax.models.forms import Forms
from ser_jax.systems.networks import make_model

N_CLASSES = 8
SMALL = {"channels": (4, 6, 8, 8), "hidden": 16, "dense": (8,)}  # of a dry run


class Way(NamedTuple):
    """How a network is computed on the device; a further form is a further line in `WAYS`.

    Attributes:
      words: for the row.
      forms, dtype: see `make_model`.
      precision: see `run_on`.
      bound: of the relative norms of loss and gradients.
      needs_gpu: says nothing in a dry run, being CUDA's, the reference itself, or a type whose
        bound is that of full shapes.
    """

    words: str
    forms: Forms = Forms()
    dtype: str = "float32"
    precision: str = "highest"
    bound: float = 1e-4
    needs_gpu: bool = False


FLOAT32 = Way("float32")
# Eleven bits of the factors are kept, and eight. Errors add up over layers and frames, and a
# maximum may fall on another cell: at these shapes bfloat16 moves gradients by 0.05 (LSTM) and 0.13
# (CNN) from float32's on one and the same CPU, and TF32 has an eighth of its rounding.
TF32 = Way("tf32", precision="default", bound=5e-2, needs_gpu=True)
BFLOAT16 = Way("bfloat16", dtype="bfloat16", precision="default", bound=3e-1)
UNROLLED = Way("unrolled LSTM", Forms(lstm="unrolled"))
OWN = Way("a GPU's forms", Forms("rows", "unrolled"))
WAYS: dict[str, tuple[Way, ...]] = {
    "cnn": (
        FLOAT32, TF32, BFLOAT16._replace(needs_gpu=True),
        Way("plain convolution", Forms(conv="plain"), needs_gpu=True),
        Way("im2col", Forms(conv="im2col")), Way("rows", Forms(conv="rows")),
    ),
    "lstm": (
        FLOAT32, Way("plain LSTM", Forms(lstm="plain"), needs_gpu=True), UNROLLED,
        UNROLLED._replace(words="unrolled LSTM, tf32", precision="default", bound=5e-2),
        BFLOAT16._replace(forms=UNROLLED.forms, words="unrolled LSTM, bfloat16"),
    ),
    "cnn_lstm": (
        FLOAT32, TF32, BFLOAT16._replace(needs_gpu=True), OWN,
        TF32._replace(forms=OWN.forms, words=f"{OWN.words}, tf32"),
        BFLOAT16._replace(forms=OWN.forms, words=f"{OWN.words}, bfloat16", needs_gpu=True),
    ),
}  # fmt: skip


def make_config(name: str, dry: bool) -> ModelConfig:
    """The network, small in a dry run."""
    return override(ModelConfig(), {"name": name} | (SMALL if dry else {}))


@functools.cache
def _draw(places: Places) -> tuple[np.ndarray, np.ndarray]:
    B, T, F = (4, 32, 16) if places.dry else (32, 165, 40)
    rng = np.random.default_rng(0)
    return rng.standard_normal((B, T, F), np.float32), rng.integers(0, N_CLASSES, B)


def _init(places: Places, name: str) -> Any:
    x_BTF, _ = _draw(places)
    model = make_model(make_config(name, places.dry), N_CLASSES, forms=Forms("plain", "plain"))

    def init() -> Any:
        mask_BT = jnp.ones((1, x_BTF.shape[1]), bool)
        return model.init(jax.random.key(0), jnp.zeros((1, *x_BTF.shape[1:])), mask_BT, train=False)

    return run_on(places.cpu, init)


def compute_gradients(
    places: Places, device: Any, name: str, way: Way, variables: Any
) -> tuple[Any, Any]:
    """Loss of a batch, dropout off, and its gradients, computed on `device`."""
    config = make_config(name, places.dry)
    model = make_model(config, N_CLASSES, dtype=way.dtype, forms=way.forms)

    def compute(params: Any, rest: Any, x_BTF: Any, label_B: Any) -> Any:
        logits_BC, _ = model.apply(
            {"params": params, **rest}, x_BTF, jnp.ones(x_BTF.shape[:2], bool), train=True,
            dropout=jnp.zeros(()), rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"],
        )  # fmt: skip
        logits_BC = jnp.asarray(logits_BC, jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits_BC, label_B).mean()

    rest = {key: value for key, value in variables.items() if key != "params"}
    return run_on(
        device, jax.value_and_grad(compute), variables["params"], rest, *_draw(places),
        precision=way.precision,
    )  # fmt: skip


def list_checks(places: Places) -> list[list[Check]]:
    """Every way of every network, all at once; those of one network share its reference."""
    return [[check] for name in WAYS for check in _list_network(places, name)]


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    """`make()`, made by the first thread that asks, for which the others wait."""
    lock, made = threading.Lock(), functools.cache(make)

    def get() -> Any:
        with lock:
            return made()

    return get


def _list_network(places: Places, name: str) -> list[Check]:
    init = _once(functools.partial(_init, places, name))
    plain = Way("", Forms("plain", "plain"))

    @_once
    def expect() -> Any:
        return compute_gradients(places, places.cpu, name, plain, init())

    def compare(way: Way) -> tuple[Any, Any]:
        return compute_gradients(places, places.device, name, way, init()), expect()

    return [
        Check(f"gradients: {name}, {way.words}", way.bound, functools.partial(compare, way),
              runs=not places.dry or not way.needs_gpu)
        for way in WAYS[name]
    ]  # fmt: skip
