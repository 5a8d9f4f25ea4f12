"""Results out: the HTML report with its figures, made from a result folder alone."""
