"""``jaula system dial-stdio``: the engine's socket on standard input and output."""

from __future__ import annotations

from _thread import start_new_thread
from posix import read

from jaula.cli.client.client import Client
from jaula.cli.client.http import MSG_NOSIGNAL
from jaula.cli.client.stdcopy import write_all
from jaula.cli.command import Command, Options
from jaula.cli.main import Settings

SHUT_WR = 1
READ = 65536


def run(options: Options) -> int:
    """Carry bytes both ways until the engine hangs up."""
    connection = Client(Settings.host).connection().socket

    def inward() -> None:
        try:
            while data := read(0, READ):
                connection.sendall(data, MSG_NOSIGNAL)
            connection.shutdown(SHUT_WR)
        except OSError:
            return  # one side is gone, which the other direction notices

    start_new_thread(inward, ())
    while data := connection.recv(READ):
        write_all(1, data)
    return 0


COMMAND = Command(
    "",
    "Join the engine's socket to standard input and output",
    run,
    max_args=0,
    description="What `-H ssh://user@host` runs on the other host.",
    examples=(("Talk to an engine by ssh", "jaula -H ssh://admin@server ps"),),
    see_also=("context create",),
)
