"""Storage drivers: overlay, btrfs, vfs."""
