"""Escape tests of ``jaula verify --probe``, in a disposable copy of the container."""
