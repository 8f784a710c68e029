"""Compile the main programs for an H100, on a machine without one, and count their work.

XLA's GPU compiler needs no GPU: it optimises the program for a described device. Kernels, launches,
bytes and memory are those of a real card. The algorithms of products and convolutions are not:
they are chosen by timing.

Needs the CUDA plugin and its tools, of the version of jax (a GPU machine has them):
  pip install jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc nvidia-nvvm
Command: python benchmarks/compiled.py [step epoch augmented grid wav2vec2] [--dtype bfloat16]
"""

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.kernels import count_kernels

SHORT, LONG = (83, 20), (165, 40)  # frames, features: configs/ablation.yaml's; librosa's hop
N_CLIPS, N_SAMPLES, RATE_HZ, BATCH, STEPS, RUNS = 1440, 84352, 16000, 32, 32, 32  # RAVDESS'
Case = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function, and the shapes of its arguments; the first is used up."""

# An H100 SXM. Without a driver's version XLA leaves loops out of command buffers.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 } core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 l2_cache_size: 52428800
  memory_bandwidth: 3352320000000 device_memory_size: 84929347584
  driver_version: "13.0.0" kernel_mode_driver_version: "580.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.13.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 13 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def _make_network(shape: tuple[int, int], dtype: str, **forms: str) -> tuple[Any, Any, Any]:
    """CNN-LSTM, its optimiser, and the shapes of its state."""
    from ser_jax.config import ModelConfig, TrainConfig
    from ser_jax.systems.build import choose_forms
    from ser_jax.systems.networks import make_model
    from ser_jax.training.optimizer import make_optimizer
    from ser_jax.training.state import describe_state

    config = ModelConfig(name="cnn_lstm")
    model = make_model(config, 8, dtype=dtype, forms=choose_forms()._replace(**forms))
    tx = make_optimizer(TrainConfig())
    return model, tx, describe_state(model, tx, n_frames=shape[0], n_features=shape[1])


def _describe_corpus(shape: tuple[int, int], n_samples: int | None = None) -> Any:
    import jax
    import numpy as np

    from ser_jax.features.corpus_features import describe_dataset

    return describe_dataset(jax.ShapeDtypeStruct((N_CLIPS, *shape), np.float32), n_samples)


def _make_index(*shape: int) -> Any:
    import jax
    import numpy as np

    return jax.ShapeDtypeStruct(shape, np.int32)


def make_step(dtype: str) -> Case:
    """A training step, 165 x 40."""
    from ser_jax.metrics import Sums
    from ser_jax.training.step import make_steps

    model, tx, state = _make_network(LONG, dtype)
    carry = state, Sums.zeros(8)
    return make_steps(model, tx).train, (carry, _describe_corpus(LONG), _make_index(BATCH))


def make_epoch(dtype: str) -> Case:
    """An epoch of 32 steps as one program, 83 x 20."""
    from ser_jax.metrics import Sums
    from ser_jax.training.compiled_step import scan_steps
    from ser_jax.training.step import make_steps

    model, tx, state = _make_network(SHORT, dtype)
    epoch = scan_steps(make_steps(model, tx).train)
    carry = state, Sums.zeros(8)
    return epoch, (carry, _describe_corpus(SHORT), _make_index(STEPS, BATCH))


def make_augmented(dtype: str) -> Case:
    """The same epoch with waves augmented in the step."""
    from ser_jax.config import AugmentConfig, FeaturesConfig
    from ser_jax.metrics import Sums
    from ser_jax.systems.build import choose_take
    from ser_jax.training.compiled_step import scan_steps
    from ser_jax.training.step import make_steps

    model, tx, state = _make_network(SHORT, dtype)
    take = choose_take(AugmentConfig(enabled=True), FeaturesConfig(hop_length=1024), RATE_HZ)
    epoch = scan_steps(make_steps(model, tx, take).train)
    corpus = _describe_corpus(SHORT, N_SAMPLES)
    return epoch, ((state, Sums.zeros(8)), corpus, _make_index(STEPS, BATCH))


def make_grid(dtype: str) -> Case:
    """A training step of 32 runs side by side, 83 x 20."""
    import jax

    from ser_jax.metrics import Sums
    from ser_jax.training.step import make_steps

    model, tx, state = _make_network(SHORT, dtype, conv="im2col")
    stack = functools.partial(
        jax.tree.map, lambda x: jax.ShapeDtypeStruct((RUNS, *x.shape), x.dtype)
    )
    steps = jax.vmap(make_steps(model, tx).train, (0, None, 0))
    carry = stack((state, Sums.zeros(8)))
    return steps, (carry, _describe_corpus(SHORT), _make_index(RUNS, BATCH))


def make_wav2vec2(dtype: str) -> Case:
    """A training step of wav2vec 2.0 of base size, 32 clips of 5.27 s, convolutions frozen."""
    import jax
    import numpy as np

    from ser_jax.config import BackboneConfig, ModelConfig, TrainConfig
    from ser_jax.features.batching import Batch
    from ser_jax.systems.networks import make_model
    from ser_jax.training.optimizer import make_optimizer
    from ser_jax.training.state import describe_state
    from ser_jax.training.step import train_step
    from ser_jax.wav2vec2.architecture import Architecture, BackboneSpec
    from ser_jax.wav2vec2.finetune import init_params
    from ser_jax.wav2vec2.frozen_parts import split_params

    config = ModelConfig(name="wav2vec2")
    spec = BackboneSpec(Architecture(layerdrop=0.05), BackboneConfig())
    params = jax.eval_shape(lambda: init_params(config, spec, 8, 0, None))
    trained, frozen = split_params(params, spec)
    model, tx = make_model(config, 8, dtype=dtype, spec=spec), make_optimizer(TrainConfig())
    state = describe_state(
        model, tx, n_frames=1, n_features=1, variables={"params": trained}, frozen=frozen
    )
    shape: Any = jax.ShapeDtypeStruct
    batch = Batch(
        shape((BATCH, N_SAMPLES, 1), np.float32), shape((BATCH, N_SAMPLES), np.bool_),
        shape((BATCH,), np.int32), shape((BATCH,), np.float32),
    )  # fmt: skip
    return functools.partial(train_step, model=model, tx=tx), (state, batch)


CASES: dict[str, Callable[[str], Case]] = {
    "step": make_step, "epoch": make_epoch, "augmented": make_augmented, "grid": make_grid,
    "wav2vec2": make_wav2vec2,
}  # fmt: skip


def compile_for_h100(case: Case, options: dict[str, Any]) -> Any:
    """The program compiled for one H100."""
    import jax
    from jax.experimental import topologies

    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=_H100, topology="1x1x1"
        )
    except NotImplementedError:
        version = jax.__version__
        print(
            f"compiled.py: jax {version}: has no CUDA plugin here; pip install "
            f"jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version} nvidia-cuda-nvcc nvidia-nvvm",
            file=sys.stderr,
        )
        sys.exit(2)
    mesh = topologies.make_mesh(topology, (1,), ("device",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    function, arguments = case
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments
    )
    return jax.jit(function, donate_argnums=0, compiler_options=options).lower(*shapes).compile()


def pretend_cuda() -> None:
    """Make the package choose as on an H100, while this process computes on CPU."""
    from ser_jax.machine import accelerator

    for name in ("on_accelerator", "has_cuda", "has_fused_attention"):
        setattr(accelerator, name, lambda: True)  # before anything imports them


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: one line per program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args(arguments)
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"{', '.join(unknown)}: known are {', '.join(CASES)}")
    os.environ["JAX_PLATFORMS"] = "cpu"  # the plugin would look for a GPU
    with tempfile.TemporaryDirectory() as folder:
        own = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{own} --xla_gpu_autotune_level=0"
        pretend_cuda()
        from ser_jax.machine import accelerator

        print("| program | kernels | launches | GB moved | temporary GB |\n|---|---|---|---|---|")
        for name in options.cases:
            dump = Path(folder) / name
            case = CASES[name](options.dtype)
            seen = {"xla_dump_to": str(dump), "xla_dump_hlo_as_text": True}
            program = compile_for_h100(case, seen | accelerator.choose_compiler_options())
            found = count_kernels(program.as_text(), dump)
            temporary = program.memory_analysis().temp_size_in_bytes / 1e9
            print(
                f"| {name} | {found.kernels:,} | {found.launches:,} | {found.n_bytes / 1e9:.2f} "
                f"| {temporary:.3f} |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
