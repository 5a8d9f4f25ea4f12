"""Non-compartmental analysis: one dose, several, excretion and tissue."""
