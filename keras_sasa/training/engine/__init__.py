"""Runs a training of any task: recipe, devices, state, `Model.fit`."""
