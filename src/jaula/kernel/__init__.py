"""One module per kernel facility, with the kernel's names; raises ``OSError``, decides nothing."""
