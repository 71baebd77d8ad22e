"""``jaula audit``: controls of CIS and others."""
