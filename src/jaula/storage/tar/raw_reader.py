"""Read a tar archive together with the bytes that are not contents of files.

The bytes before each entry are the padding of the entry before it, its extended headers and its
header. Together with the contents of the regular files they are the archive, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.errors import InvalidRequest
from jaula.storage.tar.pax import parse_records
from jaula.storage.tar.tar_entry import BLOCK, TarEntry
from jaula.storage.tar.tar_reader import TarReader

_SKIP_LIMIT = 1 << 21  # bytes: more than the limit of an extended header


class RawTarReader(TarReader):
    """Iterates over the entries. The caller reads all data of an entry before the next one.

    ``header`` is the header block of the present entry. ``records`` are those of its pax header.
    ``extended_types`` are the types of its extended headers, in their order.
    """

    header = b""
    records: dict[bytes, bytes] = {}
    extended_types = b""
    _raw = b""

    def take_raw(self) -> bytes:
        """Return the bytes since the last call that are not data of a regular file."""
        raw, self._raw = self._raw, b""
        return raw

    def next(self) -> TarEntry | None:
        """Return the next entry, None at the end; then the raw bytes have the end of the archive.

        That is at most two blocks of zeros. :meth:`tail` yields the bytes after them.
        """
        self.records, self.extended_types = {}, b""
        return super().next()

    def tail(self) -> Iterator[memoryview]:
        """Yield the bytes after the end of the archive. A chunk is valid until the next one."""
        while self._fill(1):
            chunk = self._window[self._position : self._end]
            self._position = self._end
            yield chunk

    def _skip(self, count: int, *, needed: bool = True) -> None:
        if count > _SKIP_LIMIT:
            raise InvalidRequest(f"an entry that is not a regular file has {count} bytes of data")
        while count:
            step = min(self._fill(min(count, BLOCK)), count, BLOCK)
            if step:
                self._raw += bytes(self._window[self._position : self._position + step])
            super()._skip(step or count, needed=needed)  # raises, or nothing is left
            if not step:
                return
            count -= step

    def _extended(self, entry: TarEntry) -> bytes:
        data = super()._extended(entry)
        self.extended_types += bytes((entry.type,))
        if entry.type == ord("x"):
            self.records = parse_records(data)
        return data

    def _header(self) -> TarEntry | None:
        start = self.offset
        available = min(self._fill(BLOCK), BLOCK)
        self.header = bytes(self._window[self._position : self._position + available])
        entry = super()._header()
        # The end of an archive is one or two blocks, all zeros.
        self._raw += self.header if entry is not None else bytes(self.offset - start)
        return entry
