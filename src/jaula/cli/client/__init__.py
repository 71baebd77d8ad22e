"""API client of the command line: endpoints, contexts, HTTP, streams."""
