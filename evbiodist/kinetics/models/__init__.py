"""Rate graphs: the one form of every model, the catalogue, and their solutions."""
