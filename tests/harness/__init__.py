"""Fixtures for tests of a whole engine: private engines, their images, and checks for leaks."""
