"""Labels: records, their one store, how people give them, and how they become preferences."""
