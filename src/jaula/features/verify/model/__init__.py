"""Values of an audit: containers, host snapshot, checks, results."""
