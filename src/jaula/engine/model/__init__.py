"""Values and rules that every use case of the engine shares."""
