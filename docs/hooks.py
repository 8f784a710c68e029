"""Hooks of the site: pages from outside docs/, and those parts of the reference that code knows."""

import dataclasses
import logging
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import griffe
from mkdocs.structure.files import File

import ser_jax
from ser_jax import config

ROOT = Path(__file__).parents[1]
OUTSIDE = ["CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/results/*.*[dg]"]
log = logging.getLogger("mkdocs.plugins.hooks")  # --strict makes its warnings errors


def on_files(files, config):
    """Add the pages and pictures of the repository that lie outside docs/."""
    for path in (path for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))):
        name = str(path.relative_to(ROOT))
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Mend links that leave docs/, and fill in what stands between double braces."""
    if page.file.src_uri.startswith(("benchmarks/", "C")):
        markdown = re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", markdown)
    else:
        outside = r"\]\(((?:\.\./)*)\.\./(?=benchmarks/|C[A-Z]+\.md)"
        markdown = re.sub(outside, r"](\1", markdown)
    if page.file.src_uri == "reference/python.md":
        for name in ser_jax._HOMES.keys() - set(re.findall(r"\w+", markdown)):
            log.warning("reference/python.md: lacks ser_jax.%s; add it below a heading", name)
    markdown = re.sub(r"\{\{ help (\w+) \}\}", lambda found: read_help(found[1]), markdown)
    markdown = re.sub(r"\{\{ keys ([\w.]+) \}\}", lambda found: list_keys(found[1]), markdown)
    return re.sub(r"\{\{ api (.*?) \}\}", lambda found: find_names(found[1].split()), markdown)


def read_help(command):
    """What `ser-jax COMMAND --help` prints before the keys of the configuration."""
    env = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "ser_jax", command, "--help"]
    text = subprocess.run(line, capture_output=True, text=True, check=True, env=env).stdout
    kept = []
    for part in text.strip().split("\n\n"):
        if len(kept) > 1 and part[0] != " " and not part.startswith(("positional", "options")):
            break
        kept.append(part)
    return "```text\n" + "\n\n".join(kept) + "\n```"


def list_keys(name):
    """A list of the keys of a class of `ser_jax.config`, or of its section: `Class.section`."""
    kind, *sections = name.split(".")
    cls = getattr(config, kind)
    for section in sections:
        cls = typing.get_type_hints(cls)[section]
    marked, texts = typing.get_type_hints(cls, include_extras=True), read_docstrings(cls)
    entries = []
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(marked[field.name]):
            continue  # a section with its own list
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        bounds = [mark.words for mark in getattr(marked[field.name], "__metadata__", ())
                  if hasattr(mark, "words")]  # fmt: skip
        text = " ".join(texts[field.name].split()).rstrip(".")
        text = ". ".join([text, *(words[0].upper() + words[1:] for words in bounds)]) + "."
        text = re.sub(r"([*_<|\[])", r"\\\1", text)
        head = f"`{field.name}`: {name_type(marked[field.name])}. Default: `{to_yaml(default)}`"
        entries.append(f"{head}\n:   {text}")
    return "\n\n".join(entries)


def read_docstrings(cls):
    """The docstring below each field of `cls` and of the classes it derives from."""
    texts = {}
    for base in cls.__mro__[:-1]:
        members = griffe.load(base.__module__, search_paths=[str(ROOT)])[base.__name__].members
        for name, member in members.items():
            if member.docstring:
                texts.setdefault(name, member.docstring.value)
    return texts


def name_type(hint):
    """A type as users of YAML name it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return name_type(args[0])
    if origin is typing.Literal:
        return ", ".join(f"`{to_yaml(value)}`" for value in args)
    if origin is dict:
        return "mapping"
    if origin in (tuple, list):
        return "list of " + re.sub("(integer|number|text)$", r"\1s", name_type(args[0]))
    if args:  # a union
        return " or ".join(name_type(arg) for arg in args)
    names = {bool: "true, false", int: "integer", float: "number", str: "text", type(None): "null"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def to_yaml(value):
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(to_yaml, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(str(Path.home()), "~")


def find_names(names):
    """mkdocstrings' directives for public names, wherever `ser_jax` keeps them."""
    homes, lines = ser_jax._HOMES, []
    for name in names:
        if name not in homes:
            log.warning("reference/python.md: ser_jax has no %s; take it out", name)
            continue
        lines.append(f"::: ser_jax.{homes[name]}.{name}")
        if name.endswith("Config"):  # configuration.md has its fields
            lines[-1] += "\n    options: {members: false, show_bases: false}"
    return "\n\n".join(lines)
