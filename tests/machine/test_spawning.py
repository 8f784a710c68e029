"""Workers start from a plain script, which they do not run again, and their main module is back."""

import subprocess
import sys

import pytest

from ser_jax.machine.spawning import starting_workers
from tests.tiny import make_keys

SCRIPT = """
import sys
import ser_jax
from ser_jax.config import AblationConfig, Config, override

print("script", flush=True)
host = {{"augment.enabled": True, "augment.backend": "host", "augment.workers": 1}}
keys = {keys!r}
ser_jax.train(override(Config(), keys | host | {{"run_dir": sys.argv[1] + "/run"}}))
grid = {{"systems": {{"a": {{}}}}, "seeds": (0, 1), "workers": 2, "out": sys.argv[1] + "/grid"}}
print(len(ser_jax.ablate(override(AblationConfig(), keys | grid))["cells"]))
"""
"""As a user writes it: nothing is under `if __name__ == "__main__":`."""


@pytest.mark.cpu_only("starts workers, which cannot all have the device")
@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "module"])
def test_a_script_without_a_main_guard_runs_once(how, tmp_path):
    script = SCRIPT.format(keys=make_keys({"train.epochs": 1}))
    (tmp_path / "script.py").write_text(script)
    options = {"file": ["script.py"], "module": ["-m", "script"]}[how]
    done = subprocess.run(
        [sys.executable, *options, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("script\n") == 1
    assert done.stdout.splitlines()[-1] == "2"


def test_the_main_module_is_back_afterwards():
    before = sys.modules["__main__"]
    with starting_workers("do without"):
        assert not hasattr(sys.modules["__main__"], "__file__")
    assert sys.modules["__main__"] is before
