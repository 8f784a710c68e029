"""Whether a recording survives averaging its channels and rounding to 16 bits."""

import numpy as np

_CANCELLED = 1e-3  # a mix's share of its channels' power; of 32 unrelated ones it is 1/32
_FAINT = 2.0**-11  # of full scale, -66 dB: four bits of the sixteen


class Level:
    """The level of a recording, measured block by block."""

    def __init__(self) -> None:
        self._peak = self._channels = self._mix = 0.0

    def add(self, block_NC: np.ndarray, mix_N: np.ndarray) -> None:
        """Add the samples of all channels, and their mean."""
        self._peak = max(
            self._peak, float(block_NC.max(initial=0)), -float(block_NC.min(initial=0))
        )
        total = float(np.einsum("nc,nc->", block_NC, block_NC, dtype=np.float64))
        self._channels += total / block_NC.shape[1]
        self._mix += float(np.einsum("n,n->", mix_N, mix_N, dtype=np.float64))

    def describe(self) -> str | None:
        """What is wrong, and the remedy; `None` if nothing is."""
        if self._peak == 0:
            return "holds only zeros, so its emotion means nothing"
        if self._mix < _CANCELLED * self._channels:
            return (
                "its channels cancel each other when averaged, as one is the inverse of another; "
                "use only one of them: ffmpeg -i FILE -af 'pan=mono|c0=c0' OTHER.wav"
            )
        if self._peak < _FAINT:
            return (
                f"its loudest sample is {self._peak:.1g} of full scale, and 16 bits keep almost "
                "nothing of it; amplify it"
            )
        return None
