"""The dialplan's text, for each transport."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import unquote

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.dialplan import (
    PUBLIC_CA_FILE,
    DialplanValues,
    audiosocket_dialplan,
    audiosocket_outbound_dialplan,
    freepbx_dialplan,
    stasis_dialplan,
    websocket_client_conf,
    websocket_dialplan,
    websocket_outbound_dialplan,
)

VALUES = DialplanValues("rpd-0123-_abc", "http://pbx.example:8080", "pbx.example", 4573, "123")
REGISTRATION = (
    " same => n,Set(CTX=${CURL(${RAPIDA_URL}/v1/talk/asterisk/call/${ASSISTANT_ID}"
    "?from=${FROM}&to=${EXTEN}&x-api-key=${RAPIDA_API_KEY})})"
)


SEED_OUTBOUND = """\
[rapida-outbound]
exten => s,1,Set(CHANNEL(audioreadformat)=slin)
 same => n,Set(CHANNEL(audiowriteformat)=slin)
 ; RAPIDA_CONTEXT_ID is set by Rapida ARI when originating the call
 same => n,AudioSocket(${RAPIDA_CONTEXT_ID},${RAPIDA_AS_HOST}:${RAPIDA_PORT})
 same => n,Hangup()
"""
"""Rapida's own lines for calls that are placed; the live suite runs them."""


def steps_of(text: str) -> list[str]:
    """The applications of a dialplan, in their order, with what they are given."""
    return re.findall(r"^(?:exten => [^,]+,1| same => n(?:\(\w+\))?),(.*)$", text, re.MULTILINE)


def globals_of(text: str) -> dict[str, str]:
    """The [globals] of a dialplan."""
    return dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))


OUTBOUND = (audiosocket_outbound_dialplan, websocket_outbound_dialplan)
ON_OFF = (False, True)


class AudioSocketTests(SynchronousTestCase):
    """Calls over AudioSocket."""

    def test_globals(self) -> None:
        """This server's values stand in the globals, which are all that the seed's dialplan needs changed."""
        self.assertEqual(
            globals_of(audiosocket_dialplan(VALUES)),
            {
                "RAPIDA_API_KEY": "rpd-0123-_abc",
                "RAPIDA_URL": "http://pbx.example:8080",
                "RAPIDA_AS_HOST": "pbx.example",
                "RAPIDA_PORT": "4573",
                "ASSISTANT_ID": "123",
            },
        )

    def test_steps(self) -> None:
        """Answer, register, go to the error branch without a contextId, talk, hang up."""
        text = audiosocket_dialplan(VALUES)
        steps = [line.partition(",")[2] for line in text.splitlines() if "=>" in line]
        self.assertEqual(
            [step.partition("(")[0].rpartition(",")[2] for step in steps],
            ["Answer", "Set", "Set", "GotoIf", "AudioSocket", "Hangup", "Playback", "Hangup"],
        )
        self.assertIn(REGISTRATION, text)
        self.assertIn(' same => n,GotoIf($["${CTX}" = ""]?error)', text)
        self.assertIn(" same => n,AudioSocket(${CTX},${RAPIDA_AS_HOST}:${RAPIDA_PORT})", text)
        self.assertIn(" same => n(error),", text)

    def test_callers_number_is_encoded(self) -> None:
        """A + in the caller's number would arrive as a blank without URIENCODE()."""
        self.assertIn("Set(FROM=${URIENCODE(${CALLERID(num)})})", audiosocket_dialplan(VALUES))

    def test_braces_are_balanced(self) -> None:
        """No brace is left over from the making of the text."""
        for text in (
            *[
                way(VALUES, transfer=transfer)
                for way in (audiosocket_dialplan, websocket_dialplan)
                for transfer in ON_OFF
            ],
            *[freepbx_dialplan(way(VALUES)) for way in (audiosocket_dialplan, websocket_dialplan)],
            *[way(transfer=transfer) for way in OUTBOUND for transfer in ON_OFF],
            *[stasis_dialplan("rapida-media-pbx", "42", transfer=transfer) for transfer in ON_OFF],
        ):
            for line in text.splitlines():
                self.assertEqual((line.count("{"), line.count("(")), (line.count("}"), line.count(")")), line)
            self.assertNotIn("{{", text)

    def test_key_with_odd_characters(self) -> None:
        """A key survives the configuration file, the expansion of variables, CURL() and the address."""
        key = 'a;b,c&d#e+f%g"h)i]j{k}l=m?n\\o|p^q'
        shown = globals_of(audiosocket_dialplan(replace(VALUES, api_key=key)))["RAPIDA_API_KEY"]
        self.assertEqual(unquote(shown), key)
        self.assertEqual(set(shown) & set(';,&#+"()[]{}=?\\|^'), set())

    def test_placeholder_stays_readable(self) -> None:
        """Where the key is not to be shown, what stands for it is not encoded."""
        values = replace(VALUES, api_key="<the key in $RAPIDA_API_KEY>")
        self.assertIn("RAPIDA_API_KEY = <the key in $RAPIDA_API_KEY>\n", audiosocket_dialplan(values))


