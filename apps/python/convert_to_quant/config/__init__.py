"""Choices per layer."""
