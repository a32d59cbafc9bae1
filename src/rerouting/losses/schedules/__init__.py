"""How the two losses are weighted: `progress -> (reroute coefficient, retain coefficient)`.

Progress is `step / max_steps` with steps counted from 1, so it is in (0, 1]. A schedule that also
has `observe`, `state` and `restore` (`holding`) is told each step's mean relative retain distance, and its state
is kept in the checkpoints.
"""
