"""All systems by their `model.name`."""

from ser_jax.systems.fine_tuned import FineTunedSystem
from ser_jax.systems.fitted import FittedSystem
from ser_jax.systems.hmm import HMM
from ser_jax.systems.network import NetworkSystem
from ser_jax.systems.networks import NETWORKS
from ser_jax.systems.svm import SVM
from ser_jax.systems.system import System

SYSTEMS: dict[str, System] = {
    **dict.fromkeys(NETWORKS, NetworkSystem()),
    "wav2vec2": FineTunedSystem(),
    "svm": FittedSystem(SVM),
    "hmm": FittedSystem(HMM),
}


_OWN = NetworkSystem()


def find_system(name: str) -> System:
    """The system called `name`; for MODULE:CLASS that of networks."""
    return SYSTEMS.get(name, _OWN)


def find_network_system(name: str) -> NetworkSystem:
    """The system of a name that is known to be a network."""
    system = find_system(name)
    assert isinstance(system, NetworkSystem)
    return system
