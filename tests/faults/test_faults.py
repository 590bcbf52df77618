"""Each fault in a short form."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.programs import not_tested
from benchmarks.injections import bots, inputs, peers, processes, soak, stores
from benchmarks.injections.scene import FAULTS, Scale, Scene

__all__ = ["FaultTests"]


class FaultTests(SynchronousTestCase):
    """One server, some calls, and a fault."""

    def inject(self, name: str) -> None:
        """Nothing may be wrong."""
        with Scene(Path(self.mktemp()).absolute(), Scale.short()) as scene:
            try:
                FAULTS[name].run(scene)
            except PermissionError as error:
                not_tested(str(error))
            self.assertEqual(scene.wrong, [], scene.found)

    def test_half_open(self) -> None:
        """Connections that say nothing."""
        self.inject("half-open")

    def test_peer_does_not_read(self) -> None:
        """Peers that never read."""
        self.inject("peer-does-not-read")

    def test_peer_too_fast(self) -> None:
        """Peers that send too fast."""
        self.inject("peer-too-fast")

    def test_garbage(self) -> None:
        """Garbage on every port."""
        self.inject("garbage")

    def test_disk_full(self) -> None:
        """No room for the store."""
        self.inject("disk-full")

    def test_descriptors_exhausted(self) -> None:
        """No file descriptor left."""
        self.inject("descriptors-exhausted")

    def test_worker_killed(self) -> None:
        """SIGKILL of a worker."""
        self.inject("worker-killed")

    def test_worker_hung(self) -> None:
        """An assistant that blocks one of two workers."""
        self.inject("worker-hung")

    def test_runaway_assistant(self) -> None:
        """An assistant that ignores the end of its call."""
        self.inject("runaway-assistant")

    def test_leaking_assistant(self) -> None:
        """An assistant that awaits nothing of what it begins."""
        self.inject("leaking-assistant")

    def test_blocking_assistant(self) -> None:
        """An assistant that blocks the reactor."""
        self.inject("blocking-assistant")

    def test_soak(self) -> None:
        """Calls that come and go."""
        self.inject("soak")

    def test_any_input(self) -> None:
        """Any bytes through the codecs."""
        self.inject("any-input")

    def test_short_forms(self) -> None:
        """Every fault with a short form is here."""
        names = {f"test_{name.replace('-', '_')}" for name, fault in FAULTS.items() if fault.short}
        self.assertEqual(names - set(dir(self)), set(), (bots, inputs, peers, processes, soak, stores))
