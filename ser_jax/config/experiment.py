"""The settings of a run and of a grid of runs."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ser_jax.config.augment import AugmentConfig
from ser_jax.config.backbone import BackboneConfig
from ser_jax.config.classical import CLASSICAL, ClassicalConfig
from ser_jax.config.data import DataConfig, Protocol, choose_protocol
from ser_jax.config.features import FeaturesConfig
from ser_jax.config.fields import SEED, at_least, check_bounds, check_finite, each, not_empty
from ser_jax.config.model import ModelConfig
from ser_jax.config.parallel import ParallelConfig
from ser_jax.config.paths import expand_paths
from ser_jax.config.training import TrainConfig
from ser_jax.errors import check


@dataclass(frozen=True)
class Experiment:
    """The settings that a run and a grid of runs share."""

    data: DataConfig = field(default_factory=DataConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    classical: ClassicalConfig = field(default_factory=ClassicalConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        check_finite(self)
        check(
            (self.model.name == "wav2vec2") == (self.features.kind == "wave"),
            f"model.name={self.model.name}: requires features.kind="
            + ("wave" if self.model.name == "wav2vec2" else "mfcc, mfcc_chroma or logmel"),
        )
        if self.model.name in CLASSICAL:
            self._check_classical()
        check(
            self.train.buckets == 1 or self.model.mask_padding,
            f"train.buckets={self.train.buckets}: requires model.mask_padding=true, since a "
            "bucket's length would otherwise change the result",
        )
        check(
            self.train.buckets == 1 or not self.augment.enabled,
            f"train.buckets={self.train.buckets}: requires augment.enabled=false",
        )
        on_features = self.augment.list_on_features()
        check(
            not on_features or self.features.kind != "wave",
            f"augment.{''.join(on_features[:1])}: requires features.kind=mfcc, mfcc_chroma or "
            "logmel; wav2vec2 has its own masks, see backbone.mask_time_prob",
        )
        check(
            not self.data.train_on_validation or self.train.best_by == "last",
            "data.train_on_validation=true: requires train.best_by=last, since no clip is left to "
            "choose an epoch by",
        )
        fmax_hz, nyquist_hz = self.features.fmax_hz, self.data.rate_hz / 2
        if fmax_hz is not None:
            check(
                fmax_hz <= nyquist_hz,
                f"features.fmax_hz={fmax_hz}: must not exceed half of data.rate_hz, {nyquist_hz}",
            )
        check(
            self.features.fmin_hz < nyquist_hz,
            f"features.fmin_hz={self.features.fmin_hz}: must lie below half of data.rate_hz",
        )

    def _check_classical(self) -> None:
        """Refuse settings that svm and hmm would ignore, if they differ from their defaults."""
        n_processes = self.parallel.num_processes
        settings = {"augment.enabled=true": self.augment.enabled}
        settings |= {
            f"augment.{name}={getattr(self.augment, name)}": True
            for name in self.augment.list_on_features()
        }
        settings |= {
            "train.balanced=true": self.train.balanced,
            f"train.profile={self.train.profile}": self.train.profile > 0,
            f"parallel.num_processes={n_processes}": (n_processes or 1) > 1,
            "data.train_on_validation=true": self.data.train_on_validation,
            f"model.ensemble={self.model.ensemble}": self.model.ensemble > 1,
        }
        for setting, is_set in settings.items():
            check(
                not is_set,
                f"{setting}: model.name={self.model.name} is not a network and ignores it; leave "
                "the key out" + (", or set classical.balanced" if "balanced" in setting else ""),
            )


@dataclass(frozen=True)
class Config(Experiment):
    """One training run."""

    seed: Annotated[int, SEED] = 0
    """Seed of the split, the initial values, the order of the clips, dropout and augmentation."""
    run_dir: str | None = None
    """Folder of the run; a run with the same settings found there is resumed. null:
    runs/MODEL-CORPUS-PROTOCOL-seedN-HASH."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expand_paths(self, "", "run_dir")
        check_bounds(self)


_LONGEST_NAME = 120
"""Maximum bytes of a row's name, to which fold, seed and swept values are added; file systems allow
255."""


@dataclass(frozen=True)
class AblationConfig(Experiment):
    """A grid of runs: systems x protocols x folds x seeds x sweep over shared settings."""

    out: str = "runs/ablation"
    """Folder of the grid, with a run directory per cell, tables and figures."""
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rows of the table, each a name and the dotted keys in which the row differs, or {config:
    FILE} for the run of 'train --config FILE', where FILE lies beside the grid's own file."""
    protocols: Annotated[tuple[Protocol, ...], not_empty("name at least one")] = ("auto",)
    """Splits to run, as in data.protocol."""
    folds: tuple[int, ...] | None = None
    """Folds to run, counted from 1; null: all folds of each protocol."""
    seeds: Annotated[tuple[int, ...], not_empty("name at least one"), each(SEED)] = (0,)
    """Seeds to run."""
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted keys and the values to try in all combinations, as in {model.dropout: [0.1, 0.2]}."""
    batching: Literal["auto", "vmap", "map", "one"] = "auto"
    """How runs of equal shapes are executed: as one program, in parallel (vmap) or in turn (map),
    or as a program each (one); auto: the fastest of these by a short timed probe."""
    runs_at_a_time: Annotated[int | None, at_least(1)] = None
    """Maximum number of runs in one program; null: as many as fit in the device's memory."""
    only: tuple[str, ...] = ()
    """Run only the cells whose folders below cells/ match one of these patterns, such as
    '*-study-1-[0-2]'; a pattern after ! excludes, as in '!wav2vec2-*'. Other cells count as missing
    until a later call runs them. An empty list runs all."""
    shard: str | None = None
    """I/N: run shard I of N, counted from 0, on one of N machines that share the folder out; null:
    run the whole grid."""
    workers: Annotated[int | None, at_least(1)] = None
    """Number of processes for batching=one; null: one per core on CPU, a single one on GPU or
    TPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expand_paths(self, "", "out")
        check_bounds(self)
        data = self.data
        chosen = tuple(choose_protocol(one, data.corpus, data.root) for one in self.protocols)
        object.__setattr__(self, "protocols", chosen)
        for name in ("seeds", "folds", "protocols"):
            values = getattr(self, name) or ()
            twice = [value for value in dict.fromkeys(values) if values.count(value) > 1]
            check(not twice, f"{name}={list(values)}: {twice} is repeated; name it once")
        check(
            "cross_corpus" not in chosen or len(chosen) == 1,
            f"protocols={list(chosen)}: cross_corpus keeps only classes that all corpora have, so "
            "its figures do not stand beside others; give it a grid of its own",
        )
        for name in self.systems:
            check(
                len(name.encode()) <= _LONGEST_NAME,
                f"systems.{name[:40]}...: names a folder, so it may have at most {_LONGEST_NAME} "
                "bytes; give a shorter one",
            )
        for key, values in self.sweep.items():
            check(
                isinstance(values, list) and len(values) > 0,
                f"sweep.{key}={values}: must be a list of at least one value",
            )
        if self.shard is not None:
            index, _, count = self.shard.partition("/")
            check(
                index.isdecimal() and count.isdecimal() and int(index) < int(count),
                f"shard={self.shard}: must be I/N with I from 0 to N - 1",
            )
