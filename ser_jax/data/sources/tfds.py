"""tensorflow-datasets' own builders of CREMA-D and SAVEE as a source; needs TensorFlow."""

import contextlib
import importlib.util
import io
from functools import partial
from typing import Any

import numpy as np

from ser_jax.audio.samples import round_to_int16
from ser_jax.config import DataConfig
from ser_jax.data.sources.filenames import CREMA_D_EMOTIONS, CREMA_D_WOMEN, Facts
from ser_jax.data.sources.listing import Clip, Listing, Source, hash_values
from ser_jax.errors import UserError, check
from ser_jax.files.atomic import expand


def find_tfds(data: DataConfig) -> Source:
    """The clips of `data.corpus` as tensorflow-datasets has them: emotion and speaker.

    `data.root` is its data_dir; None: its own default. Its split is set aside: the protocols are
    index arrays.

    Raises:
      UserError: TensorFlow is missing; the data set is not built and cannot be.
    """
    missing = [name for name in ("tensorflow", "pydub") if importlib.util.find_spec(name) is None]
    check(
        not missing,
        f"data.source=tfds: {data.corpus} of tensorflow-datasets needs {' and '.join(missing)}: "
        f"pip install {' '.join(missing)}; or give a folder as data.root with data.source=folder",
    )
    return Source(hash_values(["tfds", data.corpus, data.root]), partial(_list_clips, data))


def _list_clips(data: DataConfig) -> Listing:
    import tensorflow_datasets as tfds

    root = None if data.root is None else str(expand(data.root))
    tfds.disable_progress_bar()
    try:
        builder: Any = tfds.builder(data.corpus, data_dir=root)
        with contextlib.redirect_stdout(io.StringIO()):  # what it is about to download
            builder.download_and_prepare()
        rate_hz = int(builder.info.features["audio"].sample_rate)
        names = builder.info.features["label"].names
        sets = builder.as_dataset(shuffle_files=False)
        clips = [
            _make_clip(data, example, f"{split}-{number:05d}", names, rate_hz)
            for split in sorted(sets)
            for number, example in enumerate(tfds.as_numpy(sets[split]))
        ]
    except Exception as error:  # builders raise whatever their downloads do
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"data.source=tfds: tensorflow-datasets cannot build {data.corpus}: {reason}; build it "
            f"by 'tfds build {data.corpus}', or take data.source=folder"
        ) from error
    return Listing(sorted(clips, key=lambda clip: clip.file_name), {})


def _make_clip(
    data: DataConfig, example: dict[str, Any], name: str, names: list[str], rate_hz: int
) -> Clip:
    speaker, word = example["speaker_id"].decode(), names[int(example["label"])]
    # In memory, since the reader of a shard has no random access: 0.6 GB of CREMA-D at 16 kHz.
    wave_N = np.asarray(example["audio"]).astype(np.int16)
    is_female = data.corpus == "crema_d" and speaker in CREMA_D_WOMEN
    emotion = CREMA_D_EMOTIONS.get(word, word)  # savee's are words already
    facts = Facts(emotion, speaker, gender="female" if is_female else "male")
    load = partial(_resample, wave_N, rate_hz, data.rate_hz)
    return Clip(f"{speaker}-{name}", load, facts, f"tfds {data.corpus}: {name}")


def _resample(wave_N: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    if from_hz == to_hz:
        return wave_N
    import librosa

    scaled_N = wave_N.astype(np.float32)
    scaled_N = librosa.resample(scaled_N, orig_sr=from_hz, target_sr=to_hz, res_type="soxr_hq")
    return round_to_int16(scaled_N)
