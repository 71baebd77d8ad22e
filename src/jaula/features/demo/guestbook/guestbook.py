"""A guestbook: entries in PostgreSQL, served over HTTP on port 8080."""

from __future__ import annotations

import html
import http.server
import os
import time
import urllib.parse

import psycopg2  # type: ignore[import-untyped]


def connect() -> psycopg2.extensions.connection:
    """Return a connection to the database; wait while it starts."""
    while True:
        try:
            return psycopg2.connect(
                host=os.environ["DATABASE"], dbname="postgres", user="guestbook"
            )
        except psycopg2.OperationalError as error:
            print("the database does not answer yet:", error, flush=True)
            time.sleep(0.5)


class Handler(http.server.BaseHTTPRequestHandler):
    """GET lists the entries, POST adds one."""

    def do_GET(self) -> None:
        with database, database.cursor() as cursor:
            cursor.execute("SELECT entry FROM guestbook ORDER BY id")
            rows = "".join(f"<li>{html.escape(entry)}</li>" for (entry,) in cursor)
        self.answer(200, f"<h1>Guestbook</h1><ul>{rows}</ul>\n")

    def do_POST(self) -> None:
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        with database, database.cursor() as cursor:
            cursor.execute("INSERT INTO guestbook (entry) VALUES (%s)", (form["entry"][0],))
        self.answer(201, "added\n")

    def answer(self, status: int, body: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


database = connect()
with database, database.cursor() as cursor:
    cursor.execute(
        "CREATE TABLE IF NOT EXISTS guestbook (id serial PRIMARY KEY, entry text NOT NULL)"
    )
print("serving on port 8080", flush=True)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
