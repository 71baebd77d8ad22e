"""``jaula check``: kernel features, by probing and by the kernel's configuration."""
