"""RAVDESS from Zenodo: the archive is downloaded, verified and unpacked, whole or not at all."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from ser_jax.data.sources.fetch import fetch
from ser_jax.errors import UserError, one_line
from ser_jax.files.atomic import locked, new_folder, saving
from ser_jax.progress import progress


@dataclass(frozen=True)
class Archive:
    """A zip file to download, and what verifies it."""

    url: str
    file_name: str
    size: int
    """Bytes."""
    md5: str
    n_wavs: int
    """Recordings in it."""


RAVDESS_MD5 = "bc696df654c87fed845eb13823edef8a"
RAVDESS = Archive(
    url="https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip?download=1",
    file_name="Audio_Speech_Actors_01-24.zip",
    size=208_468_073,
    md5=RAVDESS_MD5,
    n_wavs=1440,
)


def ensure_ravdess(store_dir: Path, archive: Archive = RAVDESS) -> Path:
    """The folder with the archive's wav files under `store_dir`; downloads them if necessary.

    Raises:
      UserError: the download fails, as by `fetch`; a corrupt archive; a failed write.
    """
    folder = store_dir / archive.file_name.removesuffix(".zip")
    if _count_wavs(folder) == archive.n_wavs:
        return folder
    remedy = "or download that file by hand, unpack it, and give --data.root DIR"
    with locked(folder):
        if _count_wavs(folder) != archive.n_wavs:  # another process may have done it
            zipped = store_dir / archive.file_name
            fetch(archive.url, zipped, archive.size, archive.md5, remedy=remedy)
            unpack(zipped, folder)
            with saving(zipped):
                zipped.unlink()
    return folder


def _count_wavs(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*.wav"))


def unpack(zipped: Path, folder: Path) -> None:
    """Unpack a zip file into a temporary folder and rename it to `folder`.

    Raises:
      UserError: the zip file is corrupt (and deleted), or a write failed; `folder` is unchanged.
    """
    broken = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)  # RuntimeError: encrypted
    try:
        with new_folder(folder) as beside, zipfile.ZipFile(zipped) as archive:
            names = archive.namelist()
            with progress(f"unpacking {zipped.name}", len(names), "files") as advance:
                for name in names:
                    archive.extract(name, beside)  # never outside, whatever the name
                    advance(1)
    except broken as error:
        with saving(zipped):
            zipped.unlink(missing_ok=True)
        raise UserError(
            f"{zipped}: corrupt zip file ({one_line(error, 200)}), now deleted; run this again"
        ) from error
