"""What crosses a border (files, sockets, the API): typed documents, and Docker's words. No I/O."""
