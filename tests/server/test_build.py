"""What a server is made of, and what is checked without making one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted import Assistant, CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.server.build import RapidaMedia, check_settings, make_supervisor
from rapida_twisted.settings import Settings
from rapida_twisted.store.memory import MemoryStore
from tests.store.store_tests import context


class Silent(Assistant):
    """Says nothing."""


class Named(Assistant):
    """Knows its call."""

    def __init__(self, context: CallContext) -> None:
        self.context = context


class BuildTests(SynchronousTestCase):
    """Settings, and objects in place of what they name."""

    def settings(self, **values: str) -> Settings:
        """Settings with a state directory that does not exist yet."""
        self.state_dir = Path(self.mktemp()).absolute()
        return Settings.from_mapping({"STATE_DIR": str(self.state_dir), "STORE__URL": "memory:", **values})

    def test_objects(self) -> None:
        """A store, and assistants as a class, a function and a name, take the place of those in the settings."""
        store = MemoryStore()
        given: dict[str, Any] = {"1": Silent, "2": Named, "3": lambda: Silent(), "4": "echo"}
        server = RapidaMedia(self.settings(ASSISTANT="5=echo"), reactor=Clock(), store=store, assistants=given)
        assistants = server.components.assistants
        self.assertEqual(assistants.ids, ("1", "2", "3", "4"))
        for assistant_id in ("1", "3"):
            self.assertIsInstance(assistants.make(context(assistant_id=assistant_id)), Silent)
        call = context(assistant_id="2")
        self.assertIs(assistants.make(call).context, call)  # type: ignore[attr-defined]
        self.assertEqual(server.components.store.owner, store.owner)

    def test_no_assistant(self) -> None:
        """What can't be an assistant is refused with its name."""
        error = self.assertRaises(
            SettingsError, RapidaMedia, self.settings(), reactor=Clock(), assistants={"1": SynchronousTestCase}
        )
        self.assertIn("'SynchronousTestCase' is no assistant", str(error))

    def test_global_reactor(self) -> None:
        """Without a reactor it is the global one."""
        from twisted.internet import reactor

        self.assertIs(RapidaMedia(self.settings()).reactor, reactor)

    def test_nothing_is_opened(self) -> None:
        """Making a server, or checking its settings, touches no file."""
        RapidaMedia(self.settings(STORE__URL="sqlite:"), reactor=Clock())
        self.assertFalse(self.state_dir.exists())
        self.assertEqual(
            check_settings(self.settings(ASSISTANT="7=echo,*=greeter", STORE__URL="sqlite:"), Clock()).assistants.ids,
            ("7", "*"),
        )
        self.assertFalse(self.state_dir.exists())

    def test_check(self) -> None:
        """Whatever would stop each worker stops the supervisor first."""
        for values in (
            {"ASSISTANT": "*=nobody"},
            {"ASSISTANT": "*=bridge"},
            {"STORE__URL": "mysql://x"},
            {"TRANSFER__ALLOW": "200"},
            {"TLS__CA_FILE": "/nowhere.pem"},
            {"VAULT__MASTER_KEY": "no-key"},
        ):
            settings = self.settings(**{"WORKERS": "2", "STORE__URL": "sqlite:", **values})
            self.assertRaises(SettingsError, make_supervisor, settings, Clock())
            self.assertRaises(SettingsError, RapidaMedia, settings, reactor=Clock())
