"""Each attack in its short form: the calls beside it must not notice."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import attacks
from benchmarks.attacks.stage import ATTACKS, Limits, Scale, Stage

__all__ = ["AttackTests"]

slow = True
ATTEMPTS = 2
attacks.load()


class AttackTests(SynchronousTestCase):
    """One server, some calls, and an attack. The tests are made of the registered attacks, such as
    ``test_pipelining``."""

    def attack(self, name: str) -> None:
        """Nothing may be wrong, in one of two attempts: what else runs on the machine makes frames late, too.

        Delays and losses count only while the machine has time for the generator itself.
        """
        for attempt in range(ATTEMPTS):
            stage = Stage(Path(f"{self.mktemp()}-{attempt}").absolute(), Scale.short(), Limits.short())
            figures = stage.run(ATTACKS[name])
            if stage.counts and not stage.wrong:
                return
        self.assertEqual(stage.wrong, [], (figures, stage.found))


def _add_test(name: str) -> None:
    def test(self: AttackTests) -> None:
        self.attack(name)

    test.__doc__ = ATTACKS[name].done
    setattr(AttackTests, f"test_{name.replace('-', '_')}", test)


for _name in ATTACKS:
    _add_test(_name)
