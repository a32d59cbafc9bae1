"""One self-contained HTML page of one or several runs: what was found, what it cost, how to repeat it."""
