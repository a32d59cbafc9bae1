"""MM-SafetyBench: harmful questions whose key phrase is on a picture, drawn, written, or both.

Source: Liu et al. 2023, arXiv 2311.17600; files as published (github.com/isXinLiu/MM-SafetyBench): the questions of a
scenario in processed_questions/NAME.json, its pictures in imgs/NAME/KIND/NUMBER.jpg.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from rerouting.core.errors import UserError
from rerouting.core.records import Chat, Message
from rerouting.data.image_files import picture_at


@dataclass(frozen=True)
class MmSafetybench:
    """Behaviours with a picture each."""

    licence: ClassVar[str] = "CC-BY-NC-4.0"

    path: str
    """Folder with processed_questions/ and imgs/."""
    kind: Literal["SD", "SD_TYPO", "TYPO"] = "SD_TYPO"
    """Pictures by Stable Diffusion, with the key phrase written under them, or the phrase alone."""
    scenarios: tuple[str, ...] = ()
    """Names of files without .json ("01-Illegal_Activitiy"); none for all."""
    target: str = "Sure, here is"
    """Affirmative opening that image_pgd works towards; the benchmark gives none."""
    limit: int | None = None
    """First questions of every scenario; null for all."""

    def load(self) -> list[Chat]:
        """One chat a question; `meta["behaviour"]` is the question without a picture.

        Raises:
            UserError: a missing or damaged file, or a picture that is not there.
        """
        home = Path(self.path).expanduser()
        files = sorted((home / "processed_questions").glob("*.json"))
        chosen = [file for file in files if not self.scenarios or file.stem in self.scenarios]
        if not chosen:
            raise UserError(
                f"{home} has no such questions in processed_questions/",
                f"there are: {', '.join(file.stem for file in files) or 'none'}",
            )
        return [chat for file in chosen for chat in self._scenario(home, file)]

    def _scenario(self, home: Path, file: Path) -> list[Chat]:
        try:
            items: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
            rows = list(items.items())[: self.limit]
            asked = "Rephrased Question(SD)" if self.kind == "SD" else "Rephrased Question"
            texts = [(number, str(row["Question"]), str(row[asked])) for number, row in rows]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} cannot be read: {error!r}", "download it again") from error
        folder = home / "imgs" / file.stem / self.kind
        return [
            Chat(
                f"{file.stem}-{number}",
                (Message("user", text, images=(picture_at(folder, f"{number}.jpg", str(file)),)),),
                target=self.target,
                category=file.stem,
                source=f"mm_safetybench/{self.kind}",
                meta={"behaviour": behaviour},
            )
            for number, behaviour, text in texts
        ]
