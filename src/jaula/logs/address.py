"""Addresses of log servers, and which of them belong to the host. Pure.

Source: docker docs "Syslog logging driver", "Fluentd logging driver" and "Graylog Extended Format
logging driver" for ``syslog-address``, ``fluentd-address`` and ``gelf-address``.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest

LOCAL = "/dev/log"
TLS = "tcp+tls"
_SCHEMES = ("tcp", TLS, "udp", "unix", "unixgram")
_MAX_PATH = 107  # bytes of sun_path without its zero, unix(7)


class LogAddress(msgspec.Struct, frozen=True):
    """A server: ``scheme`` is unixgram, unix, udp, tcp or tcp+tls; ``address`` a path or host:port.

    The default is syslog's. Its text is the same for all spellings of an address.
    """

    scheme: str = "unixgram"
    address: str = LOCAL

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"

    @property
    def stream(self) -> bool:
        """Whether messages are sent on a stream socket."""
        return self.scheme in ("tcp", TLS, "unix")

    @property
    def socket(self) -> bool:
        """Whether the address is the path of a unix socket."""
        return self.scheme.startswith("unix")

    @property
    def host(self) -> str:
        """The host name or IP address, empty for a unix socket."""
        return "" if self.socket else self.address.rpartition(":")[0]

    @property
    def of_host(self) -> bool:
        """Whether the server is the host's: a socket other than the default, or an IP address.

        A name that has to be resolved is not judged here; ``named`` is true for it.
        """
        from jaula.spec import host_address

        if self.socket:
            return self.address != LOCAL
        if host_address.is_host_name(self.host):
            return True
        try:
            return host_address.is_host_address(self.host)
        except ValueError:
            return False

    @property
    def named(self) -> bool:
        """Whether only a name server, or the C library, knows the IP address."""
        import ipaddress

        if self.socket:
            return False
        try:
            ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return True
        return False


def parse(text: str) -> LogAddress:
    """Parse an address with a scheme; empty text is the default socket of syslog.

    :raises InvalidRequest: when it is not valid.
    """
    if not text:
        return LogAddress()
    scheme, separator, address = text.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise InvalidRequest(
            f"invalid log address {text!r}",
            hint="unix:///dev/log, unixgram:///dev/log, udp://host:514, tcp://host:514 or"
            " tcp+tls://host:6514",
        )
    if scheme.startswith("unix"):
        if not address.startswith("/") or len(address) > _MAX_PATH:
            raise InvalidRequest(f"log address {text!r} has no valid socket path")
        return LogAddress(scheme, address)
    host, _, port = address.rpartition(":")
    if not host or host.endswith(":"):
        host, port = address, "6514" if scheme == TLS else "514"
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidRequest(f"log address {text!r} has no valid port")
    return LogAddress(scheme, f"{host.strip('[]')}:{int(port)}")
