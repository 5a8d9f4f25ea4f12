"""What was done: studies, subjects, doses, labels, scans, and the schemas of their tables."""
