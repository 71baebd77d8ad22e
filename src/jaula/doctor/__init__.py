"""What on this host hinders an engine, and the command that mends it: ``jaula doctor``."""
