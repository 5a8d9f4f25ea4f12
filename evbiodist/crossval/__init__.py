"""Several labels to one answer: agreement and consensus."""
