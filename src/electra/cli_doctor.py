"""The verb that looks at the machine: `doctor`. Everything heavy is imported inside the verb."""
