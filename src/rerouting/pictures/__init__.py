"""Pictures by reference: files, and those that the package draws or writes itself. Nothing here needs torch."""
