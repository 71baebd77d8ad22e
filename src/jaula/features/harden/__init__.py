"""``jaula harden``: the least that a container needs, from records or from its image."""
