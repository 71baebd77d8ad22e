"""The loader of the programs that count refusals, a process of its own.

It loads and attaches the programs, sends the descriptors of their tables and links to the engine
over its standard input, and exits. libbpf and the kernel's types take tens of megabytes for a
moment, which the engine does not need. The programs stay attached while the engine has the links.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from importlib import resources

from jaula.errors import JaulaError, Unsupported
from jaula.features.record import libbpf
from jaula.features.record.libbpf import BTF

LANDLOCK = "landlock"
_LANDLOCK_FUNCTION = b"\0landlock_log_denial\0"  # Linux 6.15


def main() -> int:
    """Load the programs for the engine at the other end of standard input."""
    with socket.socket(fileno=os.dup(0)) as engine:
        try:
            bpf, links = attach()
        except JaulaError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        layers = ",".join(links).encode()
        descriptors = [bpf.maps["counts"].fd, bpf.maps["lost"].fd, *links.values()]
        socket.send_fds(engine, [layers], descriptors)
    return 0


def attach() -> tuple[libbpf.BpfObject, dict[str, int]]:
    """Attach the programs, and return the descriptors of their links by layer.

    :raises Unsupported: when this host cannot run them.
    """
    if platform.machine() != "x86_64":
        raise Unsupported(f"the eBPF programs do not run on {platform.machine()}, only on x86_64")
    try:
        with open(BTF, "rb") as file:
            types = file.read()
    except OSError:
        raise Unsupported(
            f"this kernel has no {BTF}", hint="it needs CONFIG_DEBUG_INFO_BTF"
        ) from None
    names = ["seccomp", *([LANDLOCK] if _LANDLOCK_FUNCTION in types else [])]
    data = resources.files("jaula.features.why").joinpath("bpf/counts.bpf.o").read_bytes()
    bpf = libbpf.BpfObject(data)
    try:
        if LANDLOCK in names:
            bpf.enable(LANDLOCK)
        bpf.load()
        return bpf, {name: bpf.attach(name) for name in names}
    except OSError as error:
        bpf.close()
        raise Unsupported(
            f"this kernel does not run the eBPF programs: {error.strerror}",
            hint="they need root, BTF, CONFIG_FUNCTION_TRACER and Linux 6.1",
        ) from None


if __name__ == "__main__":
    sys.exit(main())
