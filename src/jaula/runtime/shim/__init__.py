"""The shim: parent of a container's processes, owner of their stdio, and its event loop."""
