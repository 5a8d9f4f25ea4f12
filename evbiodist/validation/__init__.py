"""Evidence on the user's own machine: outside numbers computed again, in a dated report."""
