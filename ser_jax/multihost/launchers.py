"""What says how many processes train together: the settings, srun or mpirun."""

import os

from ser_jax.config import ParallelConfig

_LAUNCHERS = {"SLURM_NTASKS": "SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK"}
"""By launcher: the variable that counts its processes, and one that only the launcher sets."""


def find_process_count(parallel: ParallelConfig) -> str | None:
    """What says how many processes train together, such as 'SLURM_NTASKS=4'; `None`: only one."""
    if parallel.num_processes is not None:
        several = parallel.num_processes > 1
        return f"parallel.num_processes={parallel.num_processes}" if several else None
    if launcher := find_launcher():
        return launcher
    by_hand = {"coordinator": parallel.coordinator, "process_id": parallel.process_id}
    given = [f"parallel.{key}={value}" for key, value in by_hand.items() if value is not None]
    return " ".join(given) or None


def find_launcher() -> str | None:
    """The variable by which srun or mpirun says that it has started several processes."""
    for variable, mark in _LAUNCHERS.items():
        count = os.environ.get(variable, "1")
        if mark in os.environ and count.isdecimal() and int(count) > 1:
            return f"{variable}={count}"
    return None


def say_how_to_meet(counted_by: str) -> str:
    """What to do if not all processes come that `find_process_count` has counted."""
    if counted_by.startswith("parallel."):
        return (
            "start one with each --parallel.process_id, all with one --parallel.coordinator, "
            "whose port must be open to them"
        )
    return (
        "start ser-jax itself by srun or mpirun, once per task, or train in one process with "
        "--parallel.num_processes 1"
    )
