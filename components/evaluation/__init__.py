"""What an evaluation measures: win rates and their intervals, parts of scores, benchmarks."""
