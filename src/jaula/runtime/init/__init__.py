"""The container's init: build the root, drop privileges, execute the program."""
