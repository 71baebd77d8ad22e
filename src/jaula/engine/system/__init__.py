"""The engine itself: identity, info, disk usage, AppArmor profile."""
