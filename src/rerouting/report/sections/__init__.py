"""The page's sections, one file each: `section(runs, limits)` reads the files and returns what to show."""
