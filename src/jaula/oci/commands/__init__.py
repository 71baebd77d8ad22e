"""Commands of the OCI runtime, one file each; ``run(call)`` gives the exit status."""
