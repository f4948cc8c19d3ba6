"""The ground floor: schemas of what a user writes, readers that refuse what is ambiguous, and errors."""
