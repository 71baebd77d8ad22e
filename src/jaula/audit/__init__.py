"""What a person can check for themselves: the proof of a container, the host, the process tree."""
