"""seccomp(2): profiles of system calls and their compiler to BPF."""
