"""The network of containers: a bridge, addresses, published ports, a firewall."""

from jaula.network.endpoint import Endpoint, PortBinding, PortRequest
from jaula.network.manager import BRIDGE, NetworkManager
from jaula.network.ports import PortUnavailable

__all__ = ["BRIDGE", "Endpoint", "NetworkManager", "PortBinding", "PortRequest", "PortUnavailable"]
