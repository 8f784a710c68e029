"""Sound files as blocks of samples, read by libsndfile if it can, else by ffmpeg."""

import contextlib
import functools
import io
import os
import shlex
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ser_jax.audio.compressed import check_ogg, find_count, is_counted
from ser_jax.audio.ffmpeg import Pipe, find_ffmpeg
from ser_jax.audio.joined import check_joined, check_single_flac, is_chained
from ser_jax.audio.kinds import is_container, is_mp3, name_foreign
from ser_jax.audio.wav import Corrected, check_total, find_corrections
from ser_jax.errors import UserError, check
from ser_jax.files.stand_ins import explain_stand_in

BLOCK = 2**18  # frames decoded at a time
_RATES_HZ = (1000, 768000)  # a damaged header must not ask for gigabytes when resampled
_UNKNOWN = 2**62  # libsndfile reports more than this if the header does not give the length
_PROMISING = ("FLAC", "WAV", "WAVEX", "RF64")
_SPARE_S = 1.0  # an mp3 may be this much shorter than its count, because of encoder padding


class _RefusedError(UserError):
    """libsndfile cannot read it; ffmpeg may."""


class Sound(NamedTuple):
    """An open sound file, which can be read once.

    Attributes:
      rate_hz: of the file.
      n_frames: samples per channel; None if the header does not say.
      read: (first frame, frames to decode at a time) -> blocks, float32 [n, channels].
    """

    rate_hz: int
    n_frames: int | None
    read: Callable[[int, int], Iterator[np.ndarray]]


@contextlib.contextmanager
def open_sound(path: Path) -> Iterator[Sound]:
    """Open a sound file.

    Raises:
      UserError: the file is missing, unreadable, not audio or truncated; reading it may raise too.
    """
    with _open_file(path) as file, contextlib.ExitStack() as stack:
        sound = _enter(stack, path, file)
        low, high = _RATES_HZ
        check(
            low <= sound.rate_hz <= high,
            f"{path}: its header says {sound.rate_hz} Hz; needs a file between {low} and {high} Hz",
        )
        yield sound


def _enter(stack: contextlib.ExitStack, path: Path, file: BinaryIO) -> Sound:
    """Open the sound by libsndfile or ffmpeg; `stack` closes it."""
    check_joined(file, path)
    foreign = name_foreign(file)
    if foreign is None and is_chained(file):  # libsndfile reads only the first link
        foreign = "a chain of ogg streams"
    if foreign is None:
        corrections = find_corrections(file, path)
        check_ogg(file, path)
        check_total(file, path)
        try:
            return stack.enter_context(_open_native(path, file, corrections))
        except _RefusedError as error:
            # An mp3 may start with anything; ffmpeg searches for its first frame.
            named, known = path.suffix.lower() == ".mp3", is_container(file)
            if not (known or named) or find_ffmpeg() is None:
                raise
            try:
                return stack.enter_context(_open_foreign(path))
            except UserError:
                if known:
                    raise
                raise error from None
    elif find_ffmpeg() is None:
        names = map(shlex.quote, (path.name, f"{path.stem}.converted.wav"))
        raise UserError(
            f"{path}: is {foreign}, which needs ffmpeg; install it, or convert the file elsewhere: "
            f"ffmpeg -i {' '.join(names)}"
        )
    return stack.enter_context(_open_foreign(path))


def check_file(path: str | Path) -> None:
    """Raise `UserError` if a file is missing, a folder, unreadable or empty."""
    _open_file(Path(path)).close()


def _open_file(path: Path) -> BinaryIO:
    """Open a regular file that is neither empty nor a stand-in for another."""
    try:
        mode, size = (found := path.stat()).st_mode, found.st_size
        check(not stat.S_ISDIR(mode), f"{path}: is a folder; name the files in it, as {path}/*")
        check(stat.S_ISREG(mode), f"{path}: is a pipe or device, not a file; save it to a file")
        file = path.open("rb", buffering=0)  # soundfile would hide the system's reason
    except UserError:
        raise
    except (OSError, ValueError) as error:  # a null byte in the name, or a name that is not text
        reason = getattr(error, "strerror", None) or str(error)
        reason = "no such file" if isinstance(error, FileNotFoundError) else reason
        raise UserError(f"{path}: {reason}; check the path and the permissions") from error
    try:
        check(size > 0, f"{path}: the file is empty (0 bytes); copy or download it again")
        said = explain_stand_in(file.read(512))
        check(said is None, f"{path}: is {said}")
    except BaseException:
        file.close()
        raise
    return file  # pyright: ignore[reportReturnType]


