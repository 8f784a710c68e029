"""Work on the device as CUDA graphs, by the rules of PyTorch's manual.

Source: PyTorch's notes on CUDA semantics, 'CUDA Graphs', whole-network capture.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

WARM_UPS = 3


class Graphed:
    """A function of tensors that is captured once per shape of its inputs, then replayed.

    It must not wait for the host, and must write its results to tensors that exist outside it.
    Capturing changes no number: the warm-up's effect on the state is undone. PyTorch itself
    registers the generator that dropout draws from.

    Args:
      function: of tensors on the device.
      list_state: the tensors that the function changes, after it has run; new ones start at zero.
      prepare: called before capture, outside it; must set gradients to `None`, so that backward
        writes them instead of adding to them.
    """

    def __init__(
        self,
        function: Callable[..., None],
        list_state: Callable[[], Iterable[torch.Tensor]],
        prepare: Callable[[], None] = lambda: None,
    ):
        self._function, self._list_state, self._prepare = function, list_state, prepare
        self._captured: dict[tuple[torch.Size, ...], tuple[Any, tuple[torch.Tensor, ...]]] = {}
        self._stream: Any = None

    def __call__(self, *inputs: torch.Tensor) -> None:
        """The function's work on `inputs`."""
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self._captured:
            self._captured[shapes] = self._capture(inputs)
        graph, static = self._captured[shapes]
        for kept, tensor in zip(static, inputs, strict=True):
            kept.copy_(tensor)
        graph.replay()

    def _capture(self, inputs: tuple[torch.Tensor, ...]) -> Any:
        static = tuple(tensor.clone() for tensor in inputs)
        before = {id(tensor): tensor.detach().clone() for tensor in self._list_state()}
        # Handles and workspaces belong to a stream, so warm up the stream that is captured.
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                self._function(*static)
        torch.cuda.current_stream().wait_stream(self._stream)
        self._prepare()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as a loader's pinning memory, may run meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._function(*static)
        with torch.no_grad():
            for tensor in self._list_state():
                kept = before.get(id(tensor))
                tensor.zero_() if kept is None else tensor.copy_(kept)
        return graph, static
