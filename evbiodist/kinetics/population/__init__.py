"""Animals as a population: two-stage and mixed effects."""
