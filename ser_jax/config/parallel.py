"""Settings of the devices and processes that compute."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ser_jax.config.fields import at_least, between, check_bounds
from ser_jax.config.paths import default_compile_cache, expand_paths
from ser_jax.errors import check


@dataclass(frozen=True)
class ParallelConfig:
    """How the work is laid on devices and processes; decides the speed of a run, not its result."""

    mode: Literal["auto", "jit", "mesh", "pmap"] = "auto"
    """jit (one device), mesh (the batch shared out to all devices), pmap (the same by jax.pmap), or
    auto: jit on one device, mesh on several."""
    scan: Literal["auto", "on", "off"] = "auto"
    """An epoch as one program (on) or step by step (off); auto: on, except on CPU for networks that
    convolve, since XLA runs a convolution inside a loop slowly there."""
    placement: Literal["auto", "device", "stream"] = "auto"
    """Where the corpus lives: on the device, or on the host with batches streamed from there; auto:
    on the device if it fits."""
    cache_dir: str | None = field(default_factory=default_compile_cache)
    """Folder that keeps compiled programs between processes; none: nothing is kept."""
    coordinator: str | None = None
    """HOST:PORT of process 0 when several processes train together; none: found by itself on SLURM
    and TPU pods (with num_processes above 1), otherwise one process."""
    num_processes: Annotated[int | None, at_least(1)] = None
    """Number of processes that train together; none: one, or what SLURM or the TPU pod says."""
    process_id: int | None = None
    """Number of this process, from 0."""
    # JAX' own watch aborts after 15, in a page of C++.
    heartbeat_s: Annotated[int, between(5, 14, " seconds")] = 12
    """Seconds of silence after which a process counts as dead, 5 to 14; one whose connection
    closes does at once."""

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
