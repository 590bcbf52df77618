"""Finds the API key for the console programs: in a file or the environment, never on the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rapida_twisted.credentials.key_file import KEY_FILE
from rapida_twisted.settings import default_state_dir

__all__ = ["find_api_key", "state_directory"]


def find_api_key(key_file: Path | None, state_dir: Path | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The key from the named file, else from the environment, else from the server's state directory.

    :raises ValueError: there is none; the text is one sentence.
    """
    from_environment = environ.get("RAPIDA_API_KEY", "").split(",")[0].strip()
    if key_file is None and from_environment:
        return from_environment
    path = key_file or state_directory(state_dir, environ) / KEY_FILE
    try:
        key = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "the file is not ASCII text"
    else:
        if not key:
            raise ValueError(f"there is no API key: {path} is empty")
        return key
    # Raised outside the except block: that error's context would hold the file's bytes.
    raise ValueError(
        f"there is no API key: cannot read {path} ({reason}); set RAPIDA_API_KEY, or name the file (--key-file)"
    )


def state_directory(named: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The server's state directory: the named one, else ``STATE_DIR``, else the default.

    :raises ValueError: there is no home directory.
    """
    try:
        return named or Path(environ.get("STATE_DIR") or default_state_dir()).expanduser()
    except RuntimeError as error:
        raise ValueError(f"the state directory is not known: {error}; name it (--state-dir)") from None
