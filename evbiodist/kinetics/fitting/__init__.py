"""Parameters from data: search, lmfit, intervals, identifiability, choice between models."""
