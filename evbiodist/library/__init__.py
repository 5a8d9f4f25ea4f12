"""Many studies in one place: added once, kept by version, queried, pooled and handed on to machine learning."""
