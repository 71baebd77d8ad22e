"""``jaula verify --probe``: a disposable twin of a container tries what must fail."""
