"""Files that are not what their names say: pointers, web pages and archives in their place."""

from pathlib import Path

from ser_jax.errors import UserError

_HEAD = 512  # bytes that say what a file is
_LFS = b"version https://git-lfs.github.com/spec/v1"
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
}


def explain_stand_in(head: bytes) -> str | None:
    """What stands in a file's place and the remedy, by its first bytes; `None`: nothing known."""
    if head.startswith(_LFS):
        return "a Git LFS pointer, not the file itself; run git lfs pull in its repository"
    if b"/annex/objects/" in head[:256]:
        return "a git-annex pointer, not the file itself; run git annex get on it"
    if head.startswith(b"\0\x05\x16\x07"):
        return "what macOS keeps beside a file of that name without ._; leave it out"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page, perhaps a download that failed; download the file again"
    if text.startswith((b"<?xml", b'{"')):
        return "a text that a server sends for an error; download the file again"
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            return f"{name}; unpack it and name what is inside"
    return None


def check_not_pointer(path: Path) -> None:
    """Raise `UserError` where a Git LFS or git-annex pointer stands in a file's place."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:  # whoever reads it says so
        return
    if head.startswith(_LFS) or b"/annex/objects/" in head[:256]:
        raise UserError(f"{path}: is {explain_stand_in(head)}")
