"""Network drivers: bridge, macvlan and ipvlan."""
