"""``jaula verify`` and ``jaula tree``: the isolation in effect, read from the kernel."""
