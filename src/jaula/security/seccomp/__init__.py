"""System call filters: profiles and their compiler."""
