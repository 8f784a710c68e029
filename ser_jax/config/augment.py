"""Settings of the augmentation of training clips and of their features."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ser_jax.config.fields import at_least, between, check_bounds, check_order
from ser_jax.config.traced import Traced, list_switches
from ser_jax.errors import check


@dataclass(frozen=True)
class AugmentConfig:
    """The study's four augmentations, in its order, on training clips only; then those of their
    features, which are independent of `enabled`."""

    enabled: bool = False
    """Augment the training clips."""
    p: Annotated[float, between(0, 1), Traced()] = 0.5
    """Probability of each of the four."""
    noise_min: Annotated[float, at_least(0)] = 0.001
    """Least amplitude (standard deviation) of the Gaussian noise, full scale being 1."""
    noise_max: float = 0.015
    """Greatest amplitude of the Gaussian noise, full scale being 1."""
    stretch_min: float = 0.8
    """Least rate of the time stretch (below 1 is slower)."""
    stretch_max: float = 1.2
    """Greatest rate of the time stretch."""
    pitch_min: float = -4.0
    """Lowest pitch shift, in semitones."""
    pitch_max: float = 4.0
    """Highest pitch shift, in semitones."""
    shift_min_s: float = -0.5
    """Earliest time shift, in seconds."""
    shift_max_s: float = 0.5
    """Latest time shift, in seconds."""
    normalise: Literal["none", "peak"] = "none"
    """Scale a clip to peak 1 before the noise: none, or peak (not stated in the study)."""
    when: Literal["epoch", "once"] = "epoch"
    """Draw anew each epoch, or once before the first (not stated in the study)."""
    before_padding: bool = True
    """Augment the clip alone, or with its zero padding (not stated in the study)."""
    rollover: bool = True
    """Whether what is shifted out comes back in at the other end (not stated in the study)."""
    method: Literal["signalsmith_stretch", "librosa_phase_vocoder"] = "signalsmith_stretch"
    """audiomentations' algorithm for stretch and pitch (not stated in the study); the device
    backend has its own phase vocoder."""
    backend: Literal["device", "host"] = "device"
    """Where it is done: device (in JAX, inside the training step), or host (audiomentations)."""
    workers: Annotated[int | None, at_least(1)] = None
    """Worker processes of the host backend; none: one per core."""
    time_masks: Annotated[int, between(0, 100)] = 0
    """SpecAugment: stretches of each clip's real frames that are set to the training mean."""
    time_mask_frames: Annotated[int, at_least(0), Traced(times="time_masks")] = 20
    """Greatest width of such a stretch, in frames; the least is 0."""
    band_masks: Annotated[int, between(0, 100)] = 0
    """SpecAugment: stretches of bands (or coefficients) that are set to the training mean."""
    band_mask_bands: Annotated[int, at_least(0), Traced(times="band_masks")] = 12
    """Greatest width of such a stretch, in bands; the least is 0."""
    feature_shift_frames: Annotated[int, at_least(0), Traced(off_at_0=True)] = 0
    """Shift features along time by up to this many frames either way; what comes in repeats the
    first or last frame. 0: no."""
    time_warp: Annotated[float, between(0, 0.5), Traced(off_at_0=True)] = 0.0
    """Play features faster or slower, by a factor from 1 - this to 1 + this; 0: no."""
    band_warp: Annotated[float, between(0, 0.5), Traced(off_at_0=True)] = 0.0
    """Rescale the bands by a factor from 1 - this to 1 + this, as another vocal tract would, which
    means something with features.kind=logmel; 0: no."""

    def __post_init__(self) -> None:
        check_bounds(self, "augment")
        check(
            self.stretch_min >= 0.1 and self.stretch_max <= 10,
            f"augment.stretch_min={self.stretch_min}, stretch_max={self.stretch_max}: "
            "must lie between 0.1 and 10",
        )
        check(
            self.pitch_min >= -24 and self.pitch_max <= 24,
            f"augment.pitch_min={self.pitch_min}, pitch_max={self.pitch_max}: "
            "must lie between -24 and 24 semitones",
        )
        for low, high in (
            ("noise_min", "noise_max"),
            ("stretch_min", "stretch_max"),
            ("pitch_min", "pitch_max"),
            ("shift_min_s", "shift_max_s"),
        ):
            check_order("augment", self, low, high)

    def list_on_features(self) -> list[str]:
        """The keys that switch on an augmentation of features, and do."""
        return [name for name in list_switches(self) if getattr(self, name)]
