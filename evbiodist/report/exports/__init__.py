"""Results in the forms that other programs, archives and authorities take: a module a form, and their registry."""
