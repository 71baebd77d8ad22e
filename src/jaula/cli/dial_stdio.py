"""``jaula system dial-stdio``: connect standard input and output to the engine's socket."""

from __future__ import annotations

from _thread import start_new_thread
from posix import read

from jaula.cli.client.api_client import Client
from jaula.cli.client.http_client import MSG_NOSIGNAL
from jaula.cli.client.output_streams import write_all
from jaula.cli.command_parser import Command, Options
from jaula.cli.main import Settings

SHUT_WR = 1
READ = 65536


def run(options: Options) -> int:
    """Copy in both directions until the engine closes the connection."""
    connection = Client(Settings.host).connection().socket

    def copy_input() -> None:
        try:
            while data := read(0, READ):
                connection.sendall(data, MSG_NOSIGNAL)
            connection.shutdown(SHUT_WR)
        except OSError:
            return  # one end is closed; the other direction ends as well

    start_new_thread(copy_input, ())
    while data := connection.recv(READ):
        write_all(1, data)
    return 0


COMMAND = Command(
    "",
    "Proxy the stdio stream to the daemon connection",
    run,
    max_args=0,
    description="The command that '-H ssh://user@host' runs on the other host.",
    examples=(("Use an engine through ssh", "jaula -H ssh://admin@server ps"),),
    see_also=("context create",),
)
