"""Measurements: cases as data, gated by the conformance tests, interleaved, with their spread."""
