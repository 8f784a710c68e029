"""Settings of the augmentation of training clips and their features."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ser_jax.config.fields import at_least, between, check_bounds, check_order
from ser_jax.config.traced import Traced, list_switches
from ser_jax.errors import check


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of the training clips and of their features.

    Clips go through the study's four transforms in its order; the augmentations of features do not
    depend on `enabled`.
    """

    enabled: bool = False
    """Apply the four waveform augmentations to training clips."""
    p: Annotated[float, between(0, 1), Traced()] = 0.5
    """Probability of each of the four waveform augmentations."""
    noise_min: Annotated[float, at_least(0)] = 0.001
    """Minimum amplitude (standard deviation) of the Gaussian noise, where full scale is 1."""
    noise_max: float = 0.015
    """Maximum amplitude of the Gaussian noise, where full scale is 1."""
    stretch_min: float = 0.8
    """Minimum rate of the time stretch; below 1 is slower."""
    stretch_max: float = 1.2
    """Maximum rate of the time stretch."""
    pitch_min: float = -4.0
    """Minimum pitch shift, in semitones."""
    pitch_max: float = 4.0
    """Maximum pitch shift, in semitones."""
    shift_min_s: float = -0.5
    """Minimum time shift, in seconds; negative is earlier."""
    shift_max_s: float = 0.5
    """Maximum time shift, in seconds."""
    normalise: Literal["none", "peak"] = "none"
    """Scaling of a clip before the noise is added: none, or peak (to a peak amplitude of 1; not
    stated in the study)."""
    when: Literal["epoch", "once"] = "epoch"
    """Draw new augmentations every epoch, or once before the first (not stated in the study)."""
    before_padding: bool = True
    """Augment a clip before it is zero-padded, or with its padding (not stated in the study)."""
    rollover: bool = True
    """Wrap samples shifted past one end round to the other (not stated in the study)."""
    method: Literal["signalsmith_stretch", "librosa_phase_vocoder"] = "signalsmith_stretch"
    """Algorithm of audiomentations for time stretch and pitch shift (not stated in the study); the
    device backend always uses its own phase vocoder."""
    backend: Literal["device", "host"] = "device"
    """Where waveforms are augmented: on the device (JAX, inside the training step) or on the host
    (audiomentations)."""
    workers: Annotated[int | None, at_least(1)] = None
    """Number of worker processes of the host backend; null: one per core."""
    time_masks: Annotated[int, between(0, 100)] = 0
    """SpecAugment: number of time masks per clip, each of which sets a span of real frames to the
    training mean."""
    time_mask_frames: Annotated[int, at_least(0), Traced(times="time_masks")] = 20
    """Maximum width of a time mask, in frames; the minimum is 0."""
    band_masks: Annotated[int, between(0, 100)] = 0
    """SpecAugment: number of frequency masks per clip, each of which sets adjacent bands (or
    coefficients) to the training mean."""
    band_mask_bands: Annotated[int, at_least(0), Traced(times="band_masks")] = 12
    """Maximum width of a frequency mask, in bands; the minimum is 0."""
    feature_shift_frames: Annotated[int, at_least(0), Traced(off_at_0=True)] = 0
    """Shift features in time by up to this many frames either way, repeating the first or last
    frame at the edge; 0 disables it."""
    time_warp: Annotated[float, between(0, 0.5), Traced(off_at_0=True)] = 0.0
    """Speed features up or slow them down by a factor of up to 1 +/- this value; 0 disables it."""
    band_warp: Annotated[float, between(0, 0.5), Traced(off_at_0=True)] = 0.0
    """Rescale the frequency axis by a factor of up to 1 +/- this value, like a different vocal
    tract length; meaningful with features.kind=logmel only. 0 disables it."""

    @property
    def on_device(self) -> bool:
        """Whether waveforms are augmented, and inside the training step."""
        return self.enabled and self.backend == "device"

    @property
    def on_host(self) -> bool:
        """Whether waveforms are augmented, and by worker processes of the host."""
        return self.enabled and self.backend == "host"

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
        """The keys of the feature augmentations that are enabled."""
        return [name for name in list_switches(self) if getattr(self, name)]
