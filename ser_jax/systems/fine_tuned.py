"""wav2vec 2.0 as a system: a network with a pre-trained backbone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ser_jax.config import Config
from ser_jax.features.corpus_features import Inputs
from ser_jax.systems.network import NetworkSystem
from ser_jax.wav2vec2.architecture import BackboneSpec
from ser_jax.wav2vec2.finetune import (
    Prepared,
    check_path,
    choose_entry,
    init_trained,
    prepare_backbone,
)
from ser_jax.wav2vec2.frozen_files import load_frozen


class FineTunedSystem(NetworkSystem):
    """A published wav2vec 2.0, or one of `ser-jax pretrain`, with a classifier on top."""

    shares_frozen = True

    def can_share(self, config: Config) -> bool:
        """Whether runs are heads on what one frozen network computes once."""
        return choose_entry(config) == "pooled" and config.backbone.pretrained

    def check(self, config: Config) -> None:
        """See `System.check`."""
        super().check(config)
        check_path(config.backbone)

    def convolves(self, config: Config) -> bool:
        """It does, on the samples."""
        del config
        return True

    def check_shapes(self, config: Config, n_classes: int, n_frames: int, n_features: int) -> None:
        """Clips may be of any length."""
        del config, n_classes, n_frames, n_features

    def prepare_inputs(self, config: Config, inputs: Inputs) -> Prepared:
        """See `wav2vec2.finetune.prepare_backbone`."""
        return prepare_backbone(config, inputs)

    def load_frozen(self, run_dir: Path, config: Config) -> tuple[BackboneSpec | None, Any]:
        """See `wav2vec2.finetune.load_frozen`."""
        return load_frozen(run_dir, config)

    def describe_trained(self, config: Config, spec: Any, n_classes: int) -> Any:
        """Shapes of the parameters that are not frozen."""
        return jax.eval_shape(lambda: init_trained(config.model, spec, n_classes))

    def _prepare_early(self, prepare: Callable[[], Prepared]) -> Prepared | None:
        return prepare()  # what the backbone makes of the clips is known once it is there
