"""A private Asterisk: its own directory, its own ports, stopped by its process id."""

from __future__ import annotations

import atexit
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import FailTest, SkipTest

from benchmarks.harness.ports import free_port, free_udp_block, release
from benchmarks.harness.programs import required
from benchmarks.harness.waiting import wait_until

BOOT_S = 60
RTP_PORTS = 200
ARI_USER, ARI_PASSWORD = "harness", "ari-4lL3in-Kx92"
"""The password is like nothing else, to be searched for."""

MODULES = """
    res_timing_timerfd res_curl func_curl res_http_websocket res_websocket_client
    res_audiosocket app_audiosocket chan_audiosocket chan_websocket pbx_config
    app_dial app_playback app_playtones app_record app_mixmonitor app_verbose app_echo app_senddtmf app_stack app_stasis
    func_callerid func_channel func_strings func_logic func_json func_uri func_volume func_global
    format_wav format_pcm format_sln codec_ulaw codec_alaw codec_resample res_stasis* res_ari* bridge_*
    res_rtp_asterisk res_sorcery_config res_sorcery_memory res_sorcery_astdb res_pjproject res_pjsip res_pjsip_pubsub
    res_pjsip_session res_pjsip_sdp_rtp res_pjsip_registrar res_pjsip_endpoint_identifier_ip
    res_pjsip_endpoint_identifier_user res_pjsip_endpoint_identifier_anonymous
    res_pjsip_outbound_authenticator_digest res_pjsip_authenticator_digest res_pjsip_caller_id chan_pjsip
"""

EMPTY_CONFIGS = """
    acl.conf ccss.conf cdr.conf cel.conf chan_websocket.conf features.conf indications.conf pjproject.conf udptl.conf
    websocket_client.conf
"""

CONFIGS = {
    "asterisk.conf": """
[directories]
astetcdir => {inside}/etc
astmoddir => {modules}
astvarlibdir => {inside}/lib
astdbdir => {inside}/lib
astkeydir => {inside}/lib
astdatadir => {inside}/data
astspooldir => {inside}/spool
astrundir => {inside}/run
astlogdir => {inside}/log
[options]
documentation_language = en_US
""",
    "logger.conf": """
[general]
dateformat = %F %T.%3q
[logfiles]
full.log => notice,warning,error,verbose(5),dtmf
""",
    "http.conf": """
[general]
enabled = yes
bindaddr = 127.0.0.1
bindport = {http_port}
""",
    "ari.conf": """
[general]
enabled = yes
[{ari_user}]
type = user
password = {ari_password}
""",
    "rtp.conf": """
[general]
rtpstart = {rtp_start}
rtpend = {rtp_end}
""",
    # Any phone is let in, without a word, into the context from-phone of the test's own extensions.conf.
    "pjsip.conf": """
[transport-udp]
type = transport
protocol = udp
bind = 127.0.0.1:{sip_port}
[transport-tcp]
type = transport
protocol = tcp
bind = 127.0.0.1:{sip_port}
[anonymous]
type = endpoint
context = from-phone
disallow = all
allow = ulaw,alaw
media_address = 127.0.0.1
bind_rtp_to_media_address = yes

; Those who are called, by trunk: phones, nobody (TCP: refused), nobody (UDP: silence), a phone that never registered.
[called](!)
type = endpoint
context = from-phone
disallow = all
allow = ulaw,alaw
media_address = 127.0.0.1
bind_rtp_to_media_address = yes
[trunk](called)
aors = trunk
[trunk]
type = aor
contact = sip:127.0.0.1:{trunk_port}
[absent](called)
aors = absent
[absent]
type = aor
contact = sip:127.0.0.1:{nobody_port}\\;transport=tcp
[silent](called)
aors = silent
[silent]
type = aor
contact = sip:127.0.0.1:{nobody_port}
[unregistered](called)
aors = unregistered
[unregistered]
type = aor
max_contacts = 1
""",
    "extensions.conf": "[general]\nclearglobalvars = yes\n",
    # Empty, so that what the log calls an error is one.
    **dict.fromkeys(EMPTY_CONFIGS.split(), ""),
}


