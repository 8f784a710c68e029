"""Whether a corpus lies on the devices or is streamed to them from the host."""

from ser_jax.config import Config
from ser_jax.errors import check
from ser_jax.features.batching import Dataset
from ser_jax.features.streaming import StreamedCorpus, choose_placement
from ser_jax.training.layouts import Layout, share_out_clips
from ser_jax.training.programs import Stream


def is_streamed(config: Config, layout: Layout, shapes: Dataset) -> bool:
    """Whether the corpus stays on the host.

    Args:
      config: of the run.
      layout: on which devices its programs run.
      shapes: of the corpus.

    Raises:
      UserError: it should stay there, but layout or buckets need it on the device.
    """
    parallel = config.parallel
    arrays = [x for x in (shapes.x_BTF, shapes.wave_BN) if x is not None]
    n_bytes = sum(x.size * x.dtype.itemsize for x in arrays)
    shared_out = share_out_clips(layout) is not None
    streamed = choose_placement(parallel, 0 if shared_out else n_bytes) == "stream"
    check(
        not (streamed and (shared_out or layout.mode == "pmap")),
        f"parallel.placement={parallel.placement}: takes one process, and not parallel.mode=pmap; "
        "leave the key out",
    )
    check(
        config.train.buckets == 1 or not streamed,
        f"train.buckets={config.train.buckets}: takes a corpus on the device; leave the key out",
    )
    return streamed


def stream(dataset: Dataset, layout: Layout) -> Stream:
    """The corpus on the host, its batches transferred to the devices ahead of the step."""
    return StreamedCorpus(dataset, layout.mesh if layout.mode == "mesh" else None)
