"""``jaula doctor``: problems of this host for an engine, and the commands that fix them."""
