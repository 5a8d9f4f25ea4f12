"""Straight lines and maps: Patlak, Logan, multiple-time regression, voxel by voxel."""
