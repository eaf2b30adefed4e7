"""AI judges: annotators that need no person, whose verdicts go into the same store as people's."""
