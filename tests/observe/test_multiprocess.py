"""Several processes of one machine: each answers for all, and what was true of a dead one is true no more."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.observe.multiprocess import forget_process, prepare_shared
from tests.support.twistd_program import Program, wait_for

slow = True  # starts processes: see tests/support/selection.py

UP = 'rapida_calls{assistant="*",transport="audiosocket"}'
STARTED = 'rapida_calls_started_total{assistant="*",transport="audiosocket"}'
SETUPS = 'rapida_call_setup_seconds_count{direction="inbound",transport="audiosocket"}'


WITHOUT = """
import sys

sys.modules["prometheus_client"] = None
"""


class OneServerTests(SynchronousTestCase):
    """A real server by itself."""

    def test_without_the_library(self) -> None:
        """Calls are answered as ever; /metrics says what is missing, to those who have a key."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(WITHOUT)
        program = Program(self, folder, environment={"PYTHONPATH": str(folder)})
        program.wait_until_up()
        said, _ = program.phone("--duration", "1").communicate(timeout=30)
        self.assertIn("caller_hangup", program.said(), said)
        status, body = program.ask("/metrics")
        self.assertEqual(status, 501)
        self.assertIn("install prometheus-client", body)
        self.assertEqual(program.ask("/metrics", key="")[0], 401)

    def test_public(self) -> None:
        """With METRICS__PUBLIC=true no key is needed for the figures; for the calls it still is."""
        program = Program(self, Path(self.mktemp()).absolute(), environment={"METRICS__PUBLIC": "true"})
        program.wait_until_up()
        status, body = program.ask("/metrics", key="")
        self.assertEqual(status, 200)
        self.assertIn("rapida_build_info", body)
        self.assertEqual(program.ask("/v1/calls", key="")[0], 401)

    def test_no_directory(self) -> None:
        """A directory to share figures in that is not there is one sentence."""
        folder = Path(self.mktemp()).absolute()
        program = Program(self, folder, environment={"PROMETHEUS_MULTIPROC_DIR": "/no/such"})
        self.assertEqual(program.process.wait(30), 1)
        self.assertEqual(
            program.said().strip(), "rapida-media: PROMETHEUS_MULTIPROC_DIR: there is no directory /no/such"
        )


class SharedTests(SynchronousTestCase):
    """Two real processes that share a directory, as the children of one parent do."""

    def test_one_answers_for_both(self) -> None:
        """Calls at both are in either's answer; when one is killed, its calls are gone and its counts stay."""
        shared = Path(self.mktemp()).absolute()
        environment = prepare_shared(shared)
        programs = [
            Program(self, shared.parent / f"{shared.name}-{number}", environment=environment) for number in (1, 2)
        ]
        for program in programs:
            program.wait_until_up()
        phones = [
            programs[0].phone("--duration", "20", "--calls", "2"),
            programs[1].phone("--duration", "20"),
        ]
        for phone in phones:
            self.addCleanup(phone.wait)
            self.addCleanup(phone.kill)
            assert phone.stdout is not None
            self.addCleanup(phone.stdout.close)
        for program in programs:
            wait_for(lambda program=program: program.samples().get(UP) == 3, program.said)  # type: ignore[misc]
            samples = program.samples()
            self.assertEqual((samples[STARTED], samples[SETUPS]), (3, 3))
            memory = [name for name in samples if name.startswith("process_resident_memory_bytes")]
            self.assertEqual(len(memory), 2, memory)
        dead = programs[0].process
        dead.kill()
        dead.wait()
        # Nobody has told that it is dead.
        self.assertEqual(programs[1].samples()[UP], 3)
        forget_process(shared, dead.pid)
        wait_for(lambda: programs[1].samples()[UP] == 1, programs[1].said, 10)
        samples = programs[1].samples()
        self.assertEqual(samples[STARTED], 3)
        self.assertNotIn(f'process_resident_memory_bytes{{pid="{dead.pid}"}}', samples)

    def test_prepared_again(self) -> None:
        """A parent that starts anew does not count what a former one's children have counted."""
        shared = Path(self.mktemp())
        prepare_shared(shared)
        (shared / "counter_17.db").write_bytes(b"")
        (shared / "README").write_bytes(b"")
        prepare_shared(shared)
        self.assertEqual([file.name for file in shared.iterdir()], ["README"])
