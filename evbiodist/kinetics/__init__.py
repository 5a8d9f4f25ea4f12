"""Signals to parameters: non-compartmental analysis, rate graphs, fitting. Knows no pixels."""
