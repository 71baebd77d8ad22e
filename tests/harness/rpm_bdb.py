"""rpm's headers, and its oldest database (Berkeley DB's hash file) in two hands.

``written`` has it from the library itself, by perl's DB_File, which git's dependencies bring.
``made`` lays the pages out here: kinds the library no longer writes, and what it never would.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TAGS = {
    "name": 1000, "version": 1001, "release": 1002, "epoch": 1003, "summary": 1004,
    "vendor": 1011, "licence": 1014, "arch": 1022,
}  # fmt: skip
WRITER = r"""
use strict; use warnings; use DB_File; use Fcntl;
my ($path, $size, $order) = @ARGV;
my $info = DB_File::HASHINFO->new;
($info->{bsize}, $info->{lorder}) = ($size, $order);
my $db = tie my %all, 'DB_File', $path, O_CREAT | O_RDWR, 0644, $info or die "$path: $!";
while (<STDIN>) {
    my ($key, $value) = map { pack 'H*', $_ } split / /, $_ =~ s/\n//r, -1;
    die $! if defined $value ? $db->put($key, $value) : $db->del($key);
}
"""


def header(**values: str | int) -> bytes:
    """A header as rpm stores it, without its magic."""
    entries, store = b"", b""
    for name, value in values.items():
        if isinstance(value, int):
            store += b"\0" * (-len(store) % 4)
            entries += struct.pack(">IIiI", TAGS[name], 4, len(store), 1)
            store += struct.pack(">I", value)
        else:
            entries += struct.pack(">IIiI", TAGS[name], 6, len(store), 1)
            store += value.encode() + b"\0"
    return struct.pack(">II", len(values), len(store)) + entries + store


def written(
    path: Path,
    pairs: Sequence[tuple[int, bytes | None]],
    *,
    page_size: int = 4096,
    order: str = "<",
) -> Path:
    """Berkeley DB's own file: pairs put in this order; one without a value is taken out."""
    lines = [
        struct.pack(order + "I", number).hex() + ("" if value is None else f" {value.hex()}")
        for number, value in pairs
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    words = ["perl", "-e", WRITER, str(path), str(page_size), "1234" if order == "<" else "4321"]
    subprocess.run(words, input="\n".join(lines), text=True, check=True, timeout=60)
    return path


def made(
    pairs: Sequence[tuple[bytes, bytes]],
    *,
    page_size: int = 512,
    order: str = "<",
    version: int = 8,
    type: int = 2,
    buckets: int = 2,
    meta: Mapping[int, bytes] = {},
) -> bytearray:
    """A hash file of ours. Pairs go round the buckets; ``meta`` has bytes by their place in page 0.

    Pages: the first, one for each bucket, then those that they lead to as they were needed.
    """

    def page(number: int, following: int, items: int, filled: int, type: int) -> bytes:
        return struct.pack(order + "8xIIIHHBB", number, 0, following, items, filled, 0, type)

    pages: list[bytes] = [b""] * (1 + buckets)

    def item(content: bytes) -> bytes:
        room = page_size - 26
        if len(content) <= page_size // 4:
            return b"\1" + content
        first = len(pages)
        for start in range(0, len(content), room):
            piece, rest = content[start : start + room], len(content) > start + room
            number = len(pages)
            pages.append(page(number, number + 1 if rest else 0, 1, len(piece), 7) + piece)
        return struct.pack(order + "BxxxII", 3, first, len(content))

    def hash_page(number: int, following: int, items: Sequence[bytes]) -> bytes:
        starts, end = [], page_size
        for one in items:
            end -= len(one)
            starts.append(end)
        head = page(number, following, len(items), end & 0xFFFF, type)
        head += struct.pack(f"{order}{len(items)}H", *starts)
        return head.ljust(end, b"\xee") + b"".join(reversed(items))

    for bucket in range(buckets):
        number, items = 1 + bucket, list[bytes]()
        for key, value in pairs[bucket::buckets]:
            new = [item(key), item(value)]
            if 26 + sum(len(i) + 2 for i in items + new) > page_size:
                pages[number] = hash_page(number, len(pages), items)
                number, items = len(pages), []
                pages.append(b"")
            items += new
        pages[number] = hash_page(number, 0, items)
    first = bytearray(page_size)
    struct.pack_into(order + "IIIBBBBII", first, 12, 0x61561, version, page_size, 0, 8, 0, 0, 0,
                     len(pages) - 1)  # fmt: skip
    struct.pack_into(order + "I", first, 72, buckets - 1)
    struct.pack_into(order + "32I", first, 96, *[1] * 32)
    for place, content in meta.items():
        first[place : place + len(content)] = content
    return first + b"".join(content.ljust(page_size, b"\0") for content in pages[1:])
