"""The seam between methods and machines: a fleet runs tasks on its sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, runtime_checkable

from sheaf.core.task import Absence, Task, Update
from sheaf.core.tensor_file import Blob


class Fleet(Protocol):
    """The sites of a run. The only seam between methods and machines."""

    def names(self) -> tuple[str, ...]:
        """Return the sites in the fixed order in which sums run."""
        ...

    def run(
        self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None
    ) -> Iterator[Update | Absence]:
        """Run the tasks and yield the answers as they arrive, in any order.

        A site that is lost or too slow gives an ``Absence`` in place of its answer.

        Args:
            tasks: site -> its task.
            call: all tasks of the call, if a resumed run has already answers to some of them. ``tasks`` by
                default.
        """
        ...


@runtime_checkable
class ReplayedFleet(Fleet, Protocol):
    """A fleet whose sites lose their state with this process: a resumed run replays their calls."""

    def replay(self, tasks: Mapping[str, Task], trained: Callable[[str], Blob]) -> None:
        """Let the sites hold what they held after these tasks, which the journal has the answers to.

        Args:
            tasks: site -> its task.
            trained: site -> the model that its train task gave, trained again when it is opened.
        """
        ...

    def train_again(self, tasks: Mapping[str, Task]) -> dict[str, Blob]:
        """Return the models that the train tasks of one call gave. The sites hold what they held."""
        ...
