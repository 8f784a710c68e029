"""Every setting of a run, as frozen dataclasses that check their values.

The text under a field is its help on the command line. 'Not stated in the study' marks settings on
which the study is silent; their defaults are those of Keras and librosa, which the study used,
unless their text says why not.
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
