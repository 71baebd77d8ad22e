"""Rules of common host firewalls that accept one port, as each program writes them.

Each function gets the accepted port, 0 for none, and loads its rules in the network namespace of
the calling thread. All other input is dropped, and so is forwarding, except for established
connections.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

Firewall = Callable[[int], None]


def _feed(program: str, text: str, *words: str) -> None:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs {program}")
    subprocess.run((path, *words), input=text, text=True, check=True, timeout=10)


def nftables(port: int) -> None:
    """Load a ruleset like Debian's nftables.conf, which filters output too."""
    opened = "".join(f"{protocol} dport {port} accept; " for protocol in ("tcp", "udp") if port)
    common = "iif lo accept; ct state established,related accept; "
    text = f"""
    flush table inet filter
    table inet filter {{
      chain input {{ type filter hook input priority filter; policy drop;
        {common} meta l4proto {{ icmp, icmpv6 }} accept; {opened}
      }}
      chain forward {{ type filter hook forward priority filter; policy drop;
        ct state established,related accept;
      }}
      chain output {{ type filter hook output priority filter; policy drop;
        oif lo accept; ct state established,related accept; meta l4proto {{ icmp, icmpv6 }} accept;
      }}
    }}
    """
    _feed("nft", "table inet filter {\n}\n" + text, "-f", "-")


def firewalld(port: int) -> None:
    """Load a zone of firewalld: it rejects by default, and checks IPv6 senders by route."""
    opened = "".join(f"{protocol} dport {port} accept\n" for protocol in ("tcp", "udp") if port)
    reject = "reject with icmpx admin-prohibited"
    text = f"""
    table inet firewalld {{
    }}
    delete table inet firewalld
    table inet firewalld {{
      chain mangle_PREROUTING {{
        type filter hook prerouting priority -140; policy accept;
      }}
      chain filter_PREROUTING {{
        type filter hook prerouting priority 10; policy accept;
        icmpv6 type {{ nd-router-advert, nd-neighbor-solicit }} accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
      }}
      chain filter_INPUT {{
        type filter hook input priority 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_IN_public
        {reject}
      }}
      chain filter_IN_public {{
        meta l4proto {{ icmp, ipv6-icmp }} accept
        {opened}
      }}
      chain filter_FORWARD {{
        type filter hook forward priority 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        {reject}
      }}
      chain filter_OUTPUT {{
        type filter hook output priority 10; policy accept;
        ct state {{ established, related }} accept
        oifname "lo" accept
      }}
    }}
    """
    _feed("nft", text, "-f", "-")


def _ufw(port: int, variant: str) -> None:
    """Load ufw's chains with the default deny, and one rule of a user."""
    for program, icmp in ((f"iptables-{variant}", "icmp"), (f"ip6tables-{variant}", "icmpv6")):
        six = icmp == "icmpv6"
        opened = "".join(
            f"-A ufw-user-input -p {protocol} --dport {port} -j ACCEPT\n"
            for protocol in ("tcp", "udp")
            if port
        )
        mine = "ufw6" if six else "ufw"
        text = f"""*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-before-forward - [0:0]
:ufw-before-output - [0:0]
:ufw-not-local - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A OUTPUT -j ufw-before-output
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-output -o lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-output -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p {icmp} -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -j DROP
-A ufw-before-input -j ufw-user-input
{opened}COMMIT
"""
        _feed(f"{program}-restore", text if not six else text.replace(mine, "ufw6"))


def ufw(port: int) -> None:
    """Load ufw's rules with iptables-nft."""
    _ufw(port, "nft")


def ufw_legacy(port: int) -> None:
    """Load ufw's rules with iptables-legacy, whose rules nft does not list."""
    _ufw(port, "legacy")


FIREWALLS: dict[str, Firewall] = {
    "nftables": nftables,
    "firewalld": firewalld,
    "ufw": ufw,
    "ufw, legacy iptables": ufw_legacy,
}
