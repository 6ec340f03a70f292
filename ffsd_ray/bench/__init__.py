"""Measuring the training step."""
