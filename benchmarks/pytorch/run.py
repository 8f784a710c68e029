"""A whole run of the baseline: data, augmentation, features, training, best epoch, test.

Imports no jax: corpus and split come from parts of ser_jax that do not use it.
"""

import os
import random
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.clips import apply_audiomentations
from benchmarks.pytorch.augment import apply
from benchmarks.pytorch.features import FrontEnd
from benchmarks.pytorch.graphs import Graphed
from benchmarks.pytorch.models import make_network
from benchmarks.pytorch.training import Trainer, pick_device, set_precision, synchronize
from benchmarks.worker import Job
from ser_jax.config import AugmentConfig, Config, override
from ser_jax.data.corpus import Corpus
from ser_jax.data.splits import make_split
from ser_jax.data.store import load_corpus


class AugmentedClips(torch.utils.data.Dataset):
    """Training clips through audiomentations, one at a time; for the workers of a DataLoader."""

    def __init__(self, wave_BN: np.ndarray, length_B: np.ndarray, label_B: np.ndarray,
                 config: AugmentConfig, rate_hz: int):  # fmt: skip
        self.wave_BN, self.length_B, self.label_B = wave_BN, length_B, label_B
        self.config, self.rate_hz = config, rate_hz

    def __len__(self) -> int:
        return len(self.wave_BN)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.int64]:
        out_N = np.zeros(self.wave_BN.shape[1], np.float32)
        n = int(self.length_B[number])
        wave_N = self.wave_BN[number, :n].astype(np.float32) / 32768
        out_N[:n] = apply_audiomentations(wave_N, self.config, self.rate_hz)
        return out_N, np.int64(self.label_B[number])


def seed_worker(number: int) -> None:
    """Seed the global generators, which audiomentations draws from; one thread per worker."""
    del number
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.set_num_threads(1)


class Clips:
    """The corpus on the device, its features and its split."""

    def __init__(self, config: Config, device: torch.device, corpus: Corpus | None = None):
        self.corpus = corpus = corpus or load_corpus(config.data)
        self.device = device
        self.front_end = FrontEnd(config.features, corpus.rate_hz).to(device)
        self.wave_BN = torch.from_numpy(corpus.wave_BN).to(device)  # int16
        self.length_B = torch.from_numpy(corpus.length_B).long().to(device)
        self.label_B = torch.from_numpy(corpus.emotion_B).long().to(device)
        parts = [self.front_end(self.take_wave(slice(i, i + 64)))
                 for i in range(0, len(self.wave_BN), 64)]  # fmt: skip
        self.x_BTF = torch.cat(parts)

    def take_wave(self, index: Any) -> torch.Tensor:
        """Waves as float32, full scale 1."""
        return self.wave_BN[index].float() / 32768


