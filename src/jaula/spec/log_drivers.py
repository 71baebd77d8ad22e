"""The log drivers: one row each. A driver that sends is its module and its row, and nothing else.

The module is :mod:`jaula.logs.drivers` with the driver's name. It has ``check`` and
``open_writer``; with an address also ``parse_address``. The client imports this table, so it is
light.
"""

from __future__ import annotations


class LogDriver:
    """One driver.

    ``sends``: it sends to a server, which reads nothing back, and writes the container's identity.
    ``address``: the option with the address of its server. ``needs_address``: the driver has a
    default address that is the host's. ``labels``: labels and variables of the container are sent
    too; ``origin``: its image, command and time of creation as well.
    """

    __slots__ = ("address", "labels", "name", "needs_address", "origin", "sends")

    def __init__(
        self,
        name: str,
        *,
        sends: bool = False,
        address: str = "",
        needs_address: bool = False,
        labels: bool = False,
        origin: bool = False,
    ) -> None:
        self.name = name
        self.sends = sends
        self.address = address
        self.needs_address = needs_address
        self.labels = labels
        self.origin = origin

    @property
    def module(self) -> str:
        """The name of the driver's module."""
        return "jaula.logs.drivers." + self.name.replace("-", "_")


DRIVERS = (
    LogDriver("json-file"),
    LogDriver("local"),
    LogDriver("journald", sends=True),
    LogDriver("syslog", sends=True, address="syslog-address"),
    LogDriver("fluentd", sends=True, address="fluentd-address", needs_address=True, labels=True),
    LogDriver("gelf", sends=True, address="gelf-address", labels=True, origin=True),
    LogDriver("none"),
)
NAMES = tuple(driver.name for driver in DRIVERS)
SENDING = tuple(driver.name for driver in DRIVERS if driver.sends)
BY_NAME = {driver.name: driver for driver in DRIVERS}
