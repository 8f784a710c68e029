"""Names given by users as parts of file names."""

import re


def make_slug(name: str) -> str:
    """A name as part of a file name: whatever is not a letter, digit or one of ._+- becomes _."""
    return re.sub(r"[^\w.+-]+", "_", name).lstrip(".") or "_"
