"""``jaula debug``: a toolbox beside a container."""
