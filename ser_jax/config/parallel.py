"""Settings of the devices and processes."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ser_jax.config.fields import at_least, between, check_bounds
from ser_jax.config.paths import default_compile_cache, expand_paths
from ser_jax.errors import check


@dataclass(frozen=True)
class ParallelConfig:
    """Devices and processes, which decide the speed of a run but not its result."""

    mode: Literal["auto", "jit", "mesh", "pmap"] = "auto"
    """How a step is distributed: jit (one device), mesh (the batch split over all devices), pmap
    (the same by jax.pmap) or auto (jit on one device, mesh on several)."""
    scan: Literal["auto", "on", "off"] = "auto"
    """Run an epoch as one program (on) or step by step (off); auto: on, except for convolutional
    networks on CPU, where XLA runs convolutions inside a loop slowly."""
    placement: Literal["auto", "device", "stream"] = "auto"
    """Where the corpus is kept: device, or stream (on the host, which streams batches); auto: on
    the device if it fits."""
    cache_dir: str | None = field(default_factory=default_compile_cache)
    """Folder of the persistent cache of compiled programs; null disables the cache."""
    coordinator: str | None = None
    """HOST:PORT of process 0 if several processes train together; null: detected under SLURM and
    Open MPI, and on TPU pods and Kubernetes if num_processes is above 1; otherwise one process."""
    num_processes: Annotated[int | None, at_least(1)] = None
    """Number of processes that train together; null: as many as srun or mpirun started, or one."""
    process_id: int | None = None
    """Number of this process, counted from 0; null: detected."""
    heartbeat_s: Annotated[int, between(5, 120, " seconds")] = 12
    """Seconds of silence after which JAX takes a process for dead and ends the others, 5 to 120;
    more where machines or networks stall."""

    def __post_init__(self) -> None:
        expand_paths(self, "parallel.", "cache_dir")
        check_bounds(self, "parallel")
        if self.process_id is not None:
            check(
                0 <= self.process_id < (self.num_processes or 2**31),
                f"parallel.process_id={self.process_id}: must lie between 0 and "
                "parallel.num_processes - 1",
            )
        if self.coordinator is not None:
            host, _, port = self.coordinator.rpartition(":")
            check(
                bool(host) and port.isdecimal(),
                f"parallel.coordinator={self.coordinator}: must be HOST:PORT",
            )
