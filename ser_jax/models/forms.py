"""Which of several equivalent implementations the layers use."""

from typing import NamedTuple


class Forms(NamedTuple):
    """Which of several equivalent implementations to use; all share one parameter tree.

    Attributes:
      conv: 'plain' (nn.Conv and the norm by automatic differentiation), 'fast', or 'rows' or
        'im2col' (products of patches, for NVIDIA GPUs and for runs side by side under vmap).
      lstm: 'plain' (nn.scan over the cell), 'fast', or 'unrolled' (for GPUs, in blocks).
    """

    conv: str = "fast"
    lstm: str = "fast"
