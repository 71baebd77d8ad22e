"""The network of containers: a bridge, addresses, published ports, a firewall."""

from jaula.network.manager import NetworkManager
from jaula.network.networks import BRIDGE
from jaula.network.ports.allocator import PortUnavailable
from jaula.network.ports.port import PortRequest

__all__ = ["BRIDGE", "NetworkManager", "PortRequest", "PortUnavailable"]
