"""Container networks: bridges, macvlan and ipvlan, IPAM, published ports, DNS and the firewall."""

from jaula.network.manager import NetworkManager
from jaula.network.network_table import BRIDGE
from jaula.network.port_mapper import PortRequest, PortUnavailable

__all__ = ["BRIDGE", "NetworkManager", "PortRequest", "PortUnavailable"]
