"""The baseline's training step, in the ways a PyTorch user would try."""

import contextlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.pytorch.graphs import Graphed
from benchmarks.pytorch.models import ConvBlock, copy_variables, count_parameters, make_network
from benchmarks.worker import Job
from ser_jax.config import ModelConfig, TrainConfig, override

N_CLASSES = 8


def pick_device(kind: str) -> torch.device:
    """The device that JAX computes on, if this build of PyTorch has it too.

    Raises:
      RuntimeError: it does not.
    """
    if kind == "gpu":
        if not torch.cuda.is_available():
            raise RuntimeError(f"torch {torch.__version__} sees no CUDA device")
        return torch.device("cuda")
    return torch.device("cpu")


def set_precision(precision: str) -> None:
    """Whether float32 products may use TF32, as JAX's do by default on a GPU."""
    allowed = precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cudnn.benchmark = True


def make_context(device: torch.device, precision: str, *, graph: bool = False) -> Callable[[], Any]:
    """What the forward pass runs under; `graph`: it is to be captured."""
    if precision == "bfloat16":
        # Cached casts would be made outside the graph, and be stale in it.
        return lambda: torch.autocast(device.type, torch.bfloat16, cache_enabled=not graph)
    return contextlib.nullcontext


def make_adam(
    network: torch.nn.Module, variant: str, capturable: bool = False
) -> torch.optim.Optimizer:
    """Adam with Keras's epsilon.

    Args:
      network: whose parameters.
      variant: default, foreach or fused.
      capturable: whether its steps will be captured, which every variant must know.
    """
    train = TrainConfig()
    flags: dict[str, Any] = {} if variant == "default" else {variant: True}
    parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(
        parameters, lr=train.learning_rate, eps=train.adam_epsilon, capturable=capturable, **flags
    )


class Trainer:
    """One network, its optimiser and sums on the device; `step` is a training step."""

    def __init__(
        self,
        network: torch.nn.Module,
        device: torch.device,
        *,
        precision: str = "float32",
        adam: str = "fused",
        channels_last: bool = False,
        pool_first: bool = False,
        compile_mode: str | None = None,
        graph: bool = False,
    ):
        """
        Args:
          network: a twin of `models`.
          device: where to compute.
          precision: float32, tf32 or bfloat16 (autocast).
          adam: see `make_adam`.
          channels_last: lay channels innermost.
          pool_first: pool before ELU, which gives the same numbers.
          compile_mode: of `torch.compile`; None: eager.
          graph: the whole step as one CUDA graph for each size of batch.
        """
        self.network, self.device = network.to(device).train(), device
        if channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)  # pyright: ignore
        for module in self.network.modules():
            if isinstance(module, ConvBlock):
                module.pool_first = pool_first
        self.context = make_context(device, precision, graph=graph)
        self.optimizer = make_adam(self.network, adam, capturable=graph)
        self.loss_sum = torch.zeros((), device=device)
        self.correct = torch.zeros((), device=device, dtype=torch.int64)
        forward = self._forward
        if compile_mode is not None:
            forward = torch.compile(forward, mode=compile_mode, dynamic=False)
        self._run_forward = forward
        self.step = self.make_graphed(self.take_step) if graph else self.take_step

    def make_graphed(self, function: Callable[..., None]) -> Graphed:
        """A function of tensors on the device that trains with `take_step`, as CUDA graphs."""
        return Graphed(function, self._list_state, self.optimizer.zero_grad)

    def _list_state(self) -> list[torch.Tensor]:
        adam = [t for state in self.optimizer.state.values() for t in state.values()]
        tensors = [*self.network.parameters(), *self.network.buffers(), *adam]
        return [*tensors, self.loss_sum, self.correct]

    def _forward(self, x_BTF: torch.Tensor, label_B: torch.Tensor) -> Any:
        with self.context():
            logits_BC = self.network(x_BTF)
        logits_BC = logits_BC.float()
        return F.cross_entropy(logits_BC, label_B), (logits_BC.argmax(1) == label_B).sum()

    def take_step(self, x_BTF: torch.Tensor, label_B: torch.Tensor) -> None:
        """One optimiser step, launched operation by operation; sums are kept on the device."""
        self.optimizer.zero_grad()
        loss, correct = cast(Any, self._run_forward)(x_BTF, label_B)
        loss.backward()
        self.optimizer.step()
        self.loss_sum += loss.detach() * len(label_B)
        self.correct += correct

    @torch.no_grad()
    def compute_loss(self, x_BTF: torch.Tensor, label_B: torch.Tensor) -> float:
        """Training loss of a batch with dropout off; statistics of batch norm stay as they are."""
        kept = {name: value.clone() for name, value in self.network.state_dict().items()}
        rates = {m: m.p for m in self.network.modules() if isinstance(m, torch.nn.Dropout)}
        for module in rates:
            module.p = 0.0
        loss, _ = self._forward(x_BTF, label_B)
        for module, rate in rates.items():
            module.p = rate
        self.network.load_state_dict(kept)
        return float(loss)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def make_step(
    *,
    model: dict[str, Any],
    x_BTF: np.ndarray,
    label_B: np.ndarray,
    index_SB: np.ndarray,
    variables: dict[str, Any],
    kind: str = "cpu",
    precision: str = "float32",
    **ways: Any,
) -> Job:
    """Training steps on a corpus on the device; arguments as `ours.make_step` and `Trainer`."""
    device = pick_device(kind)
    set_precision(precision)
    config = override(ModelConfig(), model)
    network = make_network(config, N_CLASSES, n_frames=x_BTF.shape[1], n_features=x_BTF.shape[2])
    copy_variables(network, variables)
    trainer = Trainer(network, device, precision=precision, **ways)
    x, label = torch.from_numpy(x_BTF).to(device), torch.from_numpy(label_B).long().to(device)
    indices = [torch.from_numpy(index_B).long().to(device) for index_B in index_SB]
    facts = {
        "parameters": count_parameters(network),
        "loss": trainer.compute_loss(x[indices[0]], label[indices[0]]),
    }

    def turn() -> None:
        for index_B in indices:
            trainer.step(x[index_B], label[index_B])
        synchronize(device)

    def tell() -> dict[str, Any]:
        if not np.isfinite(float(trainer.loss_sum)):
            raise RuntimeError("the loss is no longer a number")
        return facts

    return Job(turn, tell)