class WebSocketTests(SynchronousTestCase):
    """Calls over WebSocket, and the client that they need."""

    def test_steps(self) -> None:
        """The registration is the same; Dial() takes the place of AudioSocket(), and goes on when the media ends."""
        text = websocket_dialplan(VALUES)
        self.assertIn(REGISTRATION, text)
        dial = "Dial(WebSocket/rapida/c(ulaw)v(contextId=${CTX},x-api-key=${RAPIDA_API_KEY}),,g)"
        self.assertIn(f" same => n,{dial}\n", text)
        self.assertIn(' same => n,GotoIf($["${DIALSTATUS}" != "ANSWER"]?error)', text)
        self.assertNotIn("AudioSocket", text)
        self.assertNotIn("ssl_cainfo", text)

    def test_own_authority(self) -> None:
        """An authority of one's own is named to CURL() before the registration."""
        lines = websocket_dialplan(VALUES, "/etc/own.pem").splitlines()
        own = lines.index(" same => n,Set(CURLOPT(ssl_cainfo)=/etc/own.pem)")
        self.assertLess(own, lines.index(REGISTRATION))

    def test_client(self) -> None:
        """The client's address follows the HTTP address; without TLS nothing is said of certificates."""
        text = websocket_client_conf(VALUES)
        self.assertIn("[rapida]\ntype = websocket_client\n", text)
        self.assertIn("\nuri = ws://pbx.example:8080/v1/talk/asterisk/ctx\n", text)
        self.assertIn("\nprotocols = media\n", text)
        self.assertNotIn("tls_enabled", text)

    def test_client_with_tls(self) -> None:
        """Over https it is wss, and the authorities' file is named."""
        values = replace(VALUES, http_url="https://pbx.example")
        text = websocket_client_conf(values)
        self.assertIn("\nuri = wss://pbx.example/v1/talk/asterisk/ctx\n", text)
        self.assertIn(f"\ntls_enabled = yes\nca_list_file = {PUBLIC_CA_FILE}\n", text)
        self.assertIn("\nca_list_file = /etc/own.pem\n", websocket_client_conf(values, "/etc/own.pem"))


class OutboundTests(SynchronousTestCase):
    """Calls that we place, once they are answered."""

    def test_audiosocket(self) -> None:
        """They do what Rapida's own lines do, but for those that Asterisk only warns of."""
        text = audiosocket_outbound_dialplan()
        self.assertEqual(text.splitlines()[0], SEED_OUTBOUND.splitlines()[0])
        first, *steps = [step.replace("${CTX}", "${RAPIDA_CONTEXT_ID}") for step in steps_of(text)]
        self.assertEqual(first, "Set(CTX=${RAPIDA_CONTEXT_ID})")
        self.assertEqual(steps, [step for step in steps_of(SEED_OUTBOUND) if "CHANNEL(" not in step])

    def test_websocket(self) -> None:
        """Over WebSocket likewise; the context's name is the one of Rapida's page."""
        text = websocket_outbound_dialplan()
        self.assertTrue(text.startswith("[rapida-outbound-ws]\nexten => s,1,"))
        self.assertEqual(
            steps_of(text),
            [
                "Set(CTX=${RAPIDA_CONTEXT_ID})",
                "Dial(WebSocket/rapida/c(ulaw)v(contextId=${CTX},x-api-key=${RAPIDA_API_KEY}),,g)",
                "Hangup()",
            ],
        )

    def test_globals(self) -> None:
        """The lines use no global variable that those of the inbound calls do not set."""
        for inbound, outbound in zip((audiosocket_dialplan, websocket_dialplan), OUTBOUND, strict=True):
            used = set(re.findall(r"\$\{(\w+)\}", outbound(transfer=True)))
            self.assertLessEqual(used - {"CTX", "NEXT", "RAPIDA_CONTEXT_ID"}, set(globals_of(inbound(VALUES))))

    def test_transfer(self) -> None:
        """The lines of a transfer are those of the inbound calls, after the media."""
        for inbound, outbound in zip((audiosocket_dialplan, websocket_dialplan), OUTBOUND, strict=True):
            self.assertNotIn("NEXT", outbound())
            moving = steps_of(outbound(transfer=True))[2:]
            self.assertEqual(len(moving), 4)
            self.assertTrue(moving[0].startswith("Set(NEXT=${CURL("))
            self.assertIn("\n".join(moving), "\n".join(steps_of(inbound(VALUES, transfer=True))))
            self.assertIn(" same => n(over),Hangup()\n", outbound(transfer=True))

    def test_own_authority(self) -> None:
        """An authority of one's own is named where there is a request, which is that of a transfer."""
        own = "Set(CURLOPT(ssl_cainfo)=/etc/own.pem)"
        self.assertEqual(steps_of(websocket_outbound_dialplan("/etc/own.pem", transfer=True))[1], own)
        self.assertNotIn("ssl_cainfo", websocket_outbound_dialplan("/etc/own.pem"))


class StasisTests(SynchronousTestCase):
    """Calls that are given to the Stasis application."""

    def test_steps(self) -> None:
        """Answer, give the call away, and the prompt where it was not taken, or got no media. No key is needed."""
        text = stasis_dialplan("rapida-media-pbx", "42")
        self.assertEqual(
            steps_of(text),
            [
                "Answer()",
                "Stasis(rapida-media-pbx,42)",
                'GotoIf($["${STASISSTATUS}" = "FAILED"]?error)',
                'GotoIf($["${RAPIDA_ERROR}" != ""]?error)',
                "Hangup()",
                "Playback(an-error-has-occurred)",
                "Hangup()",
            ],
        )
        self.assertIn(" same => n(error),Playback(", text)
        self.assertNotIn("API_KEY", text)

    def test_transfer(self) -> None:
        """Where the call goes next is known already: nobody is asked."""
        text = stasis_dialplan("rapida-media-pbx", "42", transfer=True)
        self.assertEqual(
            steps_of(text)[4:7], ['GotoIf($["${RAPIDA_NEXT}" = ""]?over)', "Dial(${RAPIDA_NEXT})", "Hangup()"]
        )
        self.assertIn(" same => n(over),Hangup()\n", text)
