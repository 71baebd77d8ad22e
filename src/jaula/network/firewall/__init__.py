"""nftables rules of an engine's bridges."""
