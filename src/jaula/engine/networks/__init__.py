"""Networks of containers: use cases, endpoints, links, DNS."""
