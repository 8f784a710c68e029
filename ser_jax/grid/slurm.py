"""A grid sent to a cluster: one job per shard, by submitit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ser_jax.config import AblationConfig
from ser_jax.errors import UserError, check, one_line
from ser_jax.grid.cells import list_cells


class ShardJob:
    """What one job does; called again after a preemption, it resumes the grid."""

    def __init__(self, config: AblationConfig, report: Callable[[str], object] | None):
        self.config, self.report = config, report

    def __call__(self) -> None:
        """Run the shard."""
        from ser_jax.grid.ablate import run_grid
        from ser_jax.grid.workers import make_devices_here
        from ser_jax.machine.allocator import tune_for_cpu

        make_devices_here(self.config)
        tune_for_cpu()  # nothing else runs in the job's process
        run_grid(self.config, report=self.report)

    def checkpoint(self) -> Any:
        """What submitit requeues when the job's time is up."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def launch(
    config: AblationConfig,
    cluster: str,
    shards: int,
    settings: dict[str, Any] | None = None,
    report: Callable[[str], object] | None = None,
) -> list[Any]:
    """Send a grid to a cluster, one job for each shard, all with the same `config.out`.

    Args:
      config: of the grid, without a shard.
      cluster: 'slurm', or 'local' for processes of this machine.
      shards: number of jobs.
      settings: parameters of submitit's executor, such as {'slurm_partition': 'gpu',
        'timeout_min': 60, 'gpus_per_node': 1}.
      report: see `grid.ablate.run_grid`; a function that a job can import.

    Returns:
      submitit's jobs. Their logs lie in the folder jobs of `config.out`.

    Raises:
      UserError: submitit is missing, does not know a setting, or finds no cluster; as `list_cells`.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError("launch: needs submitit; pip install 'ser-jax[slurm]'") from error
    check(config.shard is None, f"shard={config.shard}: leave it out, each job gets its own")
    check(shards >= 1, f"shards={shards}: must be at least 1")
    list_cells(config)
    try:
        executor = submitit.AutoExecutor(folder=Path(config.out) / "jobs", cluster=cluster)
        executor.update_parameters(name="ser-jax", **(settings or {}))
        configs = [dataclasses.replace(config, shard=f"{i}/{shards}") for i in range(shards)]
        jobs = [ShardJob(config, report) for config in configs]
        return executor.map_array(ShardJob.__call__, jobs)
    except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
        raise UserError(
            f"launch={cluster}: {one_line(error)}; see submitit's AutoExecutor"
        ) from error
