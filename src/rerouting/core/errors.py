"""The one exception that reaches a user as plain text."""


class UserError(Exception):
    """Something the user can mend; printed without a traceback, exit status 2.

    Args:
        problem: what was given and what is wrong with it, in one line.
        fix: what to do about it, in one line.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(f"{problem} — {fix}" if fix else problem)
        self.problem, self.fix = problem, fix


class PassingError(UserError):
    """One that may be over when the same is run again, such as a full disk."""


class InUseError(PassingError):
    """Another process works on it."""