class Run:
    """One training run; `execute` does all of it."""

    def __init__(self, config: Config, clips: Clips, *, precision: str = "float32",
                 augment_in: str = "workers", workers: int = 1, graph: bool = False,
                 **ways: Any):  # fmt: skip
        """
        Args:
          config: the run's settings, ser_jax's own.
          clips: the corpus on the device.
          precision: see `Trainer`.
          augment_in: workers (audiomentations in processes; with 0 in this one) or device.
          workers: processes.
          graph: capture a batch's augmentation, features and step as one CUDA graph, and its
            evaluation as another, for each batch size.
          **ways: see `Trainer`.
        """
        torch.manual_seed(config.seed)
        self.config, self.clips, self.augment_in = config, clips, augment_in
        self.workers, self.device = workers, clips.device
        corpus, data = clips.corpus, config.data
        self.split = make_split(
            data.protocol, data.fold, config.seed, corpus.emotion_B, corpus.actor_B
        )
        train_x = clips.x_BTF[torch.from_numpy(self.split.train).to(self.device)]
        self.mean_F, self.std_F = train_x.mean((0, 1)), train_x.std((0, 1)).clamp_min(1e-5)
        if config.features.normalise == "none":
            self.mean_F, self.std_F = torch.zeros_like(self.mean_F), torch.ones_like(self.std_F)
        network = make_network(
            config.model, len(corpus.labels),
            n_frames=clips.x_BTF.shape[1], n_features=clips.x_BTF.shape[2],
        )  # fmt: skip
        self.trainer = Trainer(network, self.device, precision=precision, graph=graph, **ways)
        self.sums = torch.zeros(2, device=self.device)
        from_host = config.augment.enabled and augment_in != "device"
        self.train_batch: Any = self._train_on_waves if from_host else self._train_on_rows
        self.score_batch: Any = self._score_rows
        if graph:
            self.train_batch = self.trainer.make_graphed(self.train_batch)
            self.score_batch = Graphed(self.score_batch, lambda: [self.sums])

    def execute(self) -> dict[str, Any]:
        """Train, keep the epoch best on validation, score it on the test part."""
        best, kept, facts = (-1.0, 0.0), b"", {}
        with tempfile.TemporaryDirectory() as folder:
            loader = self._make_loader()
            for epoch in range(1, self.config.train.epochs + 1):
                self.trainer.network.train()
                for batch in self._iterate(loader):
                    self.train_batch(*batch)
                accuracy, loss = self.score(self.split.val)
                kept = os.path.join(folder, f"{epoch}.pt")
                state = (self.trainer.network.state_dict(), self.trainer.optimizer.state_dict())
                torch.save(state, kept)  # every epoch, as ser_jax does
                if (accuracy, -loss) > best:
                    best, facts["best_epoch"] = (accuracy, -loss), epoch
            kept = os.path.join(folder, f"{facts['best_epoch']}.pt")
            self.trainer.network.load_state_dict(torch.load(kept)[0])
            facts["test_accuracy"] = self.score(self.split.test)[0]
        synchronize(self.device)
        return facts

    def normalise(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """By the training clips."""
        return (x_BTF - self.mean_F) / self.std_F

    def score(self, index: np.ndarray) -> tuple[float, float]:
        """Accuracy and mean loss; one transfer to the host for all batches."""
        self.trainer.network.eval()
        self.sums.zero_()
        for rows in torch.from_numpy(index).to(self.device).split(32):
            self.score_batch(rows)
        correct, loss = self.sums.tolist()
        return correct / len(index), loss / len(index)

    @torch.no_grad()
    def _score_rows(self, rows: torch.Tensor) -> None:
        with self.trainer.context():
            logits_BC = self.trainer.network(self.normalise(self.clips.x_BTF[rows])).float()
        label_B = self.clips.label_B[rows]
        loss = F.cross_entropy(logits_BC, label_B, reduction="sum")
        self.sums += torch.stack([(logits_BC.argmax(1) == label_B).sum(), loss])

    def _train_on_waves(self, wave_BN: torch.Tensor, label_B: torch.Tensor) -> None:
        x_BTF = self.normalise(self.clips.front_end(wave_BN))
        self.trainer.take_step(x_BTF, label_B)

    def _train_on_rows(self, rows: torch.Tensor) -> None:
        clips, config = self.clips, self.config
        if config.augment.enabled:
            rate_hz = clips.corpus.rate_hz
            wave_BN = apply(clips.take_wave(rows), clips.length_B[rows], config.augment, rate_hz)
            x_BTF = clips.front_end(wave_BN)
        else:
            x_BTF = clips.x_BTF[rows]
        self.trainer.take_step(self.normalise(x_BTF), clips.label_B[rows])

    def _make_loader(self) -> Any:
        augmented = self.config.augment.enabled
        if not augmented or self.augment_in == "device":
            return None
        corpus, index = self.clips.corpus, self.split.train
        clips = AugmentedClips(
            corpus.wave_BN[index], corpus.length_B[index], corpus.emotion_B[index],
            self.config.augment, corpus.rate_hz,
        )  # fmt: skip
        several: dict[str, Any] = {}
        if self.workers:
            several = {"persistent_workers": True, "prefetch_factor": 4}
        return torch.utils.data.DataLoader(
            clips, self.config.train.batch_size, shuffle=True, num_workers=self.workers,
            pin_memory=self.device.type == "cuda", worker_init_fn=seed_worker, **several,
        )  # fmt: skip

    def _iterate(self, loader: Any) -> Iterator[tuple[torch.Tensor, ...]]:
        """Arguments of `train_batch` for an epoch's batches, on the device."""
        if loader is not None:
            for batch in loader:
                yield tuple(tensor.to(self.device, non_blocking=True) for tensor in batch)
            return
        order = torch.from_numpy(np.random.permutation(self.split.train)).to(self.device)
        for rows in order.split(self.config.train.batch_size):
            yield (rows,)


def make_run(*, keys: dict[str, Any], kind: str, precision: str = "float32", **ways: Any) -> Job:
    """One turn is a whole run: corpus, features, training, test.

    Args:
      keys: dotted keys of ser_jax's `Config`.
      kind: of the device, cpu or gpu.
      precision, **ways: see `Run`.
    """
    facts: dict[str, Any] = {}
    device = pick_device(kind)
    set_precision(precision)
    config = override(Config(), keys)

    def turn() -> None:
        run = Run(config, Clips(config, device), precision=precision, **ways)
        facts.update(run.execute())

    return Job(turn, lambda: facts)
