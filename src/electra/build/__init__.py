"""The composition root: resolve a recipe, build what it names, run it. The one room that sees everything."""
