"""Live migration of containers between two engines."""
