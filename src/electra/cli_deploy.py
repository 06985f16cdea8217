"""The verbs that take a model to production: `serve`, `export`, `bench`. Everything heavy is imported inside the verb."""
