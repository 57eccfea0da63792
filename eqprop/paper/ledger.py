"""What a reproduction has measured, spent and decided: ``progress.json`` in its directory.

A budget is shared out once. Whatever is killed afterwards, the same request finds the same shares.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from eqprop.errors import EqpropError
from eqprop.paper.budget import Share
from eqprop.paper.pace import Pace
from eqprop.training.runs import write_whole

_FILE = "progress.json"


@final
class Ledger:
    """The file, with every change written at once; paces outlive the request they were taken for.

    ``request`` is what shares depend on, as JSON has it. Raises ``EqpropError`` for a damaged file.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        self._path = folder / _FILE
        found = self._read()
        kept = {name: found.get(name, {}) for name in ("paces", "unfit")}
        fresh = {"request": dict(request), "spent": 0.0, **kept}
        self._content = found if found.get("request") == request else fresh

    @property
    def spent(self) -> float:
        """Seconds that verifying and timing have taken for this request."""
        return self._content["spent"]

    def spend(self, seconds: float) -> None:
        """Adds to what was spent."""
        self._write("spent", self.spent + seconds)

    @property
    def unfit(self) -> Mapping[str, str]:
        """Why some trainings cannot be, by name."""
        return self._content["unfit"]

    def refuse(self, name: str, reason: str) -> None:
        """Notes that a training cannot be."""
        self._write("unfit", {**self.unfit, name: reason})

    def pace(self, name: str) -> Pace | None:
        """That of a training, if it was measured."""
        found = self._content["paces"].get(name)
        return found and Pace(**found)

    def set_pace(self, name: str, pace: Pace) -> None:
        """Notes the pace of a training."""
        self._write("paces", {**self._content["paces"], name: dataclasses.asdict(pace)})

    @property
    def shares(self) -> dict[str, Share] | None:
        """What was decided for this request, if it was."""
        found = self._content.get("shares")
        return found and {name: Share(*share) for name, share in found.items()}

    def decide(self, shares: Mapping[str, Share]) -> None:
        """Notes how much of each training to do."""
        self._write("shares", {name: dataclasses.astuple(share) for name, share in shares.items()})

    def _write(self, name: str, value: Any) -> None:
        self._content[name] = value
        write_whole(self._path, json.dumps(self._content, indent=2) + "\n")

    def _read(self) -> dict[str, Any]:
        if not self._path.exists():
            return {}
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EqpropError(
                f"{self._path} is damaged ({error}): delete it, and no training is lost"
            ) from error
