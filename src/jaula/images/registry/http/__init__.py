"""HTTP to registries: connections, proxies, certificates, URLs."""
