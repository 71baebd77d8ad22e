"""Authentication at registries: challenges, tokens, stored credentials."""
