"""What runs together: cells to groups of one program and to shards, and how each group runs."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import jax

from ser_jax.config import (
    AblationConfig,
    AugmentConfig,
    Config,
    compute_identity,
    override,
)
from ser_jax.config.traced import list_switches, list_traced
from ser_jax.errors import check
from ser_jax.grid.cells import Cell
from ser_jax.systems.network_checkpoints import CHECKPOINTS
from ser_jax.systems.registry import find_system

_ANY = {
    "seed": 0, "data.protocol": "study", "data.fold": 1, "data.split_seed": None,
    "features.normalise": "none",
}  # fmt: skip
"""What runs of one program may differ in besides traced numbers: their clips, and what depends on
them."""


def part_cells(
    config: AblationConfig, cells: Sequence[Cell]
) -> tuple[list[dict[str, list[Cell]]], list[Cell]]:
    """What runs together: groups by program, those with the same features side by side; and the
    cells that run one by one."""
    groups = group_cells([cell for cell in cells if can_share(cell)])
    together = {k: group for k, group in groups.items() if choose_how(config, group) != "one"}
    shared = {cell.run_dir for group in together.values() for cell in group}
    return part_by_features(together), [cell for cell in cells if cell.run_dir not in shared]


def compute_program_key(config: Config) -> str:
    """Equal for runs that one program could train if they had as many batches."""
    held: dict[str, Any] = dict(_ANY)
    if config.features.is_own:  # part of the features that a group shares
        held["features.normalise"] = config.features.normalise
    if not config.augment.enabled:
        defaults, on_features = vars(AugmentConfig()), list_switches(AugmentConfig)
        held |= {f"augment.{k}": v for k, v in defaults.items() if k not in on_features}
    for section, settings in vars(config).items():
        for name, mark in list_traced(settings).items():
            # Whether it is on, and counts, shape the program; a magnitude does not.
            is_on = mark.off_at_0 and getattr(settings, name)
            held[f"{section}.{name}"] = 0.5 if is_on else getattr(type(settings), name)
    return compute_identity(override(config, held))


def can_share(cell: Cell) -> bool:
    """Whether a cell may run in one program with others."""
    config = cell.config
    return find_system(config.model.name).can_share(config) and not (
        config.augment.on_host
        or config.train.early_stop_epochs  # its cells end at different times
        or config.train.profile
        or config.train.accumulate > 1
        or config.train.buckets > 1
        or config.parallel.placement == "stream"
        or (cell.run_dir / CHECKPOINTS).exists()  # started alone: it resumes from there
    )


def group_cells(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells by program, in order of first appearance."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(compute_program_key(cell.config), []).append(cell)
    return groups


def part_by_features(groups: dict[str, list[Cell]]) -> list[dict[str, list[Cell]]]:
    """Groups that see the same features of the same corpus, together."""
    parts: dict[Any, dict[str, list[Cell]]] = {}
    for key, group in groups.items():
        config = group[0].config
        shared = override(config, _ANY)
        own = config.features.normalise, config.model.mask_padding
        own = own if config.features.is_own else None
        parts.setdefault((shared.data, shared.features, own), {})[key] = group
    return list(parts.values())


def select_cells(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells whose names match a pattern of `only`, but none of those that start with '!'.

    If all patterns start with '!', all other cells.

    Raises:
      UserError: a pattern that no cell's name matches.
    """

    def match(pattern: str) -> set[str]:
        names = {cell.run_dir.name for cell in cells}
        found = {name for name in names if fnmatch.fnmatchcase(name, pattern.removeprefix("!"))}
        check(
            bool(found),
            f"only={pattern}: matches no cell; names are like {cells[0].run_dir.name}",
        )
        return found

    wanted = [match(pattern) for pattern in only if not pattern.startswith("!")]
    left_out = [match(pattern) for pattern in only if pattern.startswith("!")]
    return [
        cell
        for cell in cells
        if (not wanted or any(cell.run_dir.name in names for names in wanted))
        and not any(cell.run_dir.name in names for names in left_out)
    ]


def choose_cells(cells: Sequence[Cell], shard: str | None) -> list[Cell]:
    """The cells of shard I/N, the same on every machine.

    A group stays in one shard, where it is compiled once, unless it exceeds a shard's share.
    """
    if shard is None:
        return list(cells)
    index, count = map(int, shard.split("/"))
    share = -(-sum(cell.config.train.epochs for cell in cells) // count)
    pieces: list[list[Cell]] = []
    for group in group_cells(cells).values():
        size = max(1, share // group[0].config.train.epochs)
        pieces += [group[start : start + size] for start in range(0, len(group), size)]
    loads, shares = [0] * count, [[] for _ in range(count)]
    for piece in sorted(pieces, key=lambda p: -sum(cell.config.train.epochs for cell in p)):
        least = loads.index(min(loads))
        loads[least] += sum(cell.config.train.epochs for cell in piece)
        shares[least] += piece
    return shares[index]


def choose_how(config: AblationConfig, cells: Sequence[Cell]) -> str:
    """How runs of one program train: 'vmap', 'map', 'one', or 'probe' to time the first two."""
    if config.batching != "auto":
        return config.batching
    if find_system(cells[0].config.model.name).shares_frozen:  # each process would compute it anew
        return "vmap"
    # On CPU a one-core process per run is faster for every network, so nothing is timed: a step of
    # the study's LSTM costs a run 182 ms of one core with 4 runs side by side, and 135 ms alone; a
    # network that convolves loses more. On a GPU or TPU one run after another in one program does
    # what a program per run would, without starting each.
    if jax.default_backend() == "cpu" or len(cells) == 1:
        return "one"
    return "probe"
