"""The script that runs in an environment of its own is no test module."""

collect_ignore = ["validate_crate.py"]
