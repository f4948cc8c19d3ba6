"""Named parts of a judge's scores, and groups of evaluation prompts: their means in `history` and in reports."""

PART = "part_"  # begins the names of a part's columns, in `history` and in rollouts
ENDINGS = ("_low", "_high", "_reference")  # tell the columns of one part in `history` apart; no part's name has one
