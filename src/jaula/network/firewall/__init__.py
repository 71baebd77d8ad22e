"""nftables: run nft commands, and generate the rules of the engine's bridges."""
