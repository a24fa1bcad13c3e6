"""What can be wrong with a pipeline: a module for each part of it, a generator for each kind of mistake."""
