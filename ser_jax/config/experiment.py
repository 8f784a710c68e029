"""A run and a grid of runs: the sections together."""

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
    """What a single run and a grid of runs have in common."""

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
            f"model.name={self.model.name}: takes features.kind="
            + ("wave" if self.model.name == "wav2vec2" else "mfcc or logmel"),
        )
        if self.model.name in CLASSICAL:
            self._check_classical()
        check(
            self.train.buckets == 1 or self.model.mask_padding,
            f"train.buckets={self.train.buckets}: takes model.mask_padding=true, since lengths "
            "would decide what padding is read",
        )
        check(
            self.train.buckets == 1 or not self.augment.enabled,
            f"train.buckets={self.train.buckets}: takes augment.enabled=false",
        )
        on_features = self.augment.list_on_features()
        check(
            not on_features or self.features.kind != "wave",
            f"augment.{''.join(on_features[:1])}: takes features.kind=mfcc or logmel; wav2vec2 has "
            "masks of its own, see backbone.mask_time_prob",
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
        """Refuse what would be a wish unheard; what networks have anyway is not read."""
        n_processes = self.parallel.num_processes
        wishes = {"augment.enabled=true": self.augment.enabled}
        wishes |= {
            f"augment.{name}={getattr(self.augment, name)}": True
            for name in self.augment.list_on_features()
        }
        wishes |= {
            "train.balanced=true": self.train.balanced,
            f"train.profile={self.train.profile}": self.train.profile > 0,
            f"parallel.num_processes={n_processes}": (n_processes or 1) > 1,
        }
        for wish, is_set in wishes.items():
            check(
                not is_set,
                f"{wish}: model.name={self.model.name} is no network and has no use of it; leave "
                "the key out" + (", or set classical.balanced" if "balanced" in wish else ""),
            )


@dataclass(frozen=True)
class Config(Experiment):
    """One training run."""

    seed: Annotated[int, SEED] = 0
    """Sets the split, the initial values, the order of the clips, dropout and augmentation."""
    run_dir: str | None = None
    """Folder of the run; none: runs/MODEL-CORPUS-PROTOCOL-seedN-HASH.
    A run of the same settings found there is resumed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expand_paths(self, "", "run_dir")
        check_bounds(self)


_LONGEST_NAME = 120
"""Bytes of a row's name; fold, seed and swept values are added, up to the system's 255."""


@dataclass(frozen=True)
class AblationConfig(Experiment):
    """A grid of runs: systems x protocols x folds x seeds x sweep over shared settings."""

    out: str = "runs/ablation"
    """Folder of the grid: one run directory per cell, tables and figures."""
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rows of the table: a name and the dotted keys in which the row differs, or {config: FILE} for
    what train --config FILE would run; FILE lies beside the grid's."""
    protocols: Annotated[tuple[Protocol, ...], not_empty("name at least one")] = ("auto",)
    """Splits to run; auto: study for ravdess and synthetic, else speakers."""
    folds: tuple[int, ...] | None = None
    """Folds to run, counted from 1; none: all of the protocol's."""
    seeds: Annotated[tuple[int, ...], not_empty("name at least one"), each(SEED)] = (0,)
    """Seeds to run."""
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted keys and the values to try, in all combinations: {model.dropout: [0.1, 0.2]}."""
    batching: Literal["auto", "vmap", "map", "one"] = "auto"
    """Runs of equal shapes as one program, side by side (vmap) or one after another (map), or a
    program each (one); auto: the fastest by a short timed probe."""
    runs_at_a_time: Annotated[int | None, at_least(1)] = None
    """Most runs in one program; none: as many as the device's memory holds."""
    only: tuple[str, ...] = ()
    """Run the cells of these names alone, as their folders below cells/ are called; * stands for
    any text: '*-study-1-[0-2]'; a name after ! is left out: '!wav2vec2-*'. The others count as
    missing, until a later call runs them. None: all."""
    shard: str | None = None
    """I/N: do share I (from 0) of N of the grid, on one of N machines with one shared out."""
    workers: Annotated[int | None, at_least(1)] = None
    """Processes for `one`; none: on CPU one per core, on a GPU or TPU one."""

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
            check(not twice, f"{name}={list(values)}: {twice} stands twice; name it once")
        for name in self.systems:
            check(
                len(name.encode()) <= _LONGEST_NAME,
                f"systems.{name[:40]}...: is the name of a folder, so at most {_LONGEST_NAME} "
                "letters; give a shorter one",
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
