"""Kernels: they run step programs, knowing no cell and no Module."""
