"""Function calls that are carried out: a world with state, checks of arguments, matches with what was asked."""
