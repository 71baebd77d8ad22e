"""State that outlives the engine process: the database, the audit log and encrypted secrets."""
