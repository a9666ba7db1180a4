"""Fitting on Lightning: checkpoints, resuming, run folders and reports. Knows no task."""