@functools.cache
def _make_reader() -> Any:
    import soundfile

    class Reader(soundfile.SoundFile):
        """Reads to the end of the audio, whatever length the header gives."""

        def seekable(self) -> bool:
            return False

        def can_seek(self) -> bool:
            return super().seekable()

    return Reader


@contextlib.contextmanager
def _open_native(path: Path, file: BinaryIO, corrections: dict[int, bytes]) -> Iterator[Sound]:
    import soundfile

    with contextlib.ExitStack() as stack:
        uncounted = False
        if is_mp3(file):
            count = find_count(file)
            uncounted = count is None or not is_counted(file, count)
            if uncounted and count is not None:
                corrections = {count.place: bytes(4)}
        file.seek(0)
        if uncounted:
            source: Any = stack.enter_context(_pipe(Corrected(file, corrections)))
        elif corrections:
            source = Corrected(file, corrections)
        else:  # not the name, from whose suffix libsndfile would guess the format
            source = file.fileno()
        try:
            sound = stack.enter_context(_make_reader()(source, closefd=False))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise _RefusedError(*_make_error(path, error).args) from error
        n_frames = None if uncounted or sound.frames > _UNKNOWN else sound.frames
        read = functools.partial(_read, path, file, sound, n_frames)
        yield Sound(sound.samplerate, n_frames, read)


def _read(
    path: Path, file: BinaryIO, sound: Any, n_frames: int | None, start: int, block: int
) -> Iterator[np.ndarray]:
    import soundfile

    def count_next() -> int:
        """A block, cut where the audio should end, so that an error after it does not lose it."""
        return block if n_frames is None or done >= n_frames else min(block, n_frames - done)

    done = 0
    try:
        if start and n_frames is not None and sound.can_seek():
            done = sound.seek(min(start, n_frames))
        while len(block_NC := sound.read(count_next(), dtype="float32", always_2d=True)):
            if len(wanted_NC := block_NC[max(start - done, 0) :]):
                yield wanted_NC
            done += len(block_NC)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        if sound.format != "FLAC" or done != n_frames:  # a tag or padding may follow the audio
            raise _make_error(path, error) from error
    if sound.format == "FLAC":
        check_single_flac(file, path)
    # The length of ogg, and of mp3 in a wav, is an estimate.
    promises = sound.format in _PROMISING and "MPEG" not in sound.subtype
    spare = round(_SPARE_S * sound.samplerate) if sound.format == "MP3" else 0
    if n_frames is not None and (promises or spare):
        check(
            done + spare >= n_frames,
            f"{path}: truncated: holds {done} of {n_frames} samples; copy or download it again",
        )


@contextlib.contextmanager
def _open_foreign(path: Path) -> Iterator[Sound]:
    with contextlib.closing(Pipe(path)) as pipe:

        def read(start: int, block: int) -> Iterator[np.ndarray]:
            done = 0
            for block_NC in pipe.iterate(block):
                if len(wanted_NC := block_NC[max(start - done, 0) :]):
                    yield wanted_NC
                done += len(block_NC)

        yield Sound(pipe.rate_hz, None, read)


@contextlib.contextmanager
def _pipe(file: io.RawIOBase) -> Iterator[int]:
    """The file through a pipe, whose length libsndfile cannot guess, so it reads to the end.

    In an mp3 without a count it would stop where the first frame's bit rate puts the end.
    """
    read_end, write_end = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), open(write_end, "wb", buffering=0) as out:
            while block := file.read(2**16):
                rest = memoryview(block)
                while rest:
                    rest = rest[out.write(rest) :]

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield read_end
    finally:
        os.close(read_end)
        thread.join()


def _make_error(path: Path, error: Exception) -> UserError:
    reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
    return UserError(
        f"{path}: cannot be decoded: {reason}; give a complete wav, flac, ogg or mp3 file"
        + ("" if find_ffmpeg() else ", or install ffmpeg, which reads more")
    )
