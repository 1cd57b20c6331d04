"""The engine: recipe, devices, state and `Model.fit` of any task.

It knows no loss, no classes and no boxes: a `Task` brings them.
"""
