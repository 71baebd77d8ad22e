"""Remote build sources: ``ADD`` of a URL, git repositories."""
