"""What the engine must still know after it was killed: records in one sqlite database."""
