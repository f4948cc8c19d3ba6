"""What a run would take: GPU hours, memory, storage and money."""
