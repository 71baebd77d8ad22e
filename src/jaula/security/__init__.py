"""What a process may do beyond its namespaces: tables and decisions, carried out by the runtime."""
