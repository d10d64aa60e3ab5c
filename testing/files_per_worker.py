"""Which worker process of pytest-xdist runs which tests."""

import contextlib
from collections.abc import Mapping

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController


class FilesPerWorker(LoadScopeScheduling):
    """A file stays in one worker process, and so do all files of a group (`groups`: file → group).

    A test during which a worker dies has failed. The other tests of its files run in another worker. pytest-xdist 3.8
    does this wrong in `loadscope`, `loadfile` and `loadgroup`, and a run with dead workers waits for ever:

    - It gives files back of which all tests have run. A worker that gets such a file is asked for no test at all, so it
      never says that it has done one, and only then it would get the next file.
    - It gives files to a worker that has just been started in the place of a dead one and does not know its tests yet.
      The error is swallowed, and so are the tests.
    - It runs the test again during which the worker died, so that one test kills all workers.
    """

    def __init__(self, config: pytest.Config, log: Producer, groups: Mapping[str, str]) -> None:
        super().__init__(config, log)
        self._groups = groups

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return self._groups.get(file, file)

    def remove_node(self, node: WorkerController) -> str | None:
        """Take `node`, which has ended or died, out. Returns the test that it was running."""
        if self.collection is None:  # What it has collected counts for nothing now.
            self.registered_collections.pop(node, None)
        left = {
            scope: {test: False for test, done in tests.items() if not done}
            for scope, tests in self.assigned_work.pop(node).items()
        }
        running = next((test for tests in left.values() for test in tests), None)
        for scope, tests in left.items():
            tests.pop(running, None)
            if tests:
                self.workqueue[scope] = tests
        for other in self.assigned_work:
            self._reschedule(other)
        return running

    def _reschedule(self, node: WorkerController) -> None:
        if node not in self.registered_collections:  # It gets its first tests when it knows them.
            return
        super()._reschedule(node)
        # A worker starts a test when it knows the one after it.
        while self.workqueue and not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            self._assign_work_unit(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        with contextlib.suppress(OSError):  # It is dead, and nobody has seen it yet: `remove_node` comes next.
            super()._assign_work_unit(node)
