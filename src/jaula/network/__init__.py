"""The network of containers: a bridge, addresses, published ports, a firewall."""

from jaula.network.manager import NetworkManager
from jaula.network.ports import PortRequest
from jaula.network.reservations import PortUnavailable
from jaula.network.segments import BRIDGE

__all__ = ["BRIDGE", "NetworkManager", "PortRequest", "PortUnavailable"]