class Asterisk:
    """One Asterisk in the folder made by ``script/asterisk``.

    :param root: that folder.
    :param configs: texts of configuration files by name, in addition to :data:`CONFIGS` or in their place. In those,
        ``{inside}``, ``{sip_port}``, ``{http_port}`` and so on are replaced; in texts given here nothing is.
    """

    def __init__(self, root: Path, configs: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.sip_port = free_port(keep=True)
        self.http_port = free_port(keep=True)
        self.rtp_start = free_udp_block(RTP_PORTS, keep=True)
        self.trunk_port = free_port(socket.SOCK_DGRAM, keep=True)
        """Where the telephones of the trunk ``trunk`` are, see :class:`~tests.live.phones.Exchange`."""
        self.nobody_port = free_port(keep=True)
        """Where nobody is: the trunks ``absent`` (TCP: refused at once) and ``silent`` (UDP: no answer ever)."""
        self.directory = Path(tempfile.mkdtemp(prefix="rapida-", dir=root / "tmp"))
        self.inside = f"/tmp/{self.directory.name}"
        """The same directory, as a process inside the folder names it."""
        self._environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": self.inside}
        """Nothing of ours: a proxy's variable would lead CURL() astray."""
        self._process: subprocess.Popen[bytes] | None = None
        self._write_configs(configs or {})

    def _write_configs(self, configs: Mapping[str, str]) -> None:
        for name in ("etc", "lib", "data/sounds/en", "spool", "run", "log", "recordings"):
            (self.directory / name).mkdir(parents=True)
        for name in ("documentation", "rest-api", "static-http"):
            (self.directory / "data" / name).symlink_to(f"/usr/share/asterisk/{name}")
        modules = self._modules_directory()
        values = {
            "inside": self.inside,
            "modules": f"/{modules.relative_to(self.root)}",
            "sip_port": self.sip_port,
            "http_port": self.http_port,
            "rtp_start": self.rtp_start,
            "rtp_end": self.rtp_start + RTP_PORTS - 1,
            "trunk_port": self.trunk_port,
            "nobody_port": self.nobody_port,
            "ari_user": ARI_USER,
            "ari_password": ARI_PASSWORD,
        }
        texts = {name: text.format(**values) for name, text in CONFIGS.items()}
        texts["modules.conf"] = "[modules]\nautoload = no\n" + "".join(
            f"load = {module.name}\n" for pattern in MODULES.split() for module in modules.glob(f"{pattern}.so")
        )
        for name, text in {**texts, **configs}.items():
            self.write_config(name, text)

    def _modules_directory(self) -> Path:
        return next((self.root / "usr/lib").glob("*/asterisk/modules"))

    # Running

    def start(self) -> None:
        """Start it and wait until it is fully booted."""
        # Its mounts are in a namespace of its own and vanish with it. It dies with us, however we die.
        prepare = 'mount -t proc proc "$1/proc" && mount --bind /dev "$1/dev"; exec chroot "$@"'
        isolated = ["unshare", "--mount"] if _may_unshare() else []
        with open(self.directory / "log" / "console.log", "wb") as console:
            self._process = subprocess.Popen(
                [
                    *["setpriv", "--pdeathsig", "TERM", *isolated, "sh", "-c", prepare, "sh", str(self.root)],
                    *["asterisk", "-C", f"{self.inside}/etc/asterisk.conf", "-f", "-n"],
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=self._environment,
                start_new_session=True,
            )
        wait_until("Asterisk is fully booted", self._is_booted, BOOT_S, every_s=0.1)

    def _is_booted(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise FailTest(f"Asterisk ended with code {self._process.returncode} at its start:\n{self._console()}")
        return (self.directory / "run/asterisk.ctl").exists() and "fully booted" in self.cli("core waitfullybooted")

    def _console(self) -> str:
        return (self.directory / "log/console.log").read_text(errors="replace")[-3000:]

    def stop(self, keep_log: Path | None = None) -> None:
        """Stop it and remove its directory.

        :param keep_log: where to leave its log.
        """
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if keep_log is not None and self._log.exists():
            shutil.copyfile(self._log, keep_log)
        shutil.rmtree(self.directory, ignore_errors=True)
        release(self.rtp_start, RTP_PORTS)
        for port in (self.sip_port, self.http_port, self.trunk_port, self.nobody_port):
            release(port)

    def run_inside(self, *command: str, timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
        """Run a command inside the folder and wait for it."""
        return subprocess.run(
            ["chroot", str(self.root), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=self._environment,
        )

    def start_inside(self, script: str, *arguments: str, output: Path) -> subprocess.Popen[bytes]:
        """Start a shell script (best ending with ``exec``) inside the folder; the caller waits for it."""
        with open(output, "wb") as file:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "chroot", str(self.root), "sh", "-c", script, "sh", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._process is not None

    def kill(self) -> None:
        """End it at once, as a crash does; it may be started again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    # Telling and asking

    def cli(self, command: str) -> str:
        """What Asterisk's command line answers."""
        return self.run_inside("asterisk", "-C", f"{self.inside}/etc/asterisk.conf", "-rx", command).stdout

    def ari(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """What Asterisk's REST interface answers; an error status raises ``urllib.error.HTTPError``."""
        url = f"http://127.0.0.1:{self.http_port}/ari/{path}?{urllib.parse.urlencode(query)}"
        token = base64.b64encode(f"{ARI_USER}:{ARI_PASSWORD}".encode()).decode()
        request = urllib.request.Request(url, method=method, headers={"Authorization": f"Basic {token}"})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with _opener.open(request, timeout=10) as response:
            answer = response.read()
        return json.loads(answer) if answer else None

    def keep_application(self, name: str) -> socket.socket:
        """Connect as a Stasis application, which exists until the connection is closed. Its events are not read."""
        key = base64.b64encode(os.urandom(16)).decode()
        connection = socket.create_connection(("127.0.0.1", self.http_port), timeout=10)
        connection.sendall(
            f"GET /ari/events?app={name}&api_key={ARI_USER}:{ARI_PASSWORD} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: ari\r\n\r\n".encode()
        )
        answer = connection.recv(4096)
        if b" 101 " not in answer:
            raise FailTest(f"no application {name}: {answer!r}")
        return connection

    def write_config(self, name: str, text: str) -> None:
        """Write a configuration file; it counts from the next start or reload."""
        (self.directory / "etc" / name).write_text(text)

    def reload(self, what: str = "pbx_config.so") -> None:
        """Have a module read its configuration again."""
        answer = self.cli(f"module reload {what}")
        if "reloaded successfully" not in answer:
            raise FailTest(f"module reload {what}: {answer}")

    def has_module(self, name: str) -> bool:
        """Whether this Asterisk has a module, such as ``chan_websocket``, and runs it."""
        return "Running" in self.cli(f"module show like {name}")

    # Calls

    def originate(self, endpoint: str, extension: str, caller: str = "", **variables: str) -> str:
        """Place a call without a phone; gives its channel's id.

        :param endpoint: whom to call, such as ``Local/100@rapida-inbound``.
        :param extension: ``extension@context``: the lines that the calling side runs, once answered.
        :param variables: channel variables of the calling side.
        """
        name, _, context = extension.partition("@")
        query = {"endpoint": endpoint, "extension": name, "context": context, "priority": "1", "callerId": caller}
        # Left to choose, Asterisk makes Local channels of 192 kHz, and its resampler takes 6 dB each way.
        query["formats"] = "slin"
        channel: str = self.ari("POST", "channels", {"variables": variables}, **query)["id"]
        return channel

    def hang_up(self, channel: str) -> None:
        """Hang up one channel, as its phone would."""
        self.ari("DELETE", f"channels/{channel}")

    def hang_up_all(self) -> None:
        """Hang up every channel there is."""
        self.cli("channel request hangup all")

    def wait_until_idle(self, timeout_s: float = 10) -> None:
        """Wait until no channel is left."""
        wait_until("no channel is left", lambda: not self.cli("core show channels concise").strip(), timeout_s, 0.1)

    # Its log: every executed line of a dialplan is in it

    @property
    def _log(self) -> Path:
        return self.directory / "log" / "full.log"

    def log_mark(self) -> int:
        """Where the log ends now."""
        return self._log.stat().st_size

    def log_since(self, mark: int) -> str:
        """The log from a mark on."""
        with open(self._log, "rb") as file:
            file.seek(mark)
            return file.read().decode(errors="replace")

    def wait_for_log(self, pattern: str, since: int, timeout_s: float = 10, count: int = 1) -> list[re.Match[str]]:
        """Wait until a regular expression was found ``count`` times in the log from a mark on."""

        def matches() -> list[re.Match[str]] | None:
            found = list(re.finditer(pattern, self.log_since(since)))
            return found if len(found) >= count else None

        return wait_until(f"{count} of {pattern!r} in Asterisk's log", matches, timeout_s, 0.05)


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@cache
def _may_unshare() -> bool:
    """Whether private mounts may be made here; in a plain container they may not, and are not missed much."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


# One for the whole test run: booting takes seconds


@cache
def _shared(program: str) -> Asterisk | Exception:
    try:
        return _started_asterisk(program)
    except (SkipTest, FailTest) as error:
        return error


def shared_asterisk(program: str = "asterisk") -> Asterisk:
    """The Asterisk of this process, started by the first test that asks and stopped when Python ends.

    :param program: ``asterisk-older`` for another one.
    :raises SkipTest: it can't be had here. With ``CI=true`` in the environment that is a failure instead.
    """
    shared = _shared(program)
    if isinstance(shared, Exception):
        raise shared
    return shared


def _started_asterisk(program: str) -> Asterisk:
    asterisk = Asterisk(required(program))
    # The log goes to trial's own directory, where its other logs are.
    atexit.register(asterisk.stop, keep_log=Path.cwd() / f"{program}.log")
    asterisk.start()
    return asterisk
