"""Every setting of a run: frozen dataclasses, checked as they are made.

The text under a field is its help on the command line. Fields marked 'not stated in the study' are
where the study is silent; their defaults are Keras' or librosa's, since the study used both, unless
their text says why not.
"""

from ser_jax.config.augment import AugmentConfig
from ser_jax.config.backbone import BackboneConfig
from ser_jax.config.classical import ClassicalConfig
from ser_jax.config.data import CorpusName, DataConfig, Protocol
from ser_jax.config.experiment import AblationConfig, Config, Experiment
from ser_jax.config.features import FeaturesConfig
from ser_jax.config.model import ModelConfig
from ser_jax.config.parallel import ParallelConfig
from ser_jax.config.pretraining import PretrainConfig, UnlabelledConfig
from ser_jax.config.training import TrainConfig
from ser_jax.config.trees import (
    compute_identity,
    find_differences,
    flatten,
    is_gone,
    list_settings,
    name_differences,
    override,
    to_dict,
)

__all__ = [
    "AblationConfig",
    "AugmentConfig",
    "BackboneConfig",
    "ClassicalConfig",
    "Config",
    "CorpusName",
    "DataConfig",
    "Experiment",
    "FeaturesConfig",
    "ModelConfig",
    "ParallelConfig",
    "PretrainConfig",
    "Protocol",
    "TrainConfig",
    "UnlabelledConfig",
    "compute_identity",
    "find_differences",
    "flatten",
    "is_gone",
    "list_settings",
    "name_differences",
    "override",
    "to_dict",
]
