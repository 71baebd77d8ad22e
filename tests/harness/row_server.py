"""A server of many threads that inserts a row for each request, and answers with its number.

It opens the database for each request: SQLite writes to no database whose file has another inode
than when it was opened, as after a copy. Other threads check a table in memory that they change
under a lock. A failed check ends the server with status 1.
"""

from __future__ import annotations

import os
import socketserver
import sqlite3
import threading
import time

DATABASE = "/root/rows.db"
LOCK = threading.Lock()
TABLE = [0] * 64


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for _ in self.rfile:
            with LOCK, sqlite3.connect(DATABASE) as database:
                row = database.execute("insert into rows (time) values (?)", (time.time(),))
            database.close()
            self.wfile.write(f"{row.lastrowid}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def check(number: int) -> None:
    """Move a value through the table; its sum is always 0."""
    while True:
        with LOCK:
            TABLE[number] += 1
            TABLE[-1 - number] -= 1
            if sum(TABLE):
                os._exit(1)
        time.sleep(0.001)


with sqlite3.connect(DATABASE) as database:
    database.execute("create table rows (id integer primary key, time real)")
for each in range(8):
    threading.Thread(target=check, args=(each,), daemon=True).start()
Server(("0.0.0.0", 7000), Handler).serve_forever()
