"""``jaula check``: kernel features, by probes and by the kernel's configuration."""
