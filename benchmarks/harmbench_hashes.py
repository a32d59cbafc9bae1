"""Makes the hashes of HarmBench's test behaviours that `rerouting select` refuses (evaluation/harmbench_test_*.txt).

    python benchmarks/harmbench_hashes.py harmbench_test.json harmbench_behaviors_val.csv src/rerouting/evaluation

`harmbench_test.json` is the circuit-breaker authors' (240 behaviours, none about copyright). A contextual behaviour is
hashed with its context, and as "like" also without it, unless HarmBench has the same behaviour in its validation set.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rerouting.core.attempt import behaviour_of
from rerouting.core.records import Chat
from rerouting.data.sources.harmbench import Harmbench
from rerouting.evaluation.guarding import asked, fingerprint, likenesses


def hashes(test: list[Chat], validation: list[Chat]) -> dict[str, list[str]]:
    """Lines of the two files."""
    elsewhere = {mark for chat in validation for mark in likenesses(behaviour_of(chat), 0)}
    like = [mark for chat in test for mark in likenesses(asked(chat), 0)]
    alone = [mark for chat in test for mark in likenesses(behaviour_of(chat), 0) if mark not in elsewhere]
    return {"equal": [fingerprint(asked(chat)) for chat in test], "like": sorted({*like, *alone})}


if __name__ == "__main__":
    test, validation, folder = sys.argv[1:]
    for name, lines in hashes(Harmbench(test).load(), Harmbench(validation).load()).items():
        file = Path(folder) / f"harmbench_test_{name}.txt"
        file.write_text("\n".join(lines) + "\n")
        print(f"{file}: {len(lines)}")
