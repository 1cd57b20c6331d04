"""Attention as pure functions of tensors."""
