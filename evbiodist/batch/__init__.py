"""Whole studies: pipeline, store (atomic, resumable) and engine (local processes)."""
