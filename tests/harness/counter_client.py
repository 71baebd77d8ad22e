"""The client of ``counter_server.c``: one connection, one request at a time, each answer checked.

Prints ``ready`` after its first answer. For a line ``answers`` of its input it prints how many it
has, when it waits for none. At any other line, the end of its input or a failure it prints a JSON
document: answers, the longest time between two of them in milliseconds, and the failure.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time


def main(address: str, port: int) -> None:
    answers, last, worst, failure = 0, 0, 0.0, ""
    try:
        with socket.create_connection((address, port), 10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(60)
            before = time.monotonic()
            while True:
                if select.select([sys.stdin], [], [], 0.0005)[0]:
                    if sys.stdin.readline() != "answers\n":
                        break
                    print(answers, flush=True)
                sock.sendall(b"INCR\n")
                text = sock.recv(64)
                now = time.monotonic()
                if not text:
                    raise ConnectionError("the server has closed the connection")
                number = int(text)
                if answers and number != last + 1:
                    raise ValueError(f"{number} after {last}")
                if not answers:
                    print("ready", flush=True)
                answers, last = answers + 1, number
                worst, before = max(worst, now - before), now
    except (OSError, ValueError) as error:
        failure = f"{type(error).__name__}: {error}"
    print(json.dumps({"answers": answers, "last": last, "worst": worst * 1000, "failure": failure}))


main(sys.argv[1], int(sys.argv[2]))
