"""``jaula edit``: change a container that exists."""
