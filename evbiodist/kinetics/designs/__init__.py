"""Few samples an animal: serial sacrifice, batch designs, ratios of areas, resampling."""
