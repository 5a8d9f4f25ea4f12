"""evbiodist."""
