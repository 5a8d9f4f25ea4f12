"""Frames to organ signals: noise, segmentation, footprints and the one estimator."""
