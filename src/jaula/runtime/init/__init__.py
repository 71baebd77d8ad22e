"""Init of a container: the steps between clone3(2) and execve(2) of the user's program."""
